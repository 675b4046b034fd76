"""From words with times to the cues of captions.

A cue is a text of one or more lines that is shown for a time. Where to end each cue is decided for all words at once:
each possible cue has a cost, and dynamic programming finds the cues of the least sum. Its cost grows with the number of
words times the words that a cue can hold.

Two things always hold, whatever the words' times are: each word is in exactly one cue, in order; and cues keep to
their limits, but for the reading speed. Where people speak so fast that a cue of the shortest duration would run into
the next, and no other cues avoid that, the next begins late.

The limits and rules are those of broadcasters: the
[BBC's guidelines](https://www.bbc.co.uk/accessibility/forproducts/guides/subtitles/) and Netflix's Timed Text Style
Guide with its guidelines of subtitle timing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parakeet_worker.asr.alignment import Span
from parakeet_worker.job.break_points import CLAUSE_END, SENTENCE_END
from parakeet_worker.job.cue_text import Layout, Pieces

# Costs add to those of `break_points`, where a break inside a clause costs about 20.
_EMPTY_CUE = 7.0  # times the square of the share of its characters that a cue leaves free
_ONE_WORD_CUE = 14.0
_SENTENCE_END_INSIDE = 6.0
_INSEPARABLE_LINES = 50.0  # lines that can only be broken where the text is inseparable
_MISSING_SECOND_TO_READ = 60.0
_TOO_FAST_WITH_GAP = 30.0  # the words are said slowly enough to be read, but there is no time for the gap as well
# Above everything else: a cue that the next cue leaves no time for its shortest duration.
_TOO_SHORT = 10_000.0
_MISSING_SECOND = 10_000.0

# A pause makes a break cheaper, up to this much after as many seconds, and less so where a clause ends anyway.
_PAUSE_GAIN = 14.0
_PAUSE_GAIN_OF_CLAUSE = 2.0
_LONG_ENOUGH_PAUSE_S = 0.4
# A pause inside a cue costs this much for each second beyond what a speaker pauses anyway, and more where speech stops.
_PAUSE_INSIDE = 10.0
_USUAL_PAUSE_S = 0.25
_SILENCE_INSIDE = 60.0
_SILENCE_S = 1.5

# A shorter gap between cues flickers: the first cue stays until the next. Netflix's guidelines of subtitle timing.
_FLICKER_MS = 500


@dataclass(frozen=True)
class CueLimits:
    """The limits of cues.

    Attributes:
        max_line: Most characters of a line.
        max_lines: Most lines of a cue.
        min_duration: Shortest time that a cue is shown, in seconds.
        max_duration: Longest time that a cue is shown, in seconds.
        max_speed: Most characters per second, spaces counted, that a reader is given. Exceeded only where the speech
            leaves no more time before the next cue, or `max_duration` does.
        min_gap: Shortest time between two cues, in seconds. The default is two frames of 25 per second.
    """

    max_line: int = 42
    max_lines: int = 2
    min_duration: float = 1.0
    max_duration: float = 7.0
    max_speed: float = 20.0
    min_gap: float = 0.08


@dataclass(frozen=True)
class Cue:
    """A text and when it is shown, in seconds from the start of the audio, rounded to milliseconds."""

    start: float
    end: float
    lines: tuple[str, ...]


def make_cues(words: Sequence[Span], duration: float, limits: CueLimits) -> list[Cue]:
    """Make cues of the words of a transcript.

    A cue begins with its first word, and ends with its last word or later: as late as its reader needs, but no later
    than `min_gap` before the next word. Where the next word follows at once, it ends that much early.

    A word that is longer than a line is cut at the limit, and goes on in the next line.

    Args:
        words: The transcript, split at spaces, in order.
        duration: Length of the audio in seconds. A cue ends later only for its shortest duration.
        limits: The limits of the cues.

    Returns:
        The cues, in order.
    """
    pieces = Pieces(words, limits.max_line)
    if not pieces.texts:
        return []
    layout = Layout(pieces, limits.max_line, limits.max_lines)
    clock = _Clock(pieces, duration, limits)
    cues = []
    shown_until = -clock.gap
    for first, end in _choose(pieces, layout, clock, limits):
        shown_from, shown_until = clock.times(first, end, shown_until)
        cues.append(Cue(shown_from / 1000, shown_until / 1000, layout.lines(first, end)))
    return cues


class _Clock:
    """When cues are shown. All times are whole milliseconds, so that writing them cannot round two into each other.

    Attributes:
        gap: Shortest time between two cues.
        shortest: Shortest time that a cue is shown.
        longest: Longest time that a cue is shown.
        wanted: For each number of characters, how long a cue is shown if there is time.
        latest: For each piece, when a cue before it must have ended, and for the last cue.
    """

    def __init__(self, pieces: Pieces, duration: float, limits: CueLimits) -> None:
        # A limit of a fraction of a millisecond is kept by the next whole one; 1.1 * 1000 is no such fraction.
        self.gap = math.ceil(limits.min_gap * 1000 - 1e-6)
        self.shortest = math.ceil(limits.min_duration * 1000 - 1e-6)
        self.longest = max(self.shortest, math.floor(limits.max_duration * 1000 + 1e-6))
        self.wanted = [
            min(max(self.shortest, math.ceil(1000 * size / limits.max_speed)), self.longest)
            for size in range(limits.max_lines * (limits.max_line + 1))
        ]
        self.latest = [start - self.gap for start in pieces.starts]
        self.latest.append(max(math.floor(duration * 1000), pieces.ends[-1]))
        self._pieces = pieces

    def times(self, first: int, end: int, previous: int) -> tuple[int, int]:
        """Return when a cue is shown, and when no longer.

        Args:
            first: Its first piece.
            end: The piece after its last.
            previous: When the cue before it ends.
        """
        start = max(self._pieces.starts[first], previous + self.gap)
        until = max(self._pieces.ends[end - 1], start + self.wanted[self._pieces.length(first, end)])
        latest = self.latest[end]
        if until > latest or (end < len(self._pieces.texts) and latest - until < _FLICKER_MS):
            until = latest
        return start, max(start + self.shortest, min(until, start + self.longest))


def _choose(pieces: Pieces, layout: Layout, clock: _Clock, limits: CueLimits) -> Iterator[tuple[int, int]]:
    """Yield the cues of the least cost: the first piece of each, and the piece after its last."""
    count = len(pieces.texts)
    offsets, starts, ends = pieces.offsets, pieces.starts, pieces.ends
    shortest, longest, wanted, latest = clock.shortest, clock.longest, clock.wanted, clock.latest
    farthest, farthest_unforced = layout.farthest, layout.farthest_unforced
    size_costs = _size_costs(limits, len(wanted))
    end_costs = _cue_break_costs(pieces)

    # The least cost from each piece on, if a cue begins there, and the end of that cue.
    onward = [0.0] * (count + 1)
    choice = [0] * count
    last = count
    for first in range(count - 1, -1, -1):
        start = starts[first]
        while last > first + 1 and ends[last - 1] - start > longest:
            last -= 1
        end = min(last, farthest[first])
        costs = onward[first + 1 : end + 1]
        costs[0] += _ONE_WORD_CUE
        for index in range(farthest_unforced[first] - first, len(costs)):
            costs[index] += _INSEPARABLE_LINES
        least = math.inf
        before = offsets[first] + 1
        # This loop is all of the time that captions take: it has no calls and no further conditions.
        for index, (cost, offset, until) in enumerate(
            zip(costs, offsets[first + 1 : end + 1], latest[first + 1 : end + 1], strict=True)
        ):
            size = offset - before
            cost += size_costs[size]
            if until - start < wanted[size]:
                cost += (wanted[size] - until + start) * _MISSING_SECOND_TO_READ / 1000
                if ends[first + index] - start >= wanted[size]:
                    cost += _TOO_FAST_WITH_GAP
                if until - start < shortest:
                    cost += _TOO_SHORT + (shortest - until + start) * _MISSING_SECOND / 1000
            if cost < least:
                least, choice[first] = cost, first + 1 + index
        onward[first] = least + end_costs[first]

    first = 0
    while first < count:
        yield first, choice[first]
        first = choice[first]


def _size_costs(limits: CueLimits, count: int) -> list[float]:
    """Return what a cue costs by its number of characters, up to a count."""
    full = limits.max_lines * limits.max_line
    costs = []
    for size in range(count):
        unread = max(0.0, size / limits.max_speed - limits.max_duration)
        costs.append(_EMPTY_CUE * max(0.0, 1 - size / full) ** 2 + _MISSING_SECOND_TO_READ * unread)
    return costs


def _cue_break_costs(pieces: Pieces) -> list[float]:
    """Return what ending a cue before each piece costs, less what it costs not to."""
    costs = []
    ended = 0
    for cost, start, end in zip(pieces.costs, pieces.starts, pieces.ends, strict=True):
        pause = (start - ended) / 1000
        ended = end
        inside = _SENTENCE_END_INSIDE if cost == SENTENCE_END else 0.0
        if pause > 0:
            gain = _PAUSE_GAIN if cost > CLAUSE_END else _PAUSE_GAIN_OF_CLAUSE
            cost = max(SENTENCE_END, cost - gain * min(1.0, pause / _LONG_ENOUGH_PAUSE_S))
            if pause > _USUAL_PAUSE_S:
                inside += _PAUSE_INSIDE * (pause - _USUAL_PAUSE_S) + (_SILENCE_INSIDE if pause > _SILENCE_S else 0.0)
        costs.append(cost - inside)
    return costs
