"""A worker's start, in the order that makes it short.

The weights are read on one thread and the model is built on another, while this one imports RunPod's SDK, of which a
second is spent waiting for a program that it runs. So this module imports little, and imports the rest in its turn.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from parakeet_worker.model.card import Card
from parakeet_worker.model.engine import Engine
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.memory import keep_large_blocks
from parakeet_worker.settings import Settings, SettingsError

if TYPE_CHECKING:
    from parakeet_worker.model.hypothesis import Recognizer
    from parakeet_worker.serving import Handler, Worker


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

    from parakeet_worker.audio.download import Disk, DownloadLimits
    from parakeet_worker.audio.windows import Cutting
    from parakeet_worker.dispatch import Dispatcher
    from parakeet_worker.serving import Worker
    from parakeet_worker.transcription import Limits

    limits = Limits(
        DownloadLimits(
            settings.max_download_mb * 1_000_000, settings.download_timeout_s, Disk(settings.max_disk_mb * 1_000_000)
        ),
        settings.max_audio_minutes * 60.0,
        Cutting(min(card.max_duration, settings.pass_seconds), *card.windows),
    )
    dispatcher = Dispatcher(engine, card, limits, settings.concurrency_on_device)
    return Worker(dispatcher, logs_json=settings.log_format == "json")


def _load(settings: Settings, card: Card, files: ModelFiles) -> "Recognizer":
    started = time.monotonic()
    from parakeet_worker.model.prepare import Laps, prepare

    laps = Laps(started)
    recognizer = prepare(settings, card, files, laps)

    from parakeet_worker.serving import choose_log_level, log

    choose_log_level()
    log.info(f"{card.name} is ready after {time.monotonic() - started:.2f} s: {laps}.")
    return recognizer


def start(handler: "Handler", build: "Callable[[], Worker]") -> None:
    """Build the worker and serve until RunPod's SDK is stopped.

    Args:
        handler: What answers a job.
        build: Makes the worker behind the handler, so that nonsense in the settings stops the start.

    Raises:
        SystemExit: A setting is nonsense; the message names it.
    """
    try:
        worker = build()
        settings = Settings.from_env()
    except SettingsError as error:
        raise SystemExit(f"parakeet-worker: {error}") from error

    from parakeet_worker.serving import serve

    serve(handler, worker, settings.concurrency_on_device, getattr(settings, "loop", "worker"))
