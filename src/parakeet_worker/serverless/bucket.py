"""A bucket for whole results that are larger than the platform takes, filled by the upload of RunPod's SDK."""

import asyncio
import logging
import secrets
import tempfile
from pathlib import Path
from typing import Any

from runpod import RunPodLogger
from runpod.serverless.utils import upload_file_to_bucket

from parakeet_worker.job.response import json_pieces
from parakeet_worker.job.threads import Threads
from parakeet_worker.serverless.envelope import Envelope
from parakeet_worker.serverless.job_ids import loggable_id

# Longest time that a job waits for its upload. The SDK sets no limit; boto3's own allow several minutes.
UPLOAD_S = 60.0

# The open files of this process, by their descriptors. Each can be opened again here.
_DESCRIPTORS = Path("/proc/self/fd")

# Uploads at a time, including those that no job waits for any more.
_MOST_UPLOADS = 64

# The SDK shows a progress bar for each upload.
logging.getLogger("tqdm_loggable.tqdm_logging").setLevel(logging.WARNING)

_log = RunPodLogger()


class Bucket:
    """Puts results into an S3 bucket.

    Args:
        endpoint_url: Address of the storage.
        access_key_id: Key of an account that may write to the bucket and read from it.
        secret_access_key: Its secret.
        name: Name of the bucket, or empty for the SDK's default, the month and the year.
        timeout_s: Longest time that a job waits for its upload, in seconds.
    """

    def __init__(
        self,
        endpoint_url: str,
        access_key_id: str,
        secret_access_key: str,
        name: str = "",
        timeout_s: float = UPLOAD_S,
    ) -> None:
        self._credentials = {
            "endpointUrl": endpoint_url,
            "accessId": access_key_id,
            "accessSecret": secret_access_key,
        }
        self._name = name
        self._timeout_s = timeout_s
        self._threads = Threads("upload", _MOST_UPLOADS)

    async def store(self, job_id: object, envelope: Envelope) -> str | None:
        """Put the answer of a job into the bucket as JSON.

        Args:
            job_id: The job's id.
            envelope: The answer.

        Returns:
            The address from which anyone can download it for seven days, or None if the upload failed. The reason is
            logged.
        """
        try:
            upload = self._threads.run(self._upload, job_id, envelope)
            return await asyncio.wait_for(asyncio.wrap_future(upload), self._timeout_s)
        except TimeoutError:
            reason = f"it took longer than {self._timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - the job has its answer without the bucket
            reason = _describe(error)
        _log.error(f"The whole result could not be put into the bucket: {reason}.", loggable_id(job_id))
        return None

    def _upload(self, job_id: object, envelope: Envelope) -> str:
        # Takes a fifth of a second, which the worker's start does not have. Without it the SDK would write the result
        # to a local directory and return the path.
        import boto3  # noqa: F401

        # On Linux it has no name: with one, a worker that is killed would leave it, and the transcript in it.
        is_nameless = _DESCRIPTORS.exists()
        with tempfile.TemporaryFile() if is_nameless else tempfile.NamedTemporaryFile() as file:
            file.writelines(json_pieces(envelope))
            file.flush()
            url: str = upload_file_to_bucket(
                # Nobody can guess the address, and a job that is done twice does not write over its first result.
                f"{secrets.token_hex(16)}.json",
                str(_DESCRIPTORS / str(file.fileno())) if is_nameless else file.name,
                self._credentials,
                self._name or None,
                prefix=loggable_id(job_id) or "result",
                extra_args={"ContentType": "application/json"},
            )
        return url


def _describe(error: BaseException) -> str:
    """Return the name of an exception and the storage's own code. The text could hold addresses and keys."""
    code: Any = None
    cause: BaseException | None = error
    while cause is not None and code is None:
        # boto3 raises an exception of its own for that of botocore, which has the answer of the storage.
        code = getattr(cause, "response", {}).get("Error", {}).get("Code")
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__} {code}" if isinstance(code, str) else type(error).__name__
