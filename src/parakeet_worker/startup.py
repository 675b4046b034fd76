"""The start of a worker, in the order that makes it short.

The weights are read on one thread and the model is built on another, while this one imports RunPod's SDK, which waits a
second for a program that it runs. So this module imports little at its top, and the rest when its turn comes.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from parakeet_worker import __version__
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.model.allocator import keep_large_blocks
from parakeet_worker.model.card import Card
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.serverless import log
from parakeet_worker.serverless.help import is_help_wanted, print_help
from parakeet_worker.serverless.local import TestInputError, prepare_test_input
from parakeet_worker.serverless.platform import is_on_runpod
from parakeet_worker.settings import Settings, SettingsError, is_log_json
from parakeet_worker.stage_timer import StageTimer

if TYPE_CHECKING:
    from parakeet_worker.asr.types import Recognizer
    from parakeet_worker.serverless.serve import Handler
    from parakeet_worker.serverless.worker import Worker


def build_worker(settings: Settings) -> "Worker":
    """Build the worker, whose model starts to load.

    Raises:
        SettingsError: The model directory has a damaged card.
    """
    if not settings.is_gpu_expected:
        keep_large_blocks()
    # OpenMP's threads wait for each other by spinning, for milliseconds unless told otherwise. Beside another busy
    # process that made forward passes three times slower; so short a spin costs 7 percent on idle cores. It is read
    # when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    card = _read_card(settings)
    files = ModelFiles(settings.model_dir, card.files).read_ahead()
    scheduler = Scheduler(lambda: _load(settings, card, files))
    scheduler.start()

    from parakeet_worker.audio.chunking import ChunkingConfig
    from parakeet_worker.audio.fetch.download import DownloadLimits
    from parakeet_worker.audio.fetch.scratch import DiskBudget
    from parakeet_worker.job.actions import Actions
    from parakeet_worker.job.transcribe import Limits
    from parakeet_worker.serverless.summary import Summary
    from parakeet_worker.serverless.worker import Worker

    limits = Limits(
        DownloadLimits(
            settings.max_download_mb * 1_000_000,
            settings.download_timeout_s,
            DiskBudget(settings.max_disk_mb * 1_000_000),
        ),
        settings.max_audio_minutes * 60.0,
        ChunkingConfig(min(card.max_duration, settings.pass_seconds), *card.windows),
    )
    actions = Actions(scheduler, card, limits, settings.concurrency_on_device)
    summary = Summary(lambda: scheduler.stats, lambda: scheduler.waiting)
    return Worker(actions, logs_json=settings.log_format == "json", summary=summary)


def start(handler: "Handler", settings: Callable[[], Settings], build: "Callable[[], Worker]") -> None:
    """Build the worker and serve until RunPod's SDK is stopped.

    Args:
        handler: Answers a job.
        settings: Returns the worker's settings.
        build: Returns the worker behind the handler.

    Raises:
        SystemExit: A setting or the job on the command line is nonsense; the message names it. Or help was asked for,
            and printed.
    """
    if is_help_wanted():
        print_help()
    log.install(as_json=is_log_json())
    try:
        given = settings()
        prepare_test_input()
        worker = build()
    except (SettingsError, TestInputError) as error:
        raise SystemExit(f"parakeet-worker: {error}") from error

    from parakeet_worker.serverless.serve import serve

    serve(handler, worker, given.concurrency_on_device, given.loop)


def is_gpu_missing(settings: Settings, device_type: str) -> bool:
    """Return whether the model runs on the CPU by PARAKEET_DEVICE=auto where there should be a GPU.

    Args:
        settings: The worker's settings.
        device_type: What the model runs on, `cpu` or `cuda`.
    """
    is_fallback = settings.device == "auto" and device_type == "cpu"
    return is_fallback and (settings.is_gpu_expected or is_on_runpod())


def _read_card(settings: Settings) -> Card:
    try:
        return Card.read(settings.model_dir)
    except (OSError, ValueError) as error:
        raise SettingsError(
            "PARAKEET_MODEL_DIR must be the directory of a baked model, with a card.json; "
            f"that of {str(settings.model_dir)!r} is damaged"
        ) from error


def _load(settings: Settings, card: Card, files: ModelFiles) -> "Recognizer":
    """Load the model as the settings say, and log that the worker is ready. Runs on the model thread."""
    timer = StageTimer()
    with timer.stage("imports"):
        from parakeet_worker.model.device import make_plan
        from parakeet_worker.nemo.prepare import prepare

    with timer.stage("device"):
        plan = make_plan(settings.device, settings.precision, settings.batch_seconds, card.parameters)
    recognizer = prepare(
        settings.model_dir,
        card,
        files,
        plan,
        cpu_threads=settings.cpu_threads,
        is_lean=settings.lean_imports,
        stage=timer.stage,
    )

    from parakeet_worker.serverless.logger import choose_log_level, warn, write_line
    from parakeet_worker.serverless.ready import Ready

    choose_log_level()
    if is_gpu_missing(settings, plan.device.type):
        warn("PARAKEET_DEVICE is auto, and torch finds no GPU that it can use: the model runs on the CPU.")
    ready = Ready(
        model=card.name,
        revision=card.revision,
        worker=__version__,
        device=plan.device_name,
        precision=plan.precision_name,
        concurrency=settings.concurrency_on_device,
        batch_limit_s=plan.batch_seconds,
        ready_s=round(timer.elapsed, 2),
        stages=timer.seconds,
    )
    write_line(ready, "INFO", as_json=settings.log_format == "json")
    return recognizer
