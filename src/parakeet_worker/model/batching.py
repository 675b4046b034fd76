"""Which windows of audio go through the model together."""

from collections.abc import Sequence

MAX_PADDING = 0.1
"""Seconds of padding that a batch may hold for each second of audio, where windows to choose from are many."""


def choose(lengths: Sequence[float], first: int, budget: float, max_padding: float = MAX_PADDING) -> list[int]:
    """Choose a batch: the window that is due first, and those nearest to it in length.

    Every window of a batch is padded to its longest, so windows of like lengths share one. Growing from the window
    that must go, rather than filling from one end of the sorted lengths, lets none wait for others of its kind.

    Args:
        lengths: Length of each waiting window, in seconds.
        first: Index of the window that is due first; it is taken even where it alone passes the budget.
        budget: Longest batch, in padded seconds: the number of windows times the length of the longest.
        max_padding: Most padding, as a part of the audio.

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
            padded = (high - low + 2) * max(longest, length)
            if padded <= budget and padded <= (total + length) * (1 + max_padding):
                total += length
                low, high = (low, high + 1) if is_above else (low - 1, high)
                break
        else:
            return order[low : high + 1]
