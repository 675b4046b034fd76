"""The one thread that owns the model: jobs hand it samples and await their hypotheses."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.errors import Code, JobError
from parakeet_worker.model.hypothesis import Hypothesis, Recognizer


class Engine:
    """Runs a recognizer on a thread of its own, from the first job on.

    Args:
        load: Makes the recognizer. Called on the model thread when the first job needs it, and again by the next job
            if it failed.
    """

    def __init__(self, load: Callable[[], Recognizer]) -> None:
        self._load = load
        self._recognizer: Recognizer | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def transcribe(self, samples: NDArray[np.float32]) -> Hypothesis:
        """Transcribe one recording.

        Args:
            samples: 16 kHz mono float32, shape (samples,).

        Raises:
            JobError: The model could not be loaded, or ran out of memory.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, samples)

    def _run(self, samples: NDArray[np.float32]) -> Hypothesis:
        if self._recognizer is None:
            try:
                self._recognizer = self._load()
            except Exception as error:
                raise JobError(Code.MODEL_UNAVAILABLE, "the worker could not load its model; try again") from error
        try:
            return self._recognizer.transcribe([samples])[0]
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise JobError(
                Code.OUT_OF_MEMORY, "the worker ran out of memory; send a shorter recording or try again"
            ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Say whether an exception is a CPU's or a GPU's way to report that memory ran out.

    torch raises its own class for a GPU and a plain RuntimeError, known by its text alone, for a CPU.
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in str(error)
        or "can't allocate memory" in str(error)
    )
