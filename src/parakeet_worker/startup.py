"""The start of a worker, in the order that makes it short.

The weights are read on one thread and the model is built on another, while this one imports RunPod's SDK. So this
module imports little at its top, and the rest when its turn comes.
"""

import os
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from parakeet_worker import __version__
from parakeet_worker.asr.scheduler import Scheduler
from parakeet_worker.asr.types import GraphCaptureError
from parakeet_worker.model.allocator import keep_large_blocks
from parakeet_worker.model.card import Card
from parakeet_worker.model.config import UnsupportedModelError
from parakeet_worker.model.files import DamagedModelError, ModelFiles, ModelSource
from parakeet_worker.serverless import log
from parakeet_worker.serverless.help import is_help_wanted, print_help
from parakeet_worker.serverless.local import TestInputError, prepare_test_input
from parakeet_worker.serverless.platform import is_on_runpod
from parakeet_worker.serverless.sdk import import_sdk
from parakeet_worker.settings import Settings, SettingsError, is_log_json
from parakeet_worker.stage_timer import StageTimer

if TYPE_CHECKING:
    from parakeet_worker.asr.types import Recognizer
    from parakeet_worker.model.key_terms import TermCompiler
    from parakeet_worker.serverless.serve import Handler
    from parakeet_worker.serverless.worker import Worker


def build_worker(settings: Settings) -> "Worker":
    """Build the worker, whose model starts to load.

    Raises:
        SettingsError: The model is damaged, or needs an engine that is not installed.
    """
    if not settings.is_gpu_expected:
        keep_large_blocks()
    # OpenMP's threads wait for each other by spinning, for milliseconds unless told otherwise. Beside another busy
    # process that made forward passes three times slower; so short a spin costs 7 percent on idle cores. It is read
    # when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    card, source = _open_model(settings)
    engine = _choose_engine(settings, card)
    scheduler = Scheduler(lambda: _load(settings, card, source, engine))
    scheduler.start()
    import_sdk()

    from parakeet_worker.audio.chunking import ChunkingConfig
    from parakeet_worker.audio.fetch.download import DownloadLimits
    from parakeet_worker.audio.fetch.scratch import DiskBudget
    from parakeet_worker.job.actions import Actions
    from parakeet_worker.job.transcribe import Limits
    from parakeet_worker.serverless.summary import Summary
    from parakeet_worker.serverless.worker import Worker

    @cache
    def compiler() -> "TermCompiler":
        # For the first job with key terms. It may come before the model is loaded.
        from parakeet_worker.model.key_terms import TermCompiler
        from parakeet_worker.model.tokenizer import Tokenizer

        return TermCompiler(Tokenizer(source.tokenizer()))

    limits = Limits(
        DownloadLimits(
            settings.max_file_bytes,
            settings.download_timeout_s,
            DiskBudget(settings.max_disk_mb * 1_000_000),
        ),
        settings.max_audio_minutes * 60.0,
        ChunkingConfig(min(card.max_duration, settings.pass_seconds), *card.windows),
    )
    actions = Actions(
        scheduler,
        card,
        limits,
        settings.concurrency_on_device,
        settings.segment_pause_s,
        engine,
        lambda terms: compiler().compile(terms),
    )
    summary = Summary(lambda: scheduler.stats, lambda: scheduler.waiting)
    store = None
    if settings.bucket_endpoint_url:
        from parakeet_worker.serverless.bucket import Bucket

        store = Bucket(
            settings.bucket_endpoint_url,
            settings.bucket_access_key_id,
            settings.bucket_secret_access_key,
            settings.bucket_name,
        ).store
    return Worker(actions, logs_json=settings.log_format == "json", summary=summary, store=store)


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


