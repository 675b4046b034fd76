"""What a batch costs on this device, learnt from the batches that were decoded."""

import math
from collections import defaultdict, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.types import BatchTime

# Batches that a class of similar sizes remembers. Classes are powers of two of the padded seconds and of the longest
# window, so an hour of small batches does not make the model forget what a large one costs.
_REMEMBERED = 8

# Saturations that are tried first, in padded seconds, and those that are tried about the best of them, as parts of it.
_SATURATIONS, _CLOSER = 2.0 ** np.arange(0, 13.1, 0.5), 2.0 ** np.arange(-0.5, 0.51, 0.0625)

# A device is believed to saturate at so many times the largest batch that was seen, at most: the next one may be that
# much larger at no cost, and shows whether it was.
_TRUSTED = 4.0

# A relative error that is larger than this counts in proportion, not by its square.
_OUTLIER = 0.3

# Rounds of reweighting.
_ROUNDS = 4

# A fit follows when the batches since the last one are this part of those that are remembered, but at most 16.
_NEW_PART, _MOST_NEW = 0.1, 16


@dataclass(frozen=True)
class BatchCost:
    """The cost of a batch of n windows, the longest of L seconds: `max(launch, padded * n * L) + longest * L`.

    Up to some padded seconds a GPU waits for the launches of a batch's kernels, however little is in it. From there on
    the time grows with the padded audio. The decoder takes its steps one after the other, for all windows at once.

    Attributes:
        launch: Least time of a batch, in seconds.
        padded: Time for each padded second of a saturated device, in seconds.
        longest: Time for each second of the longest window, in seconds.
    """

    launch: float
    padded: float
    longest: float

    def seconds(self, windows: NDArray[np.int64] | int, longest: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the cost of batches, in seconds.

        Args:
            windows: Their numbers of windows.
            longest: The lengths of their longest windows, in seconds. The two are broadcast.
        """
        return np.maximum(self.launch, windows * (self.padded * longest)) + self.longest * longest

    def free_windows(self, longest: float) -> int:
        """Return how many windows a batch has, at most, while each further one costs nothing.

        Args:
            longest: The length of the longest one, in seconds.
        """
        return int(min(self.launch / max(self.padded * longest, 1e-12), 1e9))

    def windows_within(self, seconds: NDArray[np.float64] | float, longest: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how many windows a batch has, at most, that takes no longer than some seconds: 0 if none fits.

        Args:
            seconds: Those seconds, one for all batches or one for each.
            longest: The lengths of the longest windows of batches, in seconds.
        """
        left = seconds - self.longest * longest
        return np.where(left >= self.launch, left / np.maximum(self.padded * longest, 1e-12), 0.0)


UNKNOWN = BatchCost(0.0, 0.001, 0.0001)
"""The cost before anything was measured: about in proportion to the padded audio, so like lengths share a batch."""


class CostModel:
    """Learns the cost of batches.

    It keeps the last times of batches of each size, and fits `BatchCost` to them by their relative errors, so
    that a batch that was slow because of a neighbour, or because its shape was new, hardly counts.

    Attributes:
        cost: The cost by all that was remembered at the last fit.
    """

    def __init__(self) -> None:
        self._times: defaultdict[tuple[int, int], deque[BatchTime]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._new = 0
        self.cost = UNKNOWN

    def observe(self, time: BatchTime) -> None:
        """Take the time of a batch that was decoded."""
        if time.seconds > 0 and time.longest > 0:
            size = round(math.log2(time.windows * time.longest)), round(math.log2(time.longest))
            self._times[size].append(time)
            self._new += 1

    def fit(self) -> None:
        """Fit the cost anew if there are enough new times. That takes about a millisecond."""
        remembered = sum(map(len, self._times.values()))
        if self._new > min(_NEW_PART * remembered, _MOST_NEW):
            self._new = 0
            self.cost = fit([time for times in self._times.values() for time in times])


def fit(times: list[BatchTime]) -> BatchCost:
    """Fit the cost to the times of batches, so that slow outliers hardly count.

    For a given saturation, which is `launch / padded`, the cost is linear in the two other parameters. So saturations
    are tried, first far apart and then about the best, each by iteratively reweighted least squares of the relative
    errors, with Huber's weights. Of those that fit as well as the best one, by one standard error, the latest is taken:
    if that is too late, the next large batch shows it, while nothing would show that it is too early.

    Args:
        times: At least one.
    """
    windows, longest, seconds = np.array([(time.windows, time.longest, time.seconds) for time in times]).T
    padded = windows * longest
    latest = max(_TRUSTED * float(padded.max()), 1.0)
    saturations = _SATURATIONS[: np.searchsorted(_SATURATIONS, latest, side="right")]
    saturation, _, _ = _fit_best(saturations, padded, longest, seconds)
    saturation, launch, step = _fit_best(saturation * _CLOSER, padded, longest, seconds)
    return BatchCost(launch, launch / saturation, step)


def _fit_best(
    saturations: NDArray[np.float64],
    padded: NDArray[np.float64],
    longest: NDArray[np.float64],
    seconds: NDArray[np.float64],
) -> tuple[float, float, float]:
    """Return the saturation that is taken, and the launch and the time per second of the longest window, in seconds.

    Args:
        saturations: Those that are tried, in padded seconds, in ascending order, shape (saturations,).
        padded: Padded seconds of each batch, shape (times,).
        longest: Its longest window in seconds, the same shape.
        seconds: What it took, the same shape.
    """
    x = np.maximum(1.0, padded / saturations[:, None])  # (saturations, times)
    predicted = np.broadcast_to(seconds, x.shape)
    errors = np.zeros_like(x)
    for _ in range(_ROUNDS):
        weights = np.minimum(1.0, _OUTLIER / np.maximum(np.abs(errors), 1e-9)) / predicted**2
        launch, step = _least_squares(x, longest, seconds, weights)
        predicted = launch[:, None] * x + step[:, None] * longest
        errors = seconds / predicted - 1
    sizes = np.abs(errors)
    loss = np.where(sizes <= _OUTLIER, sizes**2, _OUTLIER * (2 * sizes - _OUTLIER)).sum(axis=1)
    best = np.flatnonzero(loss <= loss.min() * (1 + 1 / len(seconds)) + 1e-9)[-1]
    return float(saturations[best]), float(launch[best]), float(step[best])


def _least_squares(
    x: NDArray[np.float64], y: NDArray[np.float64], target: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each row of `x` and `weights`, a > 0 and b >= 0 that make `a * x + b * y` nearest to the target."""
    weighted = weights * x
    xx, xy, xt = (weighted * x).sum(1), weighted @ y, weighted @ target
    yy, yt = weights @ (y * y), weights @ (y * target)
    determinant = xx * yy - xy * xy
    b = np.maximum((xx * yt - xy * xt) / np.maximum(determinant, 1e-9 * xx * yy), 0.0)
    # Not all of it is the longest window's, or nothing could be free.
    b = np.minimum(b, 0.9 * xt / xy)
    return (xt - b * xy) / xx, b
