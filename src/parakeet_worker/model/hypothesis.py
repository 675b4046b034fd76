"""What a model gives back for a recording, and what the engine needs of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.model.timestamps import Token


@dataclass(frozen=True)
class Hypothesis:
    """What the model heard in one recording.

    Attributes:
        text: The transcript, character for character NeMo's.
        tokens: Its tokens, in order, with their times.
    """

    text: str
    tokens: tuple[Token, ...]


class DeviceFailure(Exception):  # noqa: N818 - what happened, not a mistake
    """The device that the model runs on has failed, and only a new process can use it again."""


class Staged(Protocol):
    """Samples that are on their way to the device, in whatever form the recognizer keeps them."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...


Signal = NDArray[np.float32] | Staged
"""One recording: 16 kHz mono float32 samples, shape (samples,), or the same staged."""


class Recognizer(Protocol):
    """What the engine needs of a model. Implementations need not be thread-safe.

    Attributes:
        batch_seconds: The longest batch that pays, in padded seconds.
    """

    batch_seconds: float

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to bring a recording to the device. Safe on any thread, while a batch is decoded.

        Args:
            samples: 16 kHz mono float32, shape (samples,).
        """
        ...

    def transcribe(self, batch: Sequence[Signal]) -> list[Hypothesis]:
        """Transcribe recordings together.

        Args:
            batch: The recordings, staged or not, lengths as they are.

        Returns:
            One hypothesis for each recording, in order.

        Raises:
            DeviceFailure: Nothing can be decoded any more.
        """
        ...
