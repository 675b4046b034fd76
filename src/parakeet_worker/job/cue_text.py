"""The text of cues: the words of a transcript, cut where one is longer than a line, and their layout in lines."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from parakeet_worker.asr.alignment import Span
from parakeet_worker.job.break_points import INSEPARABLE, break_costs

# Costs add to those of `break_points`.
_INSIDE_WORD = 150.0
# Times the squares of the lines' differences from even ones, as shares of the longest line.
_UNEVEN_LINES = 60.0
# Guidelines prefer the lower line to be the longer one: it hides less of the picture.
_LONG_UPPER_LINE = 4.0


class Pieces:
    """The words, cut where they are longer than a line.

    Attributes:
        texts: What is written.
        starts: When each begins, in milliseconds, ascending.
        ends: When each ends, in milliseconds, ascending.
        costs: What a break before each costs.
        offsets: How many characters there are before each and after the last, with a space after each.
    """

    def __init__(self, words: Sequence[Span], max_line: int) -> None:
        words = [part for word in words for part in _split_at_spaces(word)]
        self.texts: list[str] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.costs: list[float] = []
        self.offsets = [0]
        start = end = 0.0
        for word, cost in zip(words, break_costs([word.text for word in words]), strict=True):
            for text, share_start, share_end in _cut(word, max_line):
                start = max(start, share_start)
                end = max(start, end, share_end)
                self.texts.append(text)
                self.starts.append(round(start * 1000))
                self.ends.append(round(end * 1000))
                self.costs.append(cost)
                self.offsets.append(self.offsets[-1] + len(text) + 1)
                cost = _INSIDE_WORD

    def length(self, first: int, end: int) -> int:
        """Return how many characters the pieces from `first` to before `end` are, with the spaces between them."""
        return self.offsets[end] - self.offsets[first] - 1

    def text(self, first: int, end: int) -> str:
        """Return the pieces from `first` to before `end` as one line."""
        return " ".join(self.texts[first:end])


def _split_at_spaces(word: Span) -> list[Span]:
    """Return a word as it is, which is one word, or as many as a text from elsewhere turns out to be, or none."""
    parts = word.text.split()
    return [word] if parts == [word.text] else [replace(word, text=part) for part in parts]


def _cut(word: Span, max_line: int) -> Iterator[tuple[str, float, float]]:
    """Yield the parts of a word that fit a line, with their shares of its time."""
    size = len(word.text)
    if size <= max_line:
        yield word.text, word.start, word.end
        return
    step = (word.end - word.start) / size
    for at in range(0, size, max_line):
        text = word.text[at : at + max_line]
        yield text, word.start + at * step, word.start + (at + len(text)) * step


class Layout:
    """How pieces are laid out in lines.

    Attributes:
        farthest: For each piece, the farthest end of a cue that begins with it and fits the lines.
        farthest_unforced: The same, with lines that are broken only where the text is separable.
    """

    def __init__(self, pieces: Pieces, max_line: int, max_lines: int) -> None:
        self._pieces = pieces
        self._max_line = max_line
        self._max_lines = max_lines
        offsets, count = pieces.offsets, len(pieces.texts)
        line = [bisect_right(offsets, offset + max_line + 1) - 1 for offset in offsets]
        separable = list(accumulate((k if cost < INSEPARABLE else 0 for k, cost in enumerate(pieces.costs)), max))
        separable.append(count)
        farthest = list(range(count + 1))
        unforced = list(range(count + 1))
        for remaining in range(max_lines - 1, -1, -1):
            farthest = [line[end] for end in farthest]
            unforced = [line[end] for end in unforced]
            if remaining:
                unforced = [max(first, separable[end]) for first, end in enumerate(unforced)]
        self._line = line
        self.farthest = farthest
        self.farthest_unforced = unforced

    def lines(self, first: int, end: int) -> tuple[str, ...]:
        """Break a cue into lines: no more than are needed, unless that breaks it where the text is inseparable."""
        needed, reached = 1, self._line[first]
        while reached < end:
            needed, reached = needed + 1, self._line[reached]
        if needed == 1:
            return (self._pieces.text(first, end),)
        best_cost = math.inf
        best_breaks: tuple[int, ...] = ()
        for count in range(needed, self._max_lines + 1):
            cost, breaks = self._break(first, end, count)
            if cost < best_cost:
                best_cost, best_breaks = cost, breaks
            if cost < INSEPARABLE:
                break
        edges = (first, *best_breaks, end)
        return tuple(self._pieces.text(*edge) for edge in pairwise(edges))

    def _break(self, first: int, end: int, count: int) -> tuple[float, tuple[int, ...]]:
        """Return the cost of the best way to break a cue into a number of lines, and before which pieces it breaks."""
        offsets, costs, max_line = self._pieces.offsets, self._pieces.costs, self._max_line
        even = (offsets[end] - offsets[first]) / count - 1
        ways: dict[int, tuple[float, tuple[int, ...]]] = {first: (0.0, ())}
        for below in range(count - 1, -1, -1):
            longer: dict[int, tuple[float, tuple[int, ...]]] = {}
            # What is left must fit the lines below.
            earliest = bisect_left(offsets, offsets[end] - below * (max_line + 1)) if below else end
            for begin, (cost, breaks) in ways.items():
                for at in range(max(begin + 1, earliest), min(self._line[begin], end - below) + 1):
                    size = offsets[at] - offsets[begin] - 1
                    total = cost + _UNEVEN_LINES * ((size - even) / max_line) ** 2
                    if below:
                        total += costs[at] + _LONG_UPPER_LINE * size / max_line
                    if at not in longer or total < longer[at][0]:
                        longer[at] = total, (*breaks, at)
            ways = longer
        cost, breaks = ways.get(end, (math.inf, ()))
        return cost, breaks[:-1]
