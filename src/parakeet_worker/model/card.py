"""The layout of a model directory: the names of its files, and `card.json`, which describes the model."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

CARD = "card.json"
CONFIG = "model_config.yaml"
WEIGHTS = "model.safetensors"
CHECKPOINT = "model_weights.ckpt"  # the weights in a .nemo file
TOKENIZER_FILES = {
    "model_path": "tokenizer/tokenizer.model",
    "vocab_path": "tokenizer/vocab.txt",
    "spe_tokenizer_vocab": "tokenizer/tokenizer.vocab",
}
"""The files of a SentencePiece tokenizer: NeMo's key in `cfg.tokenizer`, and the path in a model directory."""


WINDOWS = (20.0, 30.0, 3.0)
"""The windows of a model that nothing else is known of, as `Card.windows`: half a minute holds several sentences."""

MAX_DURATION = 24 * 60.0
"""NVIDIA's figure for the longest pass of the 0.6B v2, in seconds (with full attention, on a GPU of 80 GB)."""


@dataclass(frozen=True)
class Card:
    """The description of a baked model, stored as `card.json`.

    Attributes:
        name: The model's name, as `model_info` reports it.
        description: Purpose, in a sentence or two.
        parameters: Number of trainable parameters.
        architecture: Encoder and decoder, such as `FastConformer-TDT`.
        sample_rate: Sample rate of its input, in hertz.
        max_duration: Longest audio of one pass, in seconds.
        features: Features for `model_info`, such as `Automatic punctuation`.
        license: Licence of the weights.
        windows: Shortest and longest window that a long recording is cut into, and their overlap, in seconds. The
            windows are about as long as the recordings that the model was trained on.
        engine: What serves it: `plain`, this package's own implementation, or `nemo`.
        engine_reason: A sentence on why: what was compared with NeMo, or why NeMo serves it.
        check: Transcript of the bundled clip by NeMo's own `transcribe()`, or None for a model with untrained weights.
        source: Source of the bake: `name`, and `revision` and `sha256` if known.
        files: SHA-256 in hexadecimal of every other file of the directory, by relative path.
    """

    name: str
    description: str
    parameters: int
    architecture: str
    sample_rate: int
    max_duration: float
    features: tuple[str, ...]
    license: str
    windows: tuple[float, float, float]
    engine: str
    engine_reason: str
    check: str | None
    source: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def revision(self) -> str:
        """Short version of the source: `revision 0123456789ab` or `sha256 …`, or empty if neither is known."""
        known = [f"{kind} {self.source[kind][:12]}" for kind in ("revision", "sha256") if kind in self.source]
        return known[0] if known else ""

    @classmethod
    def read(cls, directory: Path) -> "Card":
        """Read `card.json` of a model directory.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not JSON, or does not have exactly the fields of a card.
        """
        values = json.loads((directory / CARD).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
            raise ValueError(f"{CARD} does not have the fields of a card")
        return cls(**values | {"features": tuple(values["features"]), "windows": tuple(values["windows"])})

    def write(self, directory: Path) -> None:
        """Write `card.json` into a model directory."""
        (directory / CARD).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def vocabulary_features(vocabulary: Collection[str]) -> tuple[str, ...]:
    """Return the features for a card. Punctuation and capitalization are found in the vocabulary."""
    given = {
        "Automatic punctuation": any(mark in vocabulary for mark in (".", "▁.")),
        "Automatic capitalization": any(piece != piece.lower() for piece in vocabulary),
        "Word-level timestamps": True,
        "Segment-level timestamps": True,
        "Character-level timestamps": True,
    }
    return tuple(feature for feature, is_given in given.items() if is_given)


def parameter_count(parameters: int) -> str:
    """Return a number of parameters as it is written in model names: `600M` for 617.8 million, `1.1B`, `110M`, `4.8M`.

    Rounds to two significant digits, or to one from 500 million to a billion, as model names do.
    """
    digits = 1 if 500_000_000 <= parameters < 1_000_000_000 else 2
    rounded = float(f"{parameters:.{digits}g}")
    unit, size = next((u, s) for u, s in (("B", 1e9), ("M", 1e6), ("K", 1e3)) if rounded >= s or u == "K")
    return f"{rounded / size:g}{unit}"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
