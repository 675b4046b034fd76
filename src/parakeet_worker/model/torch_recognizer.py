"""What the recognizers of both engines have in common: batches on torch's device."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from parakeet_worker.asr.types import (
    NO_OPTIONS,
    BatchTime,
    DecodingOptions,
    PaddedBatch,
    ReadHypothesis,
    Recognizer,
    Signal,
)
from parakeet_worker.model.device import Plan, on_device
from parakeet_worker.model.staging import Staging

Meanwhile = Callable[[], None]
"""What is called while the device works; see `PaddedBatch`."""


def _do_nothing() -> None:
    pass


class TorchRecognizer(Recognizer):
    """A model behind the scheduler's protocol; see `Recognizer`.

    Args:
        plan: How to run it.
        multiple: Batches are padded to a multiple of this number of samples.
    """

    def __init__(self, plan: Plan, multiple: int = 1) -> None:
        self.plan = plan
        self.batch_seconds = plan.batch_seconds
        self.device_name = plan.device_name
        self.precision_name = plan.precision_name
        self.warm_up_times: Sequence[BatchTime] = ()
        self._staging = Staging(plan.device, multiple)

    def stage(self, samples: NDArray[np.float32]) -> Signal:
        """Start to copy a recording to the device; see `Staging.stage`."""
        return self._staging.stage(samples)

    def pad(self, batch: Sequence[Signal], options: Sequence[DecodingOptions] = ()) -> PaddedBatch:
        """Bring recordings to the device; see `Recognizer`."""
        return on_device(
            self.plan.device,
            lambda: _PaddedTensors(self, *self._staging.pad(batch), options or [NO_OPTIONS] * len(batch)),
        )

    def run(
        self, samples: Tensor, lengths: Tensor, options: Sequence[DecodingOptions], meanwhile: Meanwhile
    ) -> list[ReadHypothesis]:
        """Transcribe a padded batch; see `PaddedBatch`.

        Args:
            samples: float32, shape (B, samples).
            lengths: Samples of each recording, shape (B,), int64.
            options: The options of each recording.
            meanwhile: Called while the GPU works.
        """
        if self.plan.device.type != "cuda":
            meanwhile = _do_nothing
        return on_device(self.plan.device, lambda: self._run(samples, lengths, options, meanwhile))

    @abstractmethod
    def _run(
        self, samples: Tensor, lengths: Tensor, options: Sequence[DecodingOptions], meanwhile: Meanwhile
    ) -> list[ReadHypothesis]:
        """Transcribe a padded batch, and call `meanwhile` between encoder and decoder, when a GPU has work queued."""


@dataclass(frozen=True)
class _PaddedTensors:
    """A padded batch on the device; see `PaddedBatch`."""

    recognizer: TorchRecognizer
    samples: Tensor
    lengths: Tensor
    options: Sequence[DecodingOptions]

    def transcribe(self, meanwhile: Meanwhile = _do_nothing) -> list[ReadHypothesis]:
        return self.recognizer.run(self.samples, self.lengths, self.options, meanwhile)
