"""Making a recognizer that is ready for the first job. Importing this module imports torch."""

from pathlib import Path

from parakeet_worker.model.card import Card
from parakeet_worker.model.device import Plan, use_plan
from parakeet_worker.model.files import DamagedModelError, ModelFiles
from parakeet_worker.model.self_check import check_transcript, warm_up
from parakeet_worker.nemo.loading import TimeStage, load_model
from parakeet_worker.nemo.recognizer import NemoRecognizer


def prepare(
    directory: Path,
    card: Card,
    files: ModelFiles,
    plan: Plan,
    *,
    cpu_threads: int,
    is_lean: bool,
    stage: TimeStage,
) -> NemoRecognizer:
    """Load a model onto the device, check it, and warm it up.

    Args:
        directory: The model directory.
        card: Its card.
        files: Its files.
        plan: How to run the model.
        cpu_threads: Threads of one forward pass on a CPU.
        is_lean: Whether to skip NeMo's modules that serving does not need.
        stage: Times the stages `device`, `imports`, `build`, `read`, `copy` and `warm-up`.

    Raises:
        DamagedModelError: A file of the model is missing or damaged.
        RuntimeError: The device cannot be used, or the weights do not fit the configuration.
        SelfCheckError: The model does not transcribe as it should.
    """
    with stage("device"):
        use_plan(plan, cpu_threads)
    try:
        model = load_model(directory, plan.device, plan.weights_precision, files=files, is_lean=is_lean, stage=stage)
    except DamagedModelError:
        raise
    except Exception:
        # If a file is damaged, that is the cause: check() raises it.
        files.check()
        raise
    recognizer = NemoRecognizer(model, plan)
    with stage("warm-up"):
        check_transcript(recognizer, card.check)
        if plan.device.type == "cuda":
            warm_up(recognizer)
    return recognizer
