"""Every environment variable that an operator may set, with its type, default and meaning."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from parakeet_worker.model.card import Card

REPOSITORY = Path(__file__).resolve().parents[2]

# What begins so is meant for this worker.
_PREFIX = "PARAKEET_"

# What leads downloads through a proxy.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class SettingsError(ValueError):
    """An environment variable holds nonsense, or is no setting. The message names the variable."""


def _model_dir(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    try:
        Card.read(path)
    except (OSError, ValueError) as error:
        raise ValueError("must be the directory of a baked model, with a card.json") from error
    return path


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return text

    return parse


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _whole_number(most: int, *, has_auto: bool = False) -> Callable[[str], int | None]:
    """Return what reads a number from 1 to `most`, an end that only a slip of the keyboard goes beyond."""

    def parse(text: str) -> int | None:
        if has_auto and text == "auto":
            return None
        # int() takes the digits of other scripts too, and no more than 4,300.
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) <= most):
            raise ValueError(f"must be {'auto or ' * has_auto}a whole number from 1 to {most}")
        return int(text)

    return parse


def _variable(name: str, parse: Callable[[str], object], default: str, meaning: str) -> dict[str, Any]:
    return {"variable": name, "parse": parse, "default": default, "meaning": meaning}


@dataclass(frozen=True)
class Settings:
    """The worker's settings.

    Attributes:
        model_dir: Directory of the baked model.
        device: `auto` (CUDA where there is a GPU), `cpu` or `cuda`.
        precision: `auto`, `float32`, `bfloat16` or `float16`.
        concurrency: Jobs that one worker takes at a time, or None for what suits the device.
        batch_seconds: Longest batch in padded seconds, or None for what suits the device.
        cpu_threads: Threads that one forward pass uses on a CPU.
        max_download_mb: Largest download, in megabytes of 1,000,000 bytes.
        download_timeout_s: Longest download, in seconds.
        max_audio_minutes: Longest recording, in minutes.
        pass_seconds: Longest recording that is decoded in one pass, in seconds.
        max_disk_mb: Disk that all downloads together use, in megabytes of 1,000,000 bytes.
        lean_imports: Whether to import of NeMo only what serving needs.
        log_format: `text` or `json`: the form of the log's lines.
        loop: `worker` or `sdk`: whose loop takes jobs.
    """

    model_dir: Path = field(
        metadata=_variable(
            "PARAKEET_MODEL_DIR",
            _model_dir,
            str(REPOSITORY / "models" / "parakeet-tdt-mini"),
            "Directory of the baked model.",
        )
    )
    device: str = field(
        metadata=_variable(
            "PARAKEET_DEVICE",
            _choice("auto", "cpu", "cuda"),
            "auto",
            "`auto` (CUDA where there is a GPU), `cpu` or `cuda`.",
        )
    )
    precision: str = field(
        metadata=_variable(
            "PARAKEET_PRECISION",
            _choice("auto", "float32", "bfloat16", "float16"),
            "auto",
            "Arithmetic of matrix products: `auto`, `float32`, `bfloat16` or `float16`.",
        )
    )
    concurrency: int | None = field(
        metadata=_variable(
            "PARAKEET_CONCURRENCY", _whole_number(1_024, has_auto=True), "auto", "Jobs that one worker takes at a time."
        )
    )
    batch_seconds: int | None = field(
        metadata=_variable(
            "PARAKEET_BATCH_SECONDS",
            _whole_number(100_000, has_auto=True),
            "auto",
            "Longest batch, in seconds of audio with its padding.",
        )
    )
    cpu_threads: int = field(
        metadata=_variable(
            "PARAKEET_CPU_THREADS",
            _whole_number(1_024),
            str(min(os.cpu_count() or 1, 16)),
            "Threads of one forward pass on a CPU.",
        )
    )
    max_download_mb: int = field(
        metadata=_variable(
            "PARAKEET_MAX_DOWNLOAD_MB",
            _whole_number(100_000),
            "1000",
            "Largest audio file that is taken, in megabytes.",
        )
    )
    download_timeout_s: int = field(
        metadata=_variable(
            "PARAKEET_DOWNLOAD_TIMEOUT_S",
            _whole_number(86_400),
            "300",
            "Longest time that a download may take, in seconds.",
        )
    )
    max_disk_mb: int = field(
        metadata=_variable(
            "PARAKEET_MAX_DISK_MB",
            _whole_number(1_000_000),
            "4000",
            "Disk that all downloads together may use, in megabytes.",
        )
    )
    max_audio_minutes: int = field(
        metadata=_variable(
            "PARAKEET_MAX_AUDIO_MINUTES", _whole_number(1_440), "240", "Longest recording that is taken, in minutes."
        )
    )
    pass_seconds: int = field(
        metadata=_variable(
            "PARAKEET_PASS_SECONDS",
            _whole_number(86_400),
            "300",
            "Longest recording that is decoded in one pass, in seconds; a longer one is cut into windows.",
        )
    )
    lean_imports: bool = field(
        metadata=_variable(
            "PARAKEET_LEAN_IMPORTS",
            _boolean,
            "true",
            "`false` imports NeMo whole: the start takes seconds more, the answers are the same.",
        )
    )
    log_format: str = field(
        metadata=_variable(
            "PARAKEET_LOG_FORMAT", _choice("text", "json"), "text", "`json` makes every line of the log a JSON object."
        )
    )
    loop: str = field(
        metadata=_variable(
            "PARAKEET_LOOP",
            _choice("worker", "sdk"),
            "worker",
            "`sdk` takes jobs with RunPod's own loop: slower, and without the guarantees of Operate.",
        )
    )

    @property
    def concurrency_on_device(self) -> int:
        """Jobs that one worker takes at a time: what was set, or what suits the device."""
        return self.concurrency or (64 if self.is_gpu_expected else 8)

    @property
    def is_gpu_expected(self) -> bool:
        """Whether the model will run on a GPU: its device file tells without seconds of loading CUDA."""
        return self.device != "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))

    def is_fallback(self, device: str) -> bool:
        """Return whether `auto` has led to a device, `cpu`, where there should be a GPU: one is seen, or RunPod's."""
        return self.device == "auto" and device == "cpu" and (self.is_gpu_expected or is_on_runpod())

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings; a variable that is unset or empty takes its default.

        Raises:
            SettingsError: A variable holds nonsense, begins with `PARAKEET_` and is not a setting, or leads downloads
                through a proxy.
        """
        _refuse_unknown(environ)
        _refuse_proxies(environ)
        values = {}
        for setting in fields(cls):
            variable = setting.metadata["variable"]
            text = environ.get(variable, "").strip() or setting.metadata["default"]
            try:
                values[setting.name] = setting.metadata["parse"](text)
            except ValueError as error:
                raise SettingsError(f"{variable} {error}; it is {text!r}") from error
        return cls(**values)


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """Refuse a variable that nobody reads: whoever set it has misspelt a setting."""
    suffixes = [setting.metadata["variable"].removeprefix(_PREFIX) for setting in fields(Settings)]
    for variable in sorted(environ):
        suffix = variable.removeprefix(_PREFIX)
        if suffix != variable and suffix not in suffixes:
            (nearest,) = get_close_matches(suffix, suffixes, n=1, cutoff=0.0)
            raise SettingsError(f"{variable} is not a setting; did you mean {_PREFIX}{nearest}?")


def is_log_json(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the log's lines are JSON, also where other settings are nonsense and have to be reported."""
    return environ.get("PARAKEET_LOG_FORMAT", "").strip() == "json"


def is_on_runpod(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the process serves a RunPod endpoint, by the variables that the platform sets."""
    return "RUNPOD_POD_ID" in environ or "RUNPOD_WEBHOOK_GET_JOB" in environ


def _refuse_proxies(environ: Mapping[str, str]) -> None:
    """Refuse a proxy for downloads: it would resolve names itself, and connect to addresses that are not public.

    The variables are those that the SDK's download asks `requests` for, in any case of letters. Its value may hold a
    password, so the message does not.
    """
    if (environ.get("no_proxy") or environ.get("NO_PROXY")) == "*":
        return
    for variable, value in environ.items():
        name = variable.lower()
        # One in small letters that is empty unsets the others.
        if name in _PROXIES and value and environ.get(name) != "":
            raise SettingsError(f"{variable} is set, and nothing is downloaded through a proxy: unset it")
