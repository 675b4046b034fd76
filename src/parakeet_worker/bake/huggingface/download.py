"""Downloading one version of one file from the Hugging Face hub, checked against its SHA-256."""

import hashlib
import itertools
import os
import sys
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from parakeet_worker.bake.huggingface.pin import HubError, Pin
from parakeet_worker.http.retry import backoff_s, retry_after_s

if TYPE_CHECKING:
    import httpx2

_FIRST_WAIT_S, _LONGEST_WAIT_S = 2.0, 120.0
"""Longest first wait and longest later wait between two attempts, in seconds, unless the hub asks for more."""

_MOST_WAITING_S = 600.0
"""All waits together, in seconds. The hub counts requests in windows of five minutes; RunPod ends a build after 30."""

_MOST_WAITING_UNCONNECTED_S = 60.0
"""All waits together where the connection fails: the hub's client itself has tried six times by then."""


class _UnavailableError(Exception):
    """The hub could not serve a request, and may be able to later.

    Args:
        reason: The status, or what failed.
        after_s: Seconds that the hub asks to wait.
        most_waiting_s: Longest wait of all attempts together, in seconds.
    """

    def __init__(self, reason: str, after_s: float = 0.0, most_waiting_s: float = _MOST_WAITING_S) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.most_waiting_s = most_waiting_s


def download(pin: Pin, directory: Path) -> Path:
    """Download a pinned file into `directory`, with a progress bar, and return its path.

    A file that is there already, from an earlier call, is not downloaded again. A hub that is busy (408, 429, 5xx) or
    cannot be reached is asked again, after growing waits or those that it asks for (`Retry-After`, `RateLimit`). Any
    other status is final.

    `HF_ENDPOINT` names another hub, `HF_TOKEN` a token for it, as everywhere in Hugging Face's tools.

    Raises:
        HubError: The hub cannot be reached, does not have the file, stayed busy, or sent other bytes.
    """
    what = f"{pin.file} of {pin.name} at {pin.revision[:12]}"
    waited = 0.0
    for attempt in itertools.count(1):
        try:
            path = _fetch(pin, directory)
            break
        except HubError as error:
            raise HubError(f"{what} could not be downloaded: {error}") from error
        except _UnavailableError as error:
            wait = max(error.after_s, backoff_s(attempt, _FIRST_WAIT_S, _LONGEST_WAIT_S))
            if waited + wait > error.most_waiting_s:
                raise HubError(
                    f"{what} could not be downloaded (attempt {attempt}): {error}; the next would be in {wait:.0f} s"
                ) from error
            tqdm.write(f"hub: {error}; trying again in {wait:.0f} s", file=sys.stderr)
        time.sleep(wait)
        waited += wait
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != pin.sha256:
        path.unlink()
        raise HubError(f"{pin.file} has the SHA-256 {found}, not {pin.sha256}: it is not the pinned file")
    return path


def _fetch(pin: Pin, directory: Path) -> Path:
    """Make one attempt at a download. The next attempt resumes it.

    Raises:
        _UnavailableError: Another attempt may succeed.
        HubError: No attempt will succeed. The message holds no URL: the hub redirects to signed ones.
    """
    # The hub's own client switches to a transfer protocol that needs further hosts; plain HTTPS reaches everywhere.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Its warnings hold URLs.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    from httpx2 import HTTPError, TransportError
    from huggingface_hub import get_session, hf_hub_download
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

    get_session().event_hooks["response"] = [_check_status]
    try:
        return Path(hf_hub_download(pin.name, pin.file, revision=pin.revision, local_dir=directory, tqdm_class=tqdm))
    except (HTTPError, OSError) as error:
        # The file is not here already, and asking the hub for it failed: how is the cause.
        failed = error.__cause__ or error if isinstance(error, LocalEntryNotFoundError) else error
        if isinstance(failed, TransportError):
            reason = f"the connection failed ({type(failed).__name__})"
            raise _UnavailableError(reason, most_waiting_s=_MOST_WAITING_UNCONNECTED_S) from error
        if isinstance(failed, HfHubHTTPError):
            raise HubError(_refusal(failed.response.status_code)) from error
        if isinstance(failed, FileMetadataError):
            raise HubError("the answer is not a Hugging Face hub's: it lacks the commit or the ETag") from error
        raise HubError(type(failed).__name__ if isinstance(failed, HTTPError) else str(failed)) from error


def _check_status(response: "httpx2.Response") -> None:
    """Raise for a status that may pass: 408, 429 or 5xx.

    The hub's client would retry by itself, but not for every such status, either for 23 seconds or for however long the
    hub asks, and it does not parse a date.

    Raises:
        _UnavailableError: The status may pass.
    """
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    status = response.status_code
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        limit = parse_ratelimit_headers(response.headers)
        # Whole seconds, rounded down.
        window_s = limit.reset_in_seconds + 1.0 if limit and limit.remaining == 0 else 0.0
        reason = "the hub answers 429, too many requests from this address; with an HF_TOKEN it allows more"
        raise _UnavailableError(reason, retry_after_s(response.headers.get("Retry-After")) or window_s)
    if status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        reason = f"the hub answers {status}"
        raise _UnavailableError(reason, retry_after_s(response.headers.get("Retry-After")) or 0.0)


def _refusal(status: int) -> str:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"the hub answers {status}; HF_TOKEN must be a token that may read this model"
    return f"the hub answers {status}"
