"""Which of the worker's resources has run out, by the exception that says so, and what the caller is told."""

import errno

from parakeet_worker.errors import Code, JobError

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT})

# torch raises a class of its own for a GPU. For a CPU it raises a plain RuntimeError, as do other libraries. The
# last two are oneDNN's.
_NO_MEMORY_TEXTS = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or one that it was raised from, says that a CPU's or a GPU's memory ran out."""
    return any(
        isinstance(link, MemoryError)
        or type(link).__name__ == "OutOfMemoryError"
        or (isinstance(link, OSError) and link.errno == errno.ENOMEM)
        or (isinstance(link, RuntimeError) and any(text in str(link).lower() for text in _NO_MEMORY_TEXTS))
        for link in causes(error)
    )


def is_out_of_room(error: BaseException) -> bool:
    """Return whether an exception, or one that it was raised from, says that files, threads or the disk ran out."""
    return any(
        (isinstance(link, OSError) and link.errno in _NO_ROOM)
        or (isinstance(link, RuntimeError) and "can't start new thread" in str(link))
        for link in causes(error)
    )


def explain(error: BaseException) -> JobError | None:
    """Return what a job is told whose worker ran out of something, or None where it was something else."""
    if is_out_of_memory(error):
        told = out_of_memory()
    elif is_out_of_room(error):
        told = worker_busy()
    else:
        return None
    told.__cause__ = error
    return told


def out_of_memory() -> JobError:
    """Return the failure of a job for which the memory was too small."""
    return JobError(Code.OUT_OF_MEMORY, "the worker ran out of memory; send a shorter recording or try again")


def worker_busy() -> JobError:
    """Return the failure of a job for which files, threads or the disk were not enough."""
    return JobError(Code.WORKER_BUSY, "the worker has no room for the job at the moment; send it again")


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an exception, the one that it was raised from or while that was handled, and so on."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
