"""From tokens with times to characters, words and segments with times.

The model times tokens: a token starts at an encoder frame and lasts a whole number of frames. The times of characters,
words and segments follow from the tokens, by the same rules as NeMo's (`compute_rnnt_timestamps`).
"""

import math
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

from parakeet_worker.asr.types import Token

_SPACE = "▁"  # SentencePiece's mark of a space before a piece

SENTENCE_ENDS = frozenset(".?!")
"""Marks that end a sentence."""

CLAUSE_ENDS = frozenset(",;:")
"""Marks that end a clause."""

# A segment that would last too long is divided at its longest pauses. The end of a clause counts as half a second.
_CLAUSE_PAUSE_S = 0.5

# Longest segment. Longer ones are divided, so that text without punctuation has segments, too. It is a millisecond less
# than 30 s, as the difference of two rounded times may be a little more than it should.
_LONGEST_SEGMENT_S = 29.999

# Unicode counts them as punctuation, but people say them.
_SPOKEN_MARKS = frozenset("#%&*/@\\")


@dataclass(frozen=True)
class Span:
    """A part of the transcript with its time, in seconds from the start of the audio.

    Attributes:
        text: The part.
        start: When it starts.
        end: When it ends.
        confidence: The model's confidence in it, from 0 to 1, or None if that was not asked for.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Timestamps:
    """A transcript at three levels. Spans of one level are in order and do not overlap.

    Attributes:
        words: The transcript, split at spaces.
        segments: Its sentences, divided at long pauses and where they would last too long; see `align`.
        chars: Its characters, spaces among them: span i is character i. They have no confidence.
    """

    words: tuple[Span, ...]
    segments: tuple[Span, ...]
    chars: tuple[Span, ...]


@dataclass(frozen=True)
class WordTokens:
    """A word of a transcript, and the tokens that it was made of.

    Attributes:
        text: The word.
        tokens: Its tokens, in order. None where a token before it has the characters of both words.
    """

    text: str
    tokens: tuple[Token, ...]


def group_by_word(text: str, tokens: Sequence[Token]) -> list[WordTokens]:
    """Group the tokens of a transcript by its words, which are split at spaces.

    A token belongs to the word of its first visible character; one that is only a space to the word that follows.

    Args:
        text: The transcript.
        tokens: The tokens that it was made of, in order.
    """
    words = text.split()
    if not words:
        return []
    ends = list(accumulate(map(len, words)))
    grouped: list[list[Token]] = [[] for _ in words]
    position = 0
    for token in tokens:
        grouped[min(bisect_right(ends, position), len(words) - 1)].append(token)
        position += len(visible(token.piece))
    return [WordTokens(word, tuple(group)) for word, group in zip(words, grouped, strict=True)]


def align(text: str, tokens: Sequence[Token], duration: float, segment_pause: float = math.inf) -> Timestamps:
    """Compute the times of each character, word and segment of a transcript.

    A segment ends with a word that ends with `.`, `?` or `!`, and before a long pause. One of more than 30 seconds is
    divided at its longest pauses.

    Args:
        text: The transcript.
        tokens: The tokens that it was made of, in order.
        duration: Length of the audio in seconds, the latest time that is returned.
        segment_pause: A pause of more seconds ends a segment.
    """
    chars: list[Span] = []
    words: list[Span] = []
    left: list[Span] = []  # characters of a token that go beyond its word
    for word in group_by_word(text, _settle(tokens, duration)):
        shares = left + [share for token in word.tokens for share in _shares(token)]
        # Every character comes from a token; should one not, it shares the time of the last.
        last = (shares or chars)[-1:] or [Span("", 0.0, 0.0)]
        shares += last * (len(word.text) - len(shares))
        spans = [
            Span(char, share.start, max(share.start, share.end)) for char, share in zip(word.text, shares, strict=False)
        ]
        left = shares[len(word.text) :]
        confidence = _mean(token.confidence for token in word.tokens)
        if confidence is None and words:  # it shares a token with the word before it
            confidence = words[-1].confidence
        words.append(Span(word.text, spans[0].start, spans[-1].end, confidence))
        chars += spans
    return Timestamps(tuple(words), tuple(_segments(words, segment_pause)), tuple(_with_spaces(text, chars)))


def mean_confidence(words: Iterable[Span]) -> float | None:
    """Return the mean confidence of words, or None if there are none, or they have none."""
    return _mean(word.confidence for word in words)


def _mean(confidences: Iterable[float | None]) -> float | None:
    known = [confidence for confidence in confidences if confidence is not None]
    return sum(known) / len(known) if known else None


def visible(piece: str) -> str:
    """Return the characters of a token's piece without its spaces."""
    return piece.replace(_SPACE, "")


