"""Which windows of audio are decoded in one batch."""

from collections.abc import Sequence

MAX_PADDING = 0.1
"""Most seconds of padding in a batch for each second of audio."""

LINEAR_S = 300.0
"""Longest window, in seconds, whose memory grows with its length. That of a longer one grows with the square of it: the
scores of attention then take more than the subsampling does."""


def cost(seconds: float) -> float:
    """Return what a window of a batch takes of the budget: its length, or more where it is longer than `LINEAR_S`."""
    return seconds * max(1.0, seconds / LINEAR_S)


def choose_batch(lengths: Sequence[float], first: int, budget: float, max_padding: float = MAX_PADDING) -> list[int]:
    """Choose a batch: the window that is due first, and those nearest to it in length.

    Every window of a batch is padded to the longest one, so windows of similar lengths share a batch. The batch grows
    from the window that is due first, so that no window waits until others of its length arrive.

    Args:
        lengths: Length of each waiting window, in seconds.
        first: Index of the window that is due first. It is taken even if it alone is over the budget.
        budget: Longest batch, in padded seconds: the number of windows times the `cost` of the longest.
        max_padding: Most seconds of padding for each second of audio.

    Returns:
        The indices of the batch, `first` among them, shortest window first.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    low = high = order.index(first)  # the batch is order[low:high + 1]
    total = lengths[first]
    while True:
        below = lengths[order[low - 1]] if low > 0 else None
        above = lengths[order[high + 1]] if high + 1 < len(order) else None
        longest = lengths[order[high]]
        # The nearer neighbour first; the other one if that does not fit.
        candidates = [
            (abs(length - lengths[first]), length, is_above)
            for length, is_above in ((below, False), (above, True))
            if length is not None
        ]
        for _, length, is_above in sorted(candidates):
            count, padded_to = high - low + 2, max(longest, length)
            if count * cost(padded_to) <= budget and count * padded_to <= (total + length) * (1 + max_padding):
                total += length
                low, high = (low, high + 1) if is_above else (low - 1, high)
                break
        else:
            return order[low : high + 1]
