"""Every environment variable that an operator may set, with its type, default and meaning."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

# Variables with this prefix must be settings of this worker.
_PREFIX = "PARAKEET_"

# The bucket for large results, as RunPod's SDK names it: all of these or none. Without them a name means nothing.
_BUCKET = ("BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY")
_BUCKET_NAME = "BUCKET_NAME"

# Variables that make HTTP clients use a proxy, in lower case.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class SettingsError(ValueError):
    """An environment variable has an invalid value, or is not a setting. The message names the variable."""


# Where RunPod mounts a network volume, and keeps the models that an endpoint names as Hugging Face's cache does.
_VOLUME = Path("/runpod-volume")
_MODEL_CACHE = _VOLUME / "huggingface-cache" / "hub"


def _model(text: str) -> Path:
    """Return the baked directory or the .nemo file that a path or the name of a Hugging Face model stands for."""
    candidates = [Path(text).expanduser()]
    owner, slash, name = text.partition("/")
    if slash and not candidates[0].exists():
        # A model has one snapshot there, or the newest was written last.
        snapshots = (_MODEL_CACHE / f"models--{owner}--{name}" / "snapshots").glob("*")
        candidates = [*sorted(snapshots, key=lambda path: path.stat().st_mtime, reverse=True), _VOLUME / text]
    for path in candidates:
        if (path.suffix == ".nemo" and path.is_file()) or (path / "card.json").is_file():
            # Not resolved: Hugging Face's cache links to files whose names are checksums.
            return path.absolute()
        if len(archives := list(path.glob("*.nemo"))) == 1:
            return archives[0]
    raise ValueError(
        "must be the directory of a baked model, with a card.json, a .nemo file, or the name of a Hugging Face model "
        "in RunPod's cache or on the network volume"
    )


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be {', '.join(choices[:-1])} or {choices[-1]}")
        return text

    return parse


def _whole_number(most: int, *, has_auto: bool = False) -> Callable[[str], int | None]:
    """Return a parser of whole numbers from 1 to `most`. A larger number can only be a typing error.

    The parser raises ValueError for other text. With `has_auto` it returns None for `auto`.
    """

    def parse(text: str) -> int | None:
        if has_auto and text == "auto":
            return None
        # int() alone would also accept digits of other scripts, and fail with another message above 4,300 digits.
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) <= most):
            raise ValueError(f"must be {'auto or ' * has_auto}a whole number from 1 to {most}")
        return int(text)

    return parse


def _seconds(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of seconds from `least` to `most`, which raises ValueError for other text."""

    def parse(text: str) -> float:
        if not (re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII) and least <= float(text) <= most):
            raise ValueError(f"must be a number of seconds from {least:g} to {most:g}")
        return float(text)

    return parse


def _web_address(text: str) -> str:
    if text and not re.match(r"https?://[^/\s]", text, re.IGNORECASE):
        raise ValueError("must be an http: or https: URL")
    return text


def _variable(name: str, parse: Callable[[str], object], default: str, meaning: str) -> dict[str, Any]:
    return {"variable": name, "parse": parse, "default": default, "meaning": meaning}


