"""Importing the classes of NeMo that the worker runs, without what only training needs, and with a quieter log.

Without the rules below the import takes five times as long as torch's, and with them a fifth of that time. Only
`nemo/` and `bake/` import NeMo.
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from parakeet_worker.nemo.lean_imports import Rules, import_leanly

_RULES = Rules(
    forwarding=["nemo"],
    unused=[
        # Training, its loggers and metrics; torch._dynamo, torch._inductor and transformers come with them.
        "lightning",
        "nemo.core.classes.modelPT",
        "nemo.utils.exp_manager",
        # Data sets and augmentation: the worker passes samples.
        "lhotse",
        "nemo.collections.asr.parts.preprocessing.perturb",
        # Downloading models.
        "huggingface_hub",
        "nemo.utils.cloud",
        # Language models and phrase boosting, which import Lightning, and forced alignment.
        "nemo.collections.asr.parts.context_biasing.boosting_graph_batched",
        "nemo.collections.asr.parts.submodules.ngram_lm",
        "nemo.collections.asr.parts.utils.aligner_utils",
    ],
    optional=[
        "numba",  # augmentation on a GPU
        "nemo.core.utils.k2_guard",  # another decoder
        "nemo.utils.lightning_logger_patch",
    ],
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classes:
    """NeMo's classes for one configuration. They are `Any`, since NeMo is not typed.

    Attributes:
        preprocessor: Samples to mel features.
        encoder: Mel features to encoder frames.
        decoder: The prediction network.
        joint: The joint network.
        decoding: The greedy search.
        tokenizer: Token ids to text.
    """

    preprocessor: Callable[..., Any]
    encoder: Callable[..., Any]
    decoder: Callable[..., Any]
    joint: Callable[..., Any]
    decoding: Callable[..., Any]
    tokenizer: Callable[..., Any]


def import_classes(config: DictConfig, *, is_lean: bool) -> Classes:
    """Import the classes that a model's configuration names.

    Args:
        config: NeMo's configuration of an EncDecRNNTBPEModel.
        is_lean: Whether to skip modules that serving does not need.

    Raises:
        ImportError: NeMo cannot be imported, or has no such class.
    """
    # NeMo's telemetry is off unless configured. It logs a warning about that on every import.
    logging.getLogger("nv_one_logger").setLevel(logging.ERROR)

    def import_all() -> Classes:
        decoding = importlib.import_module("nemo.collections.asr.parts.submodules.rnnt_decoding")
        tokenizer = importlib.import_module("nemo.collections.common.tokenizers.sentencepiece_tokenizer")
        classes = Classes(
            preprocessor=_class(config.preprocessor),
            encoder=_class(config.encoder),
            decoder=_class(config.decoder),
            joint=_class(config.joint),
            decoding=decoding.RNNTBPEDecoding,
            tokenizer=tokenizer.SentencePieceTokenizer,
        )
        # At INFO NeMo logs each module that it builds. Warnings are still logged.
        nemo_log = importlib.import_module("nemo.utils").logging
        nemo_log.setLevel(nemo_log.WARNING)
        return classes

    def tell(error: Exception) -> None:
        log.warning("Importing NeMo whole, since its parts could not be imported alone: %r", error)

    return import_leanly(import_all, _RULES if is_lean else Rules(), tell)


def _class(config: DictConfig) -> Callable[..., Any]:
    """Return the class that a module's configuration names in `_target_`.

    Raises:
        ImportError: It cannot be imported, or does not exist.
    """
    module, _, name = config["_target_"].rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"{module} has no {name}") from error
    return found