def is_silent(text: str) -> bool:
    """Return whether a text consists only of punctuation marks that nobody says."""
    return all(unicodedata.category(character).startswith("P") and character not in _SPOKEN_MARKS for character in text)


def _settle(tokens: Sequence[Token], duration: float) -> list[Token]:
    """Move the times of tokens inside the audio and into order, and drop tokens that are only a space.

    A punctuation mark has no sound, and the model may emit it long after the word: it takes the end of the token
    before it. A dropped token's start becomes the start of the next one.
    """
    settled: list[Token] = []
    space_start: float | None = None
    end = 0.0
    for token in tokens:
        shown = visible(token.piece)
        if settled and shown and is_silent(shown):
            settled.append(replace(token, start=end, end=end))
            continue
        start = min(max(token.start if space_start is None else space_start, end), duration)
        if not shown:
            space_start = start
            continue
        space_start = None
        end = min(max(token.end, start), duration)
        settled.append(replace(token, start=start, end=end))
    return settled


def _shares(token: Token) -> Iterator[Span]:
    """Divide a token's time evenly among its characters, without its space."""
    shown = visible(token.piece)
    step = (token.end - token.start) / max(1, len(shown))
    for index, character in enumerate(shown):
        yield Span(character, token.start + index * step, token.start + (index + 1) * step)


def _with_spaces(text: str, chars: Sequence[Span]) -> Iterator[Span]:
    """Yield the spans of all characters of a text; a space fills the gap between its neighbours.

    Args:
        text: The transcript.
        chars: The spans of its characters that are no spaces, in order.
    """
    position = 0
    for character in text:
        if character.isspace():
            start = chars[position - 1].end if position else 0.0
            following = chars[min(position, len(chars) - 1)].start if chars else start
            yield Span(character, start, max(start, following))
        else:
            yield chars[position]
            position += 1


def _segments(words: Sequence[Span], pause: float) -> Iterator[Span]:
    """Yield the segments of a transcript; see `align`."""
    first = 0
    for index, word in enumerate(words):
        is_last = index == len(words) - 1
        # To the millisecond: frames of 80 ms are no binary fractions, and 2.8 - 2.4 is more than 0.4.
        if is_last or word.text[-1] in SENTENCE_ENDS or round(words[index + 1].start - word.end, 3) > pause:
            yield from map(_segment, _parts(words[first : index + 1]))
            first = index + 1


def _parts(words: Sequence[Span]) -> Iterator[Sequence[Span]]:
    """Divide words into parts of 30 seconds at most, at the longest pauses of the second half of each.

    A word that lasts longer is a part of its own.
    """
    while words[-1].end - words[0].start > _LONGEST_SEGMENT_S and len(words) > 1:
        limit = words[0].start + _LONGEST_SEGMENT_S
        most = max(1, bisect_right(words, limit, key=lambda word: word.end))
        half = bisect_left(words, limit - _LONGEST_SEGMENT_S / 2, key=lambda word: word.start)
        best = max(range(max(1, min(half, most)), most + 1), key=partial(_pause_before, words))
        yield words[:best]
        words = words[best:]
    yield words


def _pause_before(words: Sequence[Span], index: int) -> float:
    """Return the pause before a word, in seconds, to which the end of a clause adds."""
    before = words[index - 1]
    return words[index].start - before.end + _CLAUSE_PAUSE_S * (before.text[-1] in CLAUSE_ENDS)


def _segment(words: Sequence[Span]) -> Span:
    start = words[0].start
    end = min(words[-1].end, start + _LONGEST_SEGMENT_S)
    return Span(" ".join(word.text for word in words), start, end, mean_confidence(words))
