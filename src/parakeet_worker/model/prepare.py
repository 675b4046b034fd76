"""Making a recognizer of the plain model that is ready for the first job. Importing this module imports torch."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from parakeet_worker.model.card import Card
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.device import Plan, use_plan
from parakeet_worker.model.files import ModelSource
from parakeet_worker.model.graphs import CudaCapturer, capture_graphs, cuda_clock
from parakeet_worker.model.network import Parakeet
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.model.self_check import check_transcript, clip, warm_up
from parakeet_worker.model.tokenizer import Tokenizer

TimeStage = Callable[[str], AbstractContextManager[None]]
"""Returns a context whose duration is added to the stage of that name; see `StageTimer.stage`."""


def prepare(source: ModelSource, card: Card, plan: Plan, *, cpu_threads: int, stage: TimeStage) -> PlainRecognizer:
    """Load a model onto the device, check it, and warm it up.

    Args:
        source: The model's files.
        card: Its card.
        plan: How to run it.
        cpu_threads: Threads of one forward pass on a CPU.
        stage: Times the stages `device`, `read`, `build`, `copy`, `warm-up` and, on a GPU, `graphs`.

    Raises:
        DamagedModelError: A file of the model is missing or damaged.
        UnsupportedModelError: The plain engine cannot run the model.
        RuntimeError: The device cannot be used, or the weights do not fit the configuration.
        SelfCheckError: The model does not transcribe as it should.
        GraphCaptureError: CUDA graphs could not be captured.
    """
    with stage("device"):
        use_plan(plan, cpu_threads)
    recognizer = load(source, plan, stage)
    with stage("warm-up"):
        check_transcript(recognizer, card.check)
    if plan.uses_graphs:
        with stage("graphs"):
            speech = torch.from_numpy(clip()).to(plan.device)
            recognizer.graphs = capture_graphs(recognizer.model, speech, CudaCapturer(plan.device), cuda_clock)
    with stage("warm-up"):
        recognizer.warm_up_times = warm_up(recognizer)
    return recognizer


def load(source: ModelSource, plan: Plan, stage: TimeStage) -> PlainRecognizer:
    """Load a model onto the device; see `prepare`."""
    with stage("read"):
        # First, since it checks all files.
        weights = source.weights()
    with stage("build"):
        model = Parakeet(ModelConfig.from_nemo(source.config()))
        tokenizer = Tokenizer(source.tokenizer())
    with stage("copy"):
        model.load(weights, plan.device, plan.weights_precision)
    return PlainRecognizer(model, tokenizer, plan)
