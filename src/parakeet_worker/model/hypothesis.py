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


class Recognizer(Protocol):
    """What the engine needs of a model. Implementations need not be thread-safe."""

    def transcribe(self, batch: Sequence[NDArray[np.float32]]) -> list[Hypothesis]:
        """Transcribe recordings together.

        Args:
            batch: 16 kHz mono float32 samples of each recording, shape (samples,), lengths as they are.

        Returns:
            One hypothesis for each recording, in order.
        """
        ...
