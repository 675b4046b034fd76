"""The picture of a stretch of speech: its waveform, and under it the words of the reference and of the hypothesis."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from excerpt import Excerpt, Kind, ScoredPair
from results import Outcome, WordTime

# Pixels for a second: as many as make a short recording as wide as a page, within these bounds.
_PAGE_WIDTH, _NARROWEST, _WIDEST = 1_000, 110, 280

# Heights of the parts in pixels: the times, the waveform, the space below it, a row of labels, the bars from the start
# to the end of each word, and the bands that join the bars of both lanes.
_AXIS, _WAVE, _SPACE, _ROW, _BAR, _BAND = 18, 64, 8, 17, 7, 22
_MARGIN = 6

_STEP = 3  # pixels from one line of the waveform to the next

# A waveform is as high as its loudest sample allows. Softer than this it is lower: silence is not drawn as speech.
_LEAST_PEAK = 0.02

# The estimated width of a character, in pixels, and the most rows for labels that are near each other.
_CHARACTER, _MOST_ROWS = 7.0, 4

# Right pairs take the classes k0 to k3 in turn, so that neighbours can be told from each other.
_COLORS = 4


@dataclass(frozen=True)
class _Word:
    """A word in a lane.

    Attributes:
        time: The word with its times in seconds from the start of the recording.
        pair: The pair in which it is scored, or None.
        row: The row of its label, 0 for the one at the bars.
        note: What is to be known of it.
    """

    time: WordTime
    pair: ScoredPair | None
    row: int
    note: str


def draw(outcome: Outcome, excerpt: Excerpt, samples: NDArray[np.float32], sample_rate: int) -> str:
    """Draw an excerpt as HTML: the names of the lanes, and beside them an SVG that can be wider than the page.

    The element of a word has the attributes `data-t`, its start in seconds from the start of the excerpt, and `data-p`,
    the number of its pair.

    Args:
        outcome: The utterance.
        excerpt: What is shown of it.
        samples: The samples of the excerpt, of shape (samples,); empty if there are none.
        sample_rate: Samples per second.
    """
    seconds = len(samples) / sample_rate if len(samples) else excerpt.end - excerpt.start
    picture = _Picture(excerpt.start, min(_WIDEST, max(_NARROWEST, _PAGE_WIDTH / max(seconds, 1))))
    names, parts, y = [], [picture.axis(seconds)], float(_AXIS)
    if len(samples):
        parts.append(f'<path class="wave" d="{_waveform(samples, round(seconds * picture.scale), y)}"/>')
        y += _WAVE + _SPACE
    reference = picture.place(_reference_lane(outcome, excerpt))
    hypothesis = picture.place(_hypothesis_lane(outcome, excerpt))
    if reference:
        y += _height(reference)
        names.append(f'<text y="{_number(y - 5)}">Ref</text>')
        parts += [picture.word(word, y, y - 5 - word.row * _ROW) for word in reference]
        y += _BAR
    if reference and hypothesis:
        parts += picture.bands(outcome, excerpt, y)
        y += _BAND
    if hypothesis:
        first = y + _BAR + 13
        names.append(f'<text y="{_number(first)}">Hyp</text>')
        parts += [picture.word(word, y, first + word.row * _ROW) for word in hypothesis]
        y += _BAR + _height(hypothesis)
    width, height = math.ceil(seconds * picture.scale) + 2 * _MARGIN, round(y) + 4
    parts.append(f'<path class="head" d="M0 0V{height}"/>')
    return (
        f'<div class="figure"><svg class="names" width="30" height="{height}" aria-hidden="true">{"".join(names)}</svg>'
        f'<div class="scroll"><svg class="lanes" width="{width}" height="{height}" role="img" '
        f'aria-label="Waveform and times of words" viewBox="{-_MARGIN} 0 {width} {height}" '
        f'data-scale="{_number(picture.scale)}" data-margin="{_MARGIN}">\n' + "\n".join(parts) + "\n</svg></div></div>"
    )


class _Picture:
    """Draws what stands at a time.

    Args:
        start: Time of the left edge, in seconds from the start of the recording.
        scale: Pixels for a second.
    """

    def __init__(self, start: float, scale: float) -> None:
        self.scale = round(scale, 1)  # as the script of the page reads it
        self._start = start

    def x(self, seconds: float) -> float:
        """Return the place of a time."""
        return (seconds - self._start) * self.scale

    def place(self, lane: Sequence[_Word]) -> list[_Word]:
        """Put each label in the first row in which it does not cover another one."""
        ends = [-math.inf] * _MOST_ROWS
        placed = []
        for word in lane:
            left = self.x(word.time.start)
            row = next((row for row, end in enumerate(ends) if end <= left), ends.index(min(ends)))
            ends[row] = left + (len(word.time.word) + 1) * _CHARACTER
            placed.append(_Word(word.time, word.pair, row, word.note))
        return placed

    def word(self, word: _Word, bar: float, baseline: float) -> str:
        """Draw a word: a bar from its start to its end, with its upper edge at `bar`, and its label at `baseline`."""
        left = self.x(word.time.start)
        size = max(2.0, self.x(word.time.end) - left)
        pair = f' data-p="{word.pair.number}"' if word.pair else ""
        return (
            f'<g class="word {_style(word.pair)}" data-t="{max(0.0, word.time.start - self._start):.3f}"{pair}>'
            f"<title>{escape(word.note, quote=False)}</title>"
            f'<rect x="{_number(left)}" y="{_number(bar)}" width="{_number(size)}" height="{_BAR}" rx="2"/>'
            f'<text x="{_number(left)}" y="{_number(baseline)}">{escape(word.time.word, quote=False)}</text></g>'
        )

    def bands(self, outcome: Outcome, excerpt: Excerpt, y: float) -> Iterator[str]:
        """Draw a band from `y` downwards between each two words that are scored together."""
        joined = set()
        for pair in excerpt.pairs:
            indices = (pair.reference_index, pair.hypothesis_index)
            if pair.reference_index is None or pair.hypothesis_index is None or indices in joined:
                continue
            joined.add(indices)
            above, below = (
                outcome.reference_words[pair.reference_index],
                outcome.hypothesis_words[pair.hypothesis_index],
            )
            a, b, c, d = (_number(self.x(at)) for at in (above.start, above.end, below.end, below.start))
            path = f"M{a} {_number(y)}H{b}L{c} {_number(y + _BAND)}H{d}Z"
            yield f'<path class="band {_style(pair)}" data-p="{pair.number}" d="{path}"/>'

    def axis(self, seconds: float) -> str:
        """Draw a mark and the time at each whole second of the recording, for so many seconds."""
        whole = range(math.ceil(self._start), math.floor(self._start + seconds) + 1)
        marks = "".join(f"M{_number(self.x(second))} {_AXIS - 5}v5" for second in whole)
        labels = (
            f'<text class="time" x="{_number(self.x(second) + 4)}" y="{_AXIS - 6}">{clock(second)}</text>'
            for second in whole
        )
        return f'<path class="axis" d="{marks}"/>' + "".join(labels)


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours if there are any: 0:07, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _reference_lane(outcome: Outcome, excerpt: Excerpt) -> list[_Word]:
    """Return the words of the reference that are in the excerpt."""
    pairs = _by_index((pair.reference_index, pair) for pair in excerpt.pairs)
    return [
        _Word(word, pairs.get(index), 0, f"{_times(word)} in the reference")
        for index, word in enumerate(outcome.reference_words)
        if _is_in(word, excerpt)
    ]


def _hypothesis_lane(outcome: Outcome, excerpt: Excerpt) -> list[_Word]:
    """Return the words of the hypothesis that are in the excerpt, with how far their times are from the reference's."""
    pairs = _by_index((pair.hypothesis_index, pair) for pair in excerpt.pairs)
    lane = []
    for index, word in enumerate(outcome.hypothesis_words):
        if _is_in(word, excerpt):
            pair = pairs.get(index)
            note = f"{_times(word)} in the hypothesis"
            if pair and pair.reference_index is not None:
                said = outcome.reference_words[pair.reference_index]
                start, end = 1000 * (word.start - said.start), 1000 * (word.end - said.end)
                note += f": start {start:+.0f} ms, end {end:+.0f} ms from “{said.word}” in the reference"
            lane.append(_Word(word, pair, 0, note))
    return lane


