"""NeMo's parts that the worker runs, imported without what only training needs, and without the chatter.

Importing them takes five times as long as importing torch without the rules below, and a fifth of that time with them.
Beside this module only the bake's comparison imports NeMo.
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from parakeet_worker.lean import Rules, import_leanly

_RULES = Rules(
    forwarding=["nemo"],
    unused=[
        # Training, its loggers and metrics; torch._dynamo, torch._inductor and transformers come with them.
        "lightning",
        "nemo.core.classes.modelPT",
        "nemo.utils.exp_manager",
        # Data sets and augmentation: the worker brings samples.
        "lhotse",
        "nemo.collections.asr.parts.preprocessing.perturb",
        # Getting models.
        "huggingface_hub",
        "nemo.utils.cloud",
        # Language models and phrase boosting, which are models in Lightning's sense, and forced alignment.
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
    """NeMo's classes for one configuration. NeMo is not typed.

    Attributes:
        preprocessor: From samples to features.
        encoder: From features to encoder frames.
        decoder: The prediction network.
        joint: The joint network.
        decoding: The search.
        tokenizer: From token ids to text.
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
        is_lean: Whether to leave out what serving does not need.

    Raises:
        ImportError: NeMo cannot be imported, or has no such class.
    """
    # NeMo's telemetry is off unless its user configures it, and says so on every import.
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
        # INFO tells of each module as it is built. Warnings still reach the terminal.
        nemo_log = importlib.import_module("nemo.utils").logging
        nemo_log.setLevel(nemo_log.WARNING)
        return classes

    def tell(error: Exception) -> None:
        log.warning("Importing NeMo whole, since its parts could not be imported alone: %r", error)

    return import_leanly(import_all, _RULES if is_lean else Rules(), tell)


def _class(config: DictConfig) -> Callable[..., Any]:
    """Import the class that a part's configuration names."""
    module, _, name = config["_target_"].rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"{module} has no {name}") from error
    return found
