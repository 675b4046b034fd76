"""Which windows of audio are decoded in one batch."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.batch_cost import BatchCost

LINEAR_S = 300.0
"""Longest window, in seconds, whose memory grows with its length. That of a longer one grows with the square of it: the
scores of attention then take more than the subsampling does."""

LONGEST_BATCH_S = 0.2
"""Longest time that a batch of several windows may take, in seconds, or twice what its longest window takes alone if
that is more. A longer one would hardly be more efficient, and a clip that arrives meanwhile has to wait for it."""

ChooseBatch = Callable[[Sequence[float], Sequence[float], float, float, BatchCost], list[int]]
"""Chooses a batch; see `choose_batch` for the arguments and the result."""

_F = TypeVar("_F", float, NDArray[np.float64])


def memory_seconds(seconds: _F) -> _F:
    """Return what a window of a batch takes of the budget: its length, or more where it is longer than `LINEAR_S`."""
    return cast(_F, seconds * np.maximum(1.0, seconds / LINEAR_S))  # type: ignore[redundant-cast]


def choose_batch(
    lengths: Sequence[float], due: Sequence[float], now: float, budget: float, cost: BatchCost
) -> list[int]:
    """Choose the batch that decodes the most seconds of audio per second, of those with the window that is due first.

    Every window of a batch is padded to the longest one, so only windows that are neighbours in length come together.
    More of them pay as long as they cost less than their share: until the device is saturated they cost nothing, from
    there on only windows of similar length pay. A window that is not due yet joins only where it costs nothing, so the
    rest of a long recording holds up no clip.

    Args:
        lengths: Length of each waiting window, in seconds. At least one.
        due: When each window is due, in seconds of any clock. Of equal ones the first window comes first.
        now: The time by that clock.
        budget: Longest batch, in padded seconds: the number of windows times the `memory_seconds` of the longest. The
            window that is due first is taken even if it alone is over the budget.
        cost: What batches cost on this device.

    Returns:
        The indices of the batch, in no particular order.
    """
    length, due_at = np.asarray(lengths, np.float64), np.asarray(due, np.float64)
    first = int(due_at.argmin())
    is_due = due_at <= max(now, due_at[first])
    order = np.lexsort((np.arange(len(length)) == first, length))  # behind its equals, so that they may stay out
    order = order[is_due[order]]
    low, high = _best_run(length[order], int(np.flatnonzero(order == first)[0]), budget, cost)
    batch: list[int] = order[low:high].tolist()
    longest = float(length[batch[-1]])
    room = min(cost.free_windows(longest), int(budget // memory_seconds(longest))) - len(batch)
    if room > 0:
        riders = np.flatnonzero(~is_due & (length <= longest))
        batch += riders[np.argsort(due_at[riders], kind="stable")[:room]].tolist()
    return batch


def audio_rate(lengths: Sequence[float], cost: BatchCost) -> float:
    """Return the seconds of audio per second that a batch of windows of these lengths, in seconds, decodes."""
    return sum(lengths) / float(cost.seconds(len(lengths), max(lengths)))


def _best_run(lengths: NDArray[np.float64], first: int, budget: float, cost: BatchCost) -> tuple[int, int]:
    """Return the bounds, as of a slice, of the run of windows around `first` with the most audio per second.

    For each longest window, the shorter ones join one by one, the longest of them first. Each brings less audio than
    the one before it and costs as much or more, so the rate rises up to some number of windows and falls from there:
    bisection finds it.

    Args:
        lengths: Lengths of the windows in seconds, in ascending order.
        first: Index of a window that is in each run.
        budget: See `choose_batch`.
        cost: See `choose_batch`.
    """
    before = np.concatenate([[0.0], lengths.cumsum()])
    ends = np.arange(first + 1, len(lengths) + 1)  # of the runs, by longest window
    longest = lengths[first:]

    def rates(windows: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (before[ends] - before[ends - windows]) / cost.seconds(windows, longest)
        return found

    least = ends - first
    limit = np.maximum(LONGEST_BATCH_S, 2 * (cost.launch + cost.longest * longest))
    most = np.minimum(budget // memory_seconds(longest), cost.windows_within(limit, longest))
    most = np.minimum(ends, most).astype(np.int64)
    most[0] = max(most[0], 1)  # alone it is always allowed
    fitting = np.count_nonzero(most >= least)  # the first ones: with a longer window fewer are allowed
    ends, longest, least, most = ends[:fitting], longest[:fitting], least[:fitting], most[:fitting]
    while (least < most).any():
        middle = (least + most) // 2
        has_risen = (middle < most) & (rates(np.minimum(middle + 1, most)) >= rates(middle) * (1 - 1e-9))
        least, most = np.where(has_risen, middle + 1, least), np.where(has_risen, most, middle)
    best = int(rates(least).argmax())
    return int(ends[best] - least[best]), int(ends[best])
