"""Transcribing a batch with the plain model."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from parakeet_worker.asr.types import DecodingOptions, Hypothesis, ReadHypothesis, Token
from parakeet_worker.model.decoder import Emission
from parakeet_worker.model.device import Plan
from parakeet_worker.model.graphs import Graphs
from parakeet_worker.model.network import Parakeet
from parakeet_worker.model.tokenizer import Tokenizer
from parakeet_worker.model.torch_recognizer import Meanwhile, TorchRecognizer


class PlainRecognizer(TorchRecognizer):
    """A FastConformer-TDT model behind the scheduler's protocol; see `Recognizer`.

    Args:
        model: The model, on the plan's device.
        tokenizer: Its tokenizer.
        plan: How to run it.

    Attributes:
        graphs: CUDA graphs of the model, once they are captured.
    """

    def __init__(self, model: Parakeet, tokenizer: Tokenizer, plan: Plan) -> None:
        super().__init__(plan, model.config.aligned_samples if plan.device.type == "cuda" else 1)
        self.model = model
        self.graphs: Graphs | None = None
        self.tokenizer = tokenizer

    def _run(
        self, samples: Tensor, lengths: Tensor, options: Sequence[DecodingOptions], meanwhile: Meanwhile
    ) -> list[ReadHypothesis]:
        runner = self.graphs or self.model
        frames = runner.encode(samples, lengths)
        meanwhile()
        return [partial(self._hypothesis, emissions) for emissions in runner.decode(*frames, options)]

    def _hypothesis(self, emissions: Sequence[Emission]) -> Hypothesis:
        labels = [emission.label for emission in emissions]
        seconds = self.model.config.frame_seconds
        tokens = tuple(
            Token(piece, emission.frame * seconds, (emission.frame + emission.duration) * seconds, emission.confidence)
            for piece, emission in zip(self.tokenizer.pieces(labels), emissions, strict=True)
        )
        return Hypothesis(self.tokenizer.text(labels), tokens)
