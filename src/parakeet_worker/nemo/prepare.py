"""Making a recognizer of NeMo's modules that is ready for the first job. Importing this module imports torch."""

from pathlib import Path

from parakeet_worker.model.card import Card
from parakeet_worker.model.device import Plan, use_plan
from parakeet_worker.model.files import DamagedModelError, ModelFiles
from parakeet_worker.model.prepare import TimeStage
from parakeet_worker.model.self_check import check_transcript, warm_up
from parakeet_worker.nemo.loading import load_model
from parakeet_worker.nemo.recognizer import NemoRecognizer


def prepare(
    directory: Path, files: ModelFiles, card: Card, plan: Plan, *, cpu_threads: int, stage: TimeStage
) -> NemoRecognizer:
    """Load a model onto the device, check it, and warm it up.

    Args:
        directory: The model directory.
        files: Its files.
        card: Its card.
        plan: How to run the model.
        cpu_threads: Threads of one forward pass on a CPU.
        stage: Times the stages `device`, `imports`, `build`, `read`, `copy` and `warm-up`.

    Raises:
        DamagedModelError: A file of the model is missing or damaged.
        RuntimeError: The device cannot be used, or the weights do not fit the configuration.
        SelfCheckError: The model does not transcribe as it should.
    """
    with stage("device"):
        use_plan(plan, cpu_threads)
    try:
        model = load_model(directory, plan.device, plan.weights_precision, files=files, stage=stage)
    except DamagedModelError:
        raise
    except Exception:
        # If a file is damaged, that is the cause, and is raised here.
        files.weights()
        raise
    recognizer = NemoRecognizer(model, plan)
    with stage("warm-up"):
        check_transcript(recognizer, card.check)
        recognizer.warm_up_times = warm_up(recognizer)
    return recognizer
