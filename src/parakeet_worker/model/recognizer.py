"""Transcribing a batch with the plain model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.types import Hypothesis, Signal, Token
from parakeet_worker.model.decoder import Emission
from parakeet_worker.model.device import Plan, on_device
from parakeet_worker.model.graphs import Graphs
from parakeet_worker.model.network import Parakeet
from parakeet_worker.model.staging import Staging
from parakeet_worker.model.tokenizer import Tokenizer


class PlainRecognizer:
    """A FastConformer-TDT model behind the scheduler's protocol; see `Recognizer`.

    Args:
        model: The model, on the plan's device.
        tokenizer: Its tokenizer.
        plan: How to run it.

    Attributes:
        graphs: CUDA graphs of the model, once they are captured.
    """

    def __init__(self, model: Parakeet, tokenizer: Tokenizer, plan: Plan) -> None:
        self.model = model
        self.plan = plan
        self.batch_seconds = plan.batch_seconds
        self._tokenizer = tokenizer
        self.graphs: Graphs | None = None
        self._staging = Staging(plan.device, model.config.aligned_samples if plan.device.type == "cuda" else 1)

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to copy a recording to the device; see `Staging.stage`."""
        return self._staging.stage(samples)

    def transcribe(self, batch: Sequence[Signal]) -> list[Hypothesis]:
        """Transcribe recordings together; see `Recognizer`."""
        return on_device(self.plan.device, lambda: self._transcribe(batch))

    def _transcribe(self, batch: Sequence[Signal]) -> list[Hypothesis]:
        streams = (self.graphs or self.model).transcribe(*self._staging.pad(batch))
        return [self._hypothesis(emissions) for emissions in streams]

    def _hypothesis(self, emissions: Sequence[Emission]) -> Hypothesis:
        labels = [emission.label for emission in emissions]
        seconds = self.model.config.frame_seconds
        tokens = tuple(
            Token(piece, emission.frame * seconds, (emission.frame + emission.duration) * seconds)
            for piece, emission in zip(self._tokenizer.pieces(labels), emissions, strict=True)
        )
        return Hypothesis(self._tokenizer.text(labels), tokens)