@dataclass(frozen=True)
class Settings:
    """The worker's settings. Each field's metadata hold its variable, parser, default (as text) and meaning."""

    model: Path = field(
        metadata=_variable(
            "PARAKEET_MODEL",
            _model,
            str(REPOSITORY / "models" / "parakeet-tdt-mini"),
            "Directory of a baked model, a `.nemo` file, or a Hugging Face name in RunPod's cache or on the volume.",
        )
    )
    engine: str = field(
        metadata=_variable(
            "PARAKEET_ENGINE",
            _choice("auto", "plain", "nemo"),
            "auto",
            "What runs the model: `auto` (as the bake found right), `plain` or `nemo`.",
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
    cuda_graphs: str = field(
        metadata=_variable(
            "PARAKEET_CUDA_GRAPHS",
            _choice("auto", "false"),
            "auto",
            "`auto` (CUDA graphs on a GPU, where they give the results of eager runs) or `false`. Plain engine only.",
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
            "Largest audio file that is taken, in megabytes; not above `PARAKEET_MAX_DISK_MB`.",
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
            "Longest recording that is decoded in one pass, in seconds; a longer one is cut into windows. A value "
            "below 33 is the same as 33.",
        )
    )
    segment_pause_s: float = field(
        metadata=_variable(
            "PARAKEET_SEGMENT_PAUSE_S",
            _seconds(0.1, 30),
            "2",
            "Pause between two words that ends a segment of the timestamps, in seconds.",
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
            "`sdk` takes jobs with RunPod's own loop: slower, a stop may lose jobs, and a result is offered three "
            "times only.",
        )
    )

    bucket_endpoint_url: str = field(
        metadata=_variable(
            "BUCKET_ENDPOINT_URL",
            _web_address,
            "",
            "Address of an S3 bucket for results that are larger than the platform takes.",
        )
    )
    bucket_access_key_id: str = field(
        repr=False, metadata=_variable("BUCKET_ACCESS_KEY_ID", str, "", "Key that may write to the bucket and read it.")
    )
    bucket_secret_access_key: str = field(
        repr=False, metadata=_variable("BUCKET_SECRET_ACCESS_KEY", str, "", "Secret of that key.")
    )
    bucket_name: str = field(
        metadata=_variable("BUCKET_NAME", str, "", "Name of the bucket, where its address does not begin with it.")
    )

    @property
    def concurrency_on_device(self) -> int:
        """Number of jobs that one worker takes at a time: the setting, or else 64 with a GPU and 8 without."""
        return self.concurrency or (64 if self.is_gpu_expected else 8)

    @property
    def max_file_bytes(self) -> int:
        """Size of the largest audio file in bytes. One that the disk never has room for is refused, not put off."""
        return min(self.max_download_mb, self.max_disk_mb) * 1_000_000

    @property
    def is_gpu_expected(self) -> bool:
        """Whether the model will run on a GPU. Looks for a device file only, since asking CUDA would take seconds."""
        return self.device != "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings. A variable that is unset or empty gets its default.

        Raises:
            SettingsError: A variable has an invalid value, begins with `PARAKEET_` and is not a setting, sets a proxy,
                or is one of a bucket whose others are missing.
        """
        _refuse_unknown(environ)
        _refuse_proxies(environ)
        _refuse_part_of_a_bucket(environ)
        values = {}
        for setting in fields(cls):
            variable = setting.metadata["variable"]
            text = environ.get(variable, "").strip() or setting.metadata["default"]
            try:
                values[setting.name] = setting.metadata["parse"](text)
            except ValueError as error:
                raise SettingsError(f"{variable} {error}; it is {text!r}") from error
            except (OSError, RuntimeError) as error:  # of a path; the latter for the home of a user that there is not
                reason = getattr(error, "strerror", None) or error
                raise SettingsError(f"{variable} cannot be used ({reason}); it is {text!r}") from error
        return cls(**values)


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raise SettingsError for a `PARAKEET_` variable that is not a setting: it is probably misspelt."""
    variables = [setting.metadata["variable"] for setting in fields(Settings)]
    suffixes = [name.removeprefix(_PREFIX) for name in variables if name.startswith(_PREFIX)]
    for variable in sorted(environ):
        suffix = variable.removeprefix(_PREFIX)
        if suffix != variable and suffix not in suffixes:
            (nearest,) = get_close_matches(suffix, suffixes, n=1, cutoff=0.0)
            raise SettingsError(f"{variable} is not a setting; did you mean {_PREFIX}{nearest}?")


def _refuse_part_of_a_bucket(environ: Mapping[str, str]) -> None:
    """Raise SettingsError if a part of a bucket's variables is set: large results would be cut, against expectation."""
    given = [name for name in (*_BUCKET, _BUCKET_NAME) if environ.get(name, "").strip()]
    missing = [name for name in _BUCKET if name not in given]
    if given and missing:
        raise SettingsError(f"{missing[0]} must be set, as {given[0]} is; a bucket needs {', '.join(_BUCKET)}")


def is_log_json(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the log's lines are JSON objects.

    Reads this setting alone, so that an error in another one can be logged in the right format.
    """
    return environ.get("PARAKEET_LOG_FORMAT", "").strip() == "json"


def _refuse_proxies(environ: Mapping[str, str]) -> None:
    """Raise SettingsError if a proxy is set: it would resolve names itself, and could connect to private addresses.

    The variables are those that `requests`, which the SDK downloads with, reads in any case of letters. The message
    omits the value, which may contain a password.
    """
    if (environ.get("no_proxy") or environ.get("NO_PROXY")) == "*":
        return
    for variable, value in environ.items():
        name = variable.lower()
        # An empty variable in lower case unsets those in upper case.
        if name in _PROXIES and value and environ.get(name) != "":
            raise SettingsError(f"{variable} is set, and nothing is downloaded through a proxy: unset it")
