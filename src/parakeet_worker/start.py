"""A worker's start, in the order that makes it short.

The weights are read on one thread and the model is built on another, while this one imports RunPod's SDK, of which a
second is spent waiting for a program that it runs. So this module imports little, and imports the rest in its turn.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from parakeet_worker import __version__, log
from parakeet_worker.model.card import Card
from parakeet_worker.model.engine import Engine
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.memory import keep_large_blocks
from parakeet_worker.settings import Settings, SettingsError, is_log_json

if TYPE_CHECKING:
    from parakeet_worker.model.hypothesis import Recognizer
    from parakeet_worker.serving import Handler, Worker

# As argparse takes it.
_HELP = {"-h", "--h", "--he", "--hel", "--help"}

_EPILOG = """Without options, handler.py serves the RunPod endpoint that it is started for, or runs the job of
test_input.json where there is none. Environment variables set up the worker itself, PARAKEET_...: see README.md."""


def build_worker(settings: Settings) -> "Worker":
    """Assemble the worker, whose model begins to load.

    Raises:
        OSError: The model has no card.
        ValueError: Its card is damaged.
    """
    if not settings.is_gpu_expected:
        keep_large_blocks()
    # OpenMP's threads wait for each other by spinning, for milliseconds unless told otherwise. Beside another busy
    # process that made forward passes three times slower; so short a spin costs 7 percent on idle cores. It is read
    # when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    card = Card.read(settings.model_dir)
    files = ModelFiles(settings.model_dir, card.files).read_ahead()
    engine = Engine(lambda: _load(settings, card, files))
    engine.start()

    from parakeet_worker.audio.download import DownloadLimits
    from parakeet_worker.audio.scratch import Disk
    from parakeet_worker.audio.windows import Cutting
    from parakeet_worker.dispatch import Dispatcher
    from parakeet_worker.serving import Worker
    from parakeet_worker.summary import Summary
    from parakeet_worker.transcription import Limits

    limits = Limits(
        DownloadLimits(
            settings.max_download_mb * 1_000_000, settings.download_timeout_s, Disk(settings.max_disk_mb * 1_000_000)
        ),
        settings.max_audio_minutes * 60.0,
        Cutting(min(card.max_duration, settings.pass_seconds), *card.windows),
    )
    dispatcher = Dispatcher(engine, card, limits, settings.concurrency_on_device)
    summary = Summary(lambda: engine.stats, lambda: engine.waiting)
    return Worker(dispatcher, logs_json=settings.log_format == "json", summary=summary)


def _load(settings: Settings, card: Card, files: ModelFiles) -> "Recognizer":
    started = time.monotonic()
    from parakeet_worker.model.prepare import Laps, prepare

    laps = Laps(started)
    recognizer = prepare(settings, card, files, laps)

    from parakeet_worker.serving import choose_log_level, log, write_line

    choose_log_level()
    plan = recognizer.plan
    if settings.is_fallback(plan.device.type):
        log.warn("PARAKEET_DEVICE is auto, and torch finds no GPU that it can use: the model runs on the CPU.")
    ready = Ready(
        model=card.name,
        revision=card.revision,
        worker=__version__,
        device=plan.device_name,
        precision=plan.precision_name,
        concurrency=settings.concurrency_on_device,
        batch_limit_s=plan.batch_seconds,
        ready_s=round(time.monotonic() - started, 2),
        stages=laps.seconds,
    )
    write_line(ready, "INFO", as_json=settings.log_format == "json")
    return recognizer


@dataclass(frozen=True)
class Ready:
    """The line of the log that says what is about to serve.

    Attributes:
        model: The model's name.
        revision: What tells one bake of it from another; empty where that is not known.
        worker: The worker's version.
        device: `cpu`, or the name of the GPU.
        precision: The arithmetic of matrix products.
        concurrency: Jobs that are taken at a time, where the limit on open files carries them.
        batch_limit_s: Longest batch, in seconds of audio with its padding.
        ready_s: Seconds that loading took.
        stages: Seconds of each of its stages.
    """

    model: str
    revision: str
    worker: str
    device: str
    precision: str
    concurrency: int
    batch_limit_s: float
    ready_s: float
    stages: Mapping[str, float]

    def fields(self) -> dict[str, Any]:
        """Return it for machines, with the seconds of each stage under its name."""
        fields = {"event": "ready", **asdict(self)}
        stages = fields.pop("stages")
        return fields | {f"{stage.replace('-', '_')}_s": round(seconds, 2) for stage, seconds in stages.items()}

    def __str__(self) -> str:
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.stages.items())
        revision = f", model {self.revision}" if self.revision else ""
        return (
            f"{self.model} is ready after {self.ready_s:.2f} s: {stages}; on {self.device} in {self.precision}, "
            f"{self.concurrency} jobs at a time, batches of {self.batch_limit_s:g} s at most{revision}, "
            f"worker {self.worker}."
        )


def start(handler: "Handler", build: "Callable[[], Worker]") -> None:
    """Build the worker and serve until RunPod's SDK is stopped.

    Args:
        handler: What answers a job.
        build: Makes the worker behind the handler, so that nonsense in the settings stops the start.

    Raises:
        SystemExit: A setting is nonsense; the message names it. Or help was asked for, and given.
    """
    if _HELP.intersection(sys.argv[1:]):
        _help()
    log.install(as_json=is_log_json())
    try:
        worker = build()
        settings = Settings.from_env()
    except SettingsError as error:
        raise SystemExit(f"parakeet-worker: {error}") from error

    from parakeet_worker.serving import serve

    serve(handler, worker, settings.concurrency_on_device, settings.loop)


def _help() -> None:
    """Let the SDK print its help and exit, before anything is loaded."""
    # When it is imported, it asks for the processor's name by a program that runs for more than a second.
    sys.modules["cpuinfo"] = cast(ModuleType, SimpleNamespace(get_cpu_info=dict))
    from runpod.serverless import parser

    parser.epilog = _EPILOG
    parser.parse_known_args()