def _by_index(pairs: Iterator[tuple[int | None, ScoredPair]]) -> dict[int, ScoredPair]:
    """Return the pair of each word. A word that normalisation divided is wrong if one of its parts is."""
    found: dict[int, ScoredPair] = {}
    for index, pair in pairs:
        if index is not None and (index not in found or pair.kind is not Kind.CORRECT):
            found[index] = pair
    return found


def _is_in(word: WordTime, excerpt: Excerpt) -> bool:
    return word.end > excerpt.start and word.start < excerpt.end


def _times(word: WordTime) -> str:
    return f"“{word.word}”, {word.start:.2f} to {word.end:.2f} s"


def _style(pair: ScoredPair | None) -> str:
    """Return the class of a pair's colour."""
    if pair is None:
        return "none"
    return f"k{pair.number % _COLORS}" if pair.kind is Kind.CORRECT else pair.kind


def _height(lane: Sequence[_Word]) -> int:
    """Return the height of a lane's labels."""
    return (max(word.row for word in lane) + 1) * _ROW


def _waveform(samples: NDArray[np.float32], width: int, top: float) -> str:
    """Return the path of the waveform: every few pixels a line from the lowest to the highest sample."""
    edges = np.linspace(0, len(samples), max(1, width // _STEP) + 1).astype(int).tolist()
    parts = [samples[start : max(end, start + 1)] for start, end in pairwise(edges)]
    peak = max(_LEAST_PEAK, float(np.abs(samples).max()))
    middle, unit = top + _WAVE / 2, (_WAVE / 2 - 1) / peak
    path = ""
    for index, part in enumerate(parts):
        high, low = middle - max(0.5, part.max() * unit), middle - min(-0.5, part.min() * unit)
        path += f"M{_number((index + 0.5) * _STEP)} {_number(high)}V{_number(low)}"
    return path


def _number(value: float) -> str:
    """Return a coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
