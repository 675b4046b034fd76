"""Checking during the bake what the worker will run: NeMo's weights, and NeMo's results by the plain engine."""

import gc
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from parakeet_worker.asr.types import SAMPLE_RATE, Hypothesis, Recognizer
from parakeet_worker.model.config import UnsupportedModelError
from parakeet_worker.model.device import Plan
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.prepare import load as load_plain
from parakeet_worker.model.self_check import CLIP
from parakeet_worker.nemo.loading import load_model
from parakeet_worker.nemo.recognizer import NemoRecognizer

_EXACT = Plan(torch.device("cpu"), torch.float32, batch_seconds=math.inf)


class DifferentModelError(Exception):
    """The worker would load other weights than NeMo."""


@dataclass(frozen=True)
class Proof:
    """Facts about a model that NeMo has restored.

    Attributes:
        parameters: Number of trainable parameters.
        text: Transcript of the bundled clip by NeMo's `transcribe()`.
        engine: `plain` if that engine gives NeMo's results, else `nemo`.
        engine_reason: A sentence on why.
    """

    parameters: int
    text: str
    engine: str
    engine_reason: str


def prove(nemo_file: Path, directory: Path, checksums: Mapping[str, str], precision: torch.dtype) -> Proof:
    """Restore an archive with NeMo, and compare it with what the worker runs from the directory baked from it.

    Every tensor is compared. Then the plain engine's hypotheses are compared with NeMo's, both in float32.

    Args:
        nemo_file: The archive.
        directory: The model directory that was baked from it.
        checksums: SHA-256 of the directory's files.
        precision: Precision of the baked weights.

    Raises:
        DifferentModelError: A tensor is different.
        RuntimeError: The weights do not fit the configuration.
    """
    with _quiet():
        from nemo.collections.asr.models import ASRModel
        from omegaconf import open_dict

        files = ModelFiles(directory, checksums)
        loaded = load_model(directory, _EXACT.device, files=files)
        restored = ASRModel.restore_from(str(nemo_file), map_location="cpu").eval()
        ours = loaded.state_dict()
        for name, tensor in restored.state_dict().items():
            stored = tensor.to(stored_precision(name, tensor, precision))
            if not torch.equal(stored.to(ours[name].dtype), ours[name]):
                raise DifferentModelError(f"{name} is not as NeMo restores it")
        with open_dict(restored.cfg):
            restored.cfg.validation_ds = {"use_start_end_token": False}  # transcribe() reads it
        (hypothesis,) = restored.transcribe([str(CLIP)], verbose=False)
        parameters = sum(parameter.numel() for parameter in restored.parameters())
        del restored, ours
        gc.collect()  # a large model is not held three times
        engine, reason = _choose_engine(NemoRecognizer(loaded, _EXACT), files)
    return Proof(parameters, hypothesis.text, engine, reason)


def stored_precision(name: str, tensor: torch.Tensor, precision: torch.dtype) -> torch.dtype:
    """Return the precision that a tensor of a model is baked in. What is not of the network keeps its own."""
    is_fixed = name.startswith("preprocessor.") or not tensor.is_floating_point()
    return tensor.dtype if is_fixed else precision


def _choose_engine(reference: Recognizer, files: ModelFiles) -> tuple[str, str]:
    """Return `plain` if the plain engine gives the results of the reference, else `nemo`, and the card's reason."""
    recordings = _recordings()
    try:
        plain = load_plain(files, _EXACT, stage=lambda _: nullcontext())
        difference = compare(reference, plain, recordings)
    except (UnsupportedModelError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        return "nemo", f"The plain engine cannot run it: {reason}."
    if difference:
        return "nemo", f"The plain engine differs from NeMo in {difference}."
    return "plain", (
        f"The text, tokens, starts and durations of {len(recordings)} recordings, each alone and all in one batch, are "
        "those of NeMo for each alone, in float32."
    )


def compare(reference: Recognizer, candidate: Recognizer, recordings: Sequence[NDArray[np.float32]]) -> str | None:
    """Compare the hypotheses of two recognizers: the candidate's for each recording alone and for all in one batch.

    Returns:
        The first difference, or None.
    """
    together = candidate.transcribe(recordings)
    for number, (recording, batched) in enumerate(zip(recordings, together, strict=True), 1):
        (expected,), (alone,) = reference.transcribe([recording]), candidate.transcribe([recording])
        for where, found in (("alone", alone), ("in a batch", batched)):
            if difference := _difference(expected, found):
                return f"recording {number} {where}: {difference}"
    return None


def _difference(expected: Hypothesis, found: Hypothesis) -> str | None:
    ours, theirs = (
        [f"{token.piece!r} at {token.start:.2f} to {token.end:.2f} s" for token in hypothesis.tokens] + ["the end"]
        for hypothesis in (found, expected)
    )
    for index, (our, their) in enumerate(zip(ours, theirs, strict=False), 1):
        if our != their:
            return f"token {index} is {our}, NeMo's is {their}"
    return None if found.text == expected.text else f"the text is {found.text!r}, NeMo's is {expected.text!r}"


def _recordings() -> list[NDArray[np.float32]]:
    """Return recordings to compare: the bundled clips, and forms of them that differ in length, speed and loudness."""
    clips = [
        soundfile.read(path, dtype="float32")[0] for path in (CLIP, *sorted(Path(__file__).parent.glob("clips/*")))
    ]
    first, pause = clips[0], np.zeros(SAMPLE_RATE // 2, np.float32)
    faster = np.interp(np.arange(0, len(first), 1.2), np.arange(len(first)), first).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.003, len(first)).astype(np.float32)
    joined = np.concatenate([first, pause, clips[1]])
    return [*clips, faster, 0.1 * first + noise, first[: SAMPLE_RATE // 3], np.concatenate([pause, pause]), joined]


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off warnings, since NeMo logs advice on training as such."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
