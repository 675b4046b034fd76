"""Word errors of joined recordings: against those of its clips one by one, and near the seams between windows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compare import RESAMPLES, resampled_sums
from parakeet_worker.audio.chunking import ChunkingConfig, chunk
from parakeet_worker.audio.decode import open_reader
from parakeet_worker.cancellation import CancellationToken
from results import WordTime
from scoring import align_words, normalise

NEAR_SECONDS = 1.5
"""A word is near a seam if its middle is less than this from it."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """A difference between two word error rates, in points, that is, percent of the words.

    Attributes:
        points: The difference.
        low: The lower end of its 95 percent interval, from a bootstrap over sentences.
        high: The upper end.
    """

    points: float
    low: float
    high: float


@dataclass(frozen=True)
class JoinedErrors:
    """Word errors of joined recordings. Rates are errors for each word.

    Attributes:
        words: Words of the recordings.
        seams: Seams between their windows.
        words_near: Words near a seam.
        alone: The rate of the clips one by one.
        joined: The rate in the recordings.
        near_alone: The rate of the words near a seam in the clips one by one.
        near: Their rate in the recordings.
        elsewhere_alone: The rate of the other words in the clips one by one.
        elsewhere: Their rate in the recordings.
        beyond_alone: `joined` beyond `alone`.
        near_beyond_elsewhere: `near` beyond `elsewhere`. Words near a seam are the first or last of their sentences,
            which may be harder than others.
        caused_by_seams: How much more `near` is beyond `near_alone` than `elsewhere` is beyond `elsewhere_alone`: the
            same words are compared, so it does not matter how hard they are.
    """

    words: int
    seams: int
    words_near: int
    alone: float
    joined: float
    near_alone: float
    near: float
    elsewhere_alone: float
    elsewhere: float
    beyond_alone: Difference
    near_beyond_elsewhere: Difference | None
    caused_by_seams: Difference | None


@dataclass(frozen=True)
class Transcribed:
    """A clip or a joined recording as it was transcribed.

    Attributes:
        reference: Its words.
        hypothesis: The words of its transcript.
    """

    reference: Sequence[WordTime]
    hypothesis: Sequence[WordTime]

    def errors(self) -> Counts:
        """Return the errors at each word of the reference, in the spelling in which words are compared."""
        return errors_by_word(split_words(self.reference), split_words(self.hypothesis))


@dataclass(frozen=True)
class JoinedClips:
    """Clips that were transcribed as one recording.

    Attributes:
        order: Which clips they are, one after the other.
        transcribed: The recording.
        seams: Where its windows meet, in seconds.
    """

    order: Sequence[int]
    transcribed: Transcribed
    seams: Sequence[float]


def find_seams(recording: Path, chunking: ChunkingConfig) -> list[float]:
    """Return where the worker divides a recording into windows, in seconds: their overlaps reach beyond."""
    with recording.open("rb") as file, open_reader(file, CancellationToken()) as reader:
        return [span.keep_until for span, _ in chunk(reader.blocks(), chunking)][:-1]


def measure_joined(
    clips: Sequence[Transcribed], recordings: Sequence[JoinedClips], near_seconds: float = NEAR_SECONDS
) -> JoinedErrors:
    """Compare the transcripts of joined clips with those of the clips.

    Args:
        clips: Clips, transcribed one by one.
        recordings: Recordings of them; at least one.
        near_seconds: Up to where a word is near a seam.
    """
    by_clip = [clip.errors() for clip in clips]
    order = [number for recording in recordings for number in recording.order]
    errors = np.concatenate([recording.transcribed.errors() for recording in recordings])
    alone = np.concatenate([by_clip[number] for number in order])
    sentence = np.repeat(order, [len(by_clip[number]) for number in order])
    near = np.concatenate(
        [
            is_near(split_words(recording.transcribed.reference), recording.seams, near_seconds)
            for recording in recordings
        ]
    )
    return _summarise(errors, alone, sentence, near, sum(len(recording.seams) for recording in recordings))


def split_words(words: Iterable[WordTime]) -> list[WordTime]:
    """Return the words in the spelling in which they are compared; `I'm` is two, both with its times, and `uh` none."""
    return [WordTime(part, word.start, word.end) for word in words for part in normalise(word.word).split()]


def errors_by_word(reference: Sequence[WordTime], hypothesis: Sequence[WordTime]) -> Counts:
    """Return the number of errors at each word of the reference, shape [words].

    A word that was misheard or missed is one error. An added word is an error of the word of the reference that is
    the nearer in time of the two around it.
    """
    errors = np.zeros(len(reference), np.int64)
    before, heard = -1, -1
    for pair in align_words([word.word for word in reference], [word.word for word in hypothesis]):
        before += pair.reference is not None
        heard += pair.hypothesis is not None
        if pair.reference is not None:
            errors[before] += not pair.is_match
        elif len(reference):
            around = [index for index in (before, before + 1) if 0 <= index < len(reference)]
            added = _middle(hypothesis[heard])
            errors[min(around, key=lambda index: abs(_middle(reference[index]) - added))] += 1
    return errors


def is_near(words: Sequence[WordTime], seams: Sequence[float], seconds: float) -> NDArray[np.bool_]:
    """Return whether the middle of each word is less than so many seconds from a seam, shape [words]."""
    if not seams:
        return np.zeros(len(words), np.bool_)
    middles = np.array([_middle(word) for word in words])
    near: NDArray[np.bool_] = np.abs(middles[:, None] - np.asarray(seams)).min(axis=1) < seconds
    return near


def _middle(word: WordTime) -> float:
    return (word.start + word.end) / 2


def _summarise(errors: Counts, alone: Counts, sentence: Counts, near: NDArray[np.bool_], seams: int) -> JoinedErrors:
    columns = np.stack([errors * near, alone * near, near, errors * ~near, alone * ~near, ~near])
    # A clip is joined several times, with much the same errors: so sentences are drawn, not clips.
    by_sentence = np.stack([np.bincount(sentence, column) for column in columns]).astype(np.int64)
    totals, drawn = by_sentence.sum(axis=1), resampled_sums(by_sentence, RESAMPLES)
    rates = _rates(totals)
    is_divided = bool(totals[2] and totals[5])
    return JoinedErrors(
        words=len(errors),
        seams=seams,
        words_near=int(totals[2]),
        alone=float(rates[1]),
        joined=float(rates[0]),
        near_alone=float(rates[3]),
        near=float(rates[2]),
        elsewhere_alone=float(rates[5]),
        elsewhere=float(rates[4]),
        beyond_alone=_difference(totals, drawn, (1, -1, 0, 0, 0, 0)),
        near_beyond_elsewhere=_difference(totals, drawn, (0, 0, 1, 0, -1, 0)) if is_divided else None,
        caused_by_seams=_difference(totals, drawn, (0, 0, 1, -1, -1, 1)) if is_divided else None,
    )


def _difference(totals: Counts, drawn: Counts, weights: Sequence[int]) -> Difference:
    """Return a weighted sum of the rates, with the interval that the drawn sums give it."""
    points = 100 * np.asarray(weights) @ _rates(totals)
    low, high = np.percentile(100 * np.asarray(weights) @ _rates(drawn), [2.5, 97.5]).tolist()
    return Difference(float(points), low, high)


def _rates(sums: Counts) -> NDArray[np.float64]:
    """Return the rates: joined and alone of all words, of those near a seam, and of the others, shape [6, ...].

    Args:
        sums: Of those near a seam, errors in the recording, errors alone, and words; then the same of the others.
    """
    near, near_alone, near_words, far, far_alone, far_words = sums.astype(np.float64)
    words = near_words + far_words
    parts = [(near + far, words), (near_alone + far_alone, words), (near, near_words), (near_alone, near_words)]
    parts += [(far, far_words), (far_alone, far_words)]
    # A part without words has no errors.
    return np.stack([errors / np.maximum(count, 1) for errors, count in parts])