def _choose_engine(settings: Settings, card: Card) -> str:
    """Return what runs the model: `plain` or `nemo`.

    Raises:
        SettingsError: It is not installed.
    """
    engine = card.engine if settings.engine == "auto" else settings.engine
    if engine == "nemo" and find_spec("nemo") is None:
        reason = "PARAKEET_ENGINE is nemo"
        if settings.engine == "auto":
            reason = f"PARAKEET_MODEL needs it: {card.engine_reason.rstrip('.')}"
        raise SettingsError(
            f"NeMo is not installed, and {reason}; build the image with --build-arg ENGINE=nemo, "
            "or pip install -r requirements-nemo.txt"
        )
    return engine


def _open_model(settings: Settings) -> tuple[Card, ModelSource]:
    """Return the model's card and its files, which are read ahead from a model directory.

    Raises:
        SettingsError: The model is damaged, or cannot be run without a bake.
    """
    if settings.model.is_file():
        if settings.engine == "nemo":
            raise SettingsError("PARAKEET_ENGINE is nemo, and PARAKEET_MODEL is a .nemo file; bake it first")
        from parakeet_worker.model.nemo_file import open_nemo_file

        try:
            return open_nemo_file(settings.model)
        except (DamagedModelError, UnsupportedModelError) as error:
            raise SettingsError(f"PARAKEET_MODEL is a .nemo file that the plain engine cannot run: {error}") from error
    try:
        card = Card.read(settings.model)
    except (OSError, ValueError) as error:
        raise SettingsError(
            "PARAKEET_MODEL must be the directory of a baked model, with a card.json; "
            f"that of {str(settings.model)!r} is damaged"
        ) from error
    return card, ModelFiles(settings.model, card.files).read_ahead()


def _load(settings: Settings, card: Card, source: "ModelSource", engine: str) -> "Recognizer":
    """Load the model as the settings say, and log that the worker is ready. Runs on the model thread."""
    timer = StageTimer()
    with timer.stage("imports"):
        from parakeet_worker.model.device import make_plan

        prepare: Callable[..., Recognizer]
        if engine == "nemo":
            from parakeet_worker.nemo import prepare as nemo

            prepare = partial(nemo.prepare, settings.model)
        else:
            from parakeet_worker.model.prepare import prepare

    with timer.stage("device"):
        plan = make_plan(
            settings.device,
            settings.precision,
            settings.batch_seconds,
            card.parameters,
            engine=engine,
            uses_graphs=engine == "plain" and settings.cuda_graphs == "auto",
        )
    try:
        recognizer = prepare(source, card, plan, cpu_threads=settings.cpu_threads, stage=timer.stage)
    except GraphCaptureError as error:
        reason = str(error).partition("\n")[0]
        _warn(f"CUDA graphs cannot be captured ({reason}). On RunPod the worker starts anew, without them.")
        raise

    from parakeet_worker.serverless.logger import choose_log_level, write_line
    from parakeet_worker.serverless.ready import Ready

    choose_log_level()
    graphs = getattr(recognizer, "graphs", None)  # NeMo's recognizer has none
    if graphs is not None and graphs.dropped:
        names = "; ".join(graphs.dropped)
        _warn(f"CUDA graphs that give other results than eager runs are not used: {names}.")
    if is_gpu_missing(settings, plan.device.type):
        _warn("PARAKEET_DEVICE is auto, and torch finds no GPU that it can use: the model runs on the CPU.")
    if settings.model.is_file():
        from parakeet_worker.model.self_check import transcribe_clip

        text = transcribe_clip(recognizer)
        _warn(f"The .nemo file was not baked, so nothing was compared with NeMo. The bundled clip gives: {text!r}")
    ready = Ready(
        model=card.name,
        revision=card.revision,
        worker=__version__,
        device=plan.device_name,
        precision=plan.precision_name,
        engine=engine,
        graphs=len(graphs or ()),
        concurrency=settings.concurrency_on_device,
        batch_limit_s=round(plan.batch_seconds),
        ready_s=round(timer.elapsed, 2),
        stages=timer.seconds,
    )
    write_line(ready, "INFO", as_json=settings.log_format == "json")
    return recognizer


def _warn(message: str) -> None:
    # The module imports RunPod's SDK.
    from parakeet_worker.serverless.logger import choose_log_level, warn

    choose_log_level()
    warn(message)
