"""From settings to a recognizer that is ready for the first job. Importing this module imports torch."""

import time

from parakeet_worker.model.card import Card
from parakeet_worker.model.device import make_plan, use_plan
from parakeet_worker.model.files import DamagedModel, ModelFiles
from parakeet_worker.model.fitness import check_words, warm_up
from parakeet_worker.model.loading import load_model
from parakeet_worker.model.recognizer import NemoRecognizer
from parakeet_worker.settings import Settings


class Laps:
    """Seconds of each stage.

    Args:
        started: When the first stage began, by `time.monotonic()`.
    """

    def __init__(self, started: float) -> None:
        self._last = started
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str) -> None:
        """End a stage, or a further part of it."""
        now = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def prepare(settings: Settings, card: Card, files: ModelFiles, laps: Laps) -> NemoRecognizer:
    """Load the model as the settings say, check it and warm it up.

    Args:
        settings: The worker's settings.
        card: The model's description.
        files: Its files.
        laps: Told of the stages `imports`, `device`, `build`, `read`, `copy` and `warm-up`.

    Raises:
        DamagedModel: A file of the model is missing or damaged.
        RuntimeError: The device cannot be used, or the weights do not fit the configuration.
        Unfit: The model does not transcribe as it should.
    """
    laps("imports")
    plan = make_plan(settings, card.parameters)
    use_plan(plan, settings.cpu_threads)
    laps("device")
    try:
        model = load_model(
            settings.model_dir,
            plan.device,
            plan.weights_precision,
            files=files,
            is_lean=settings.lean_imports,
            lap=laps,
        )
    except DamagedModel:
        raise
    except Exception:
        # A damaged file is the better explanation of whatever else went wrong.
        files.check()
        raise
    recognizer = NemoRecognizer(model, plan)
    check_words(recognizer, card.check)
    if plan.device.type == "cuda":
        warm_up(recognizer)
    laps("warm-up")
    return recognizer
