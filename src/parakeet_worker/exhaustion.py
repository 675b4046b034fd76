"""Recognizing exceptions that mean that memory, files, threads or disk have run out, and the errors for callers."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import Code, JobError

T = TypeVar("T")

_NO_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_NO_ROOM = _NO_DISK | _NO_DESCRIPTOR | {errno.EAGAIN}

# Longest wait for a free file descriptor, and time between two attempts. Other jobs usually end within this time.
DESCRIPTOR_WAIT_S, _DESCRIPTOR_INTERVAL_S = 10.0, 0.05

# For GPU memory torch raises OutOfMemoryError. For CPU memory it raises a plain RuntimeError, as do other libraries,
# so the text has to tell. The last two texts are oneDNN's.
_NO_MEMORY_TEXTS = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "could not create a primitive",
    "could not create a memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or one that it was raised from, means that CPU or GPU memory has run out."""
    return any(
        isinstance(link, MemoryError)
        or type(link).__name__ == "OutOfMemoryError"
        or (isinstance(link, OSError) and link.errno == errno.ENOMEM)
        or (isinstance(link, RuntimeError) and any(text in str(link).lower() for text in _NO_MEMORY_TEXTS))
        for link in causes(error)
    )


def is_out_of_room(error: BaseException) -> bool:
    """Return whether an exception, or one that it was raised from, means that files, threads or disk have run out."""
    return any(
        (isinstance(link, OSError) and link.errno in _NO_ROOM)
        or (isinstance(link, RuntimeError) and "can't start new thread" in str(link))
        for link in causes(error)
    )


def resource_error(error: BaseException) -> JobError | None:
    """Return the JobError for an exception that means that a resource has run out, or None for any other."""
    if is_out_of_memory(error):
        job_error = out_of_memory()
    elif is_out_of_room(error):
        job_error = worker_busy()
    else:
        return None
    job_error.__cause__ = error
    return job_error


def out_of_memory() -> JobError:
    """Return the error of a job for which there was not enough memory."""
    return JobError(Code.OUT_OF_MEMORY, "the worker ran out of memory; send a shorter recording or try again")


def worker_busy() -> JobError:
    """Return the error of a job for which there were not enough files, threads or disk."""
    return JobError(Code.WORKER_BUSY, "the worker has no room for the job at the moment; send it again")


@contextmanager
def explain_full_disk() -> Iterator[None]:
    """Raise a JobError instead of an OSError that means that the disk is full or fails.

    Raises:
        JobError: The disk is full or fails.
    """
    try:
        yield
    except FileNotFoundError as error:  # from tempfile, when none of its directories can be written to
        raise disk_full() from error
    except OSError as error:
        if error.errno in _NO_DISK | {errno.EFBIG}:
            raise disk_full() from error
        if error.errno == errno.EIO:
            raise worker_busy() from error
        raise


def disk_full() -> JobError:
    """Return the error of a job for which the disk has no room."""
    return JobError(Code.WORKER_BUSY, "the worker has no room for it on its disk at the moment; send it again")


def wait_for_descriptor(opening: Callable[[], T], cancellation: CancellationToken) -> T:
    """Call a function that opens a file or connection, again and again while no file descriptor is free.

    Args:
        opening: The function.
        cancellation: Ends the wait when the job is cancelled.

    Returns:
        What the function returns.

    Raises:
        JobCancelledError: The job was cancelled.
        JobError: No descriptor became free within 10 seconds.
        OSError: The function failed for another reason.
    """
    deadline = time.monotonic() + DESCRIPTOR_WAIT_S
    while True:
        try:
            return opening()
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
            if time.monotonic() > deadline:
                raise worker_busy() from error
        cancellation.sleep(_DESCRIPTOR_INTERVAL_S)


def is_out_of_descriptors(error: BaseException) -> bool:
    """Return whether an exception, or one that it was raised from, means that there are no free file descriptors."""
    return any(isinstance(cause, OSError) and cause.errno in _NO_DESCRIPTOR for cause in causes(error))


def causes(error: BaseException | None) -> list[BaseException]:
    """Return an exception and all that it was raised from, or raised while handling, outermost first."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
