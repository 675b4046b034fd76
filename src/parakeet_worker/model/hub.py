"""Getting a `.nemo` file from the Hugging Face hub: one revision of one file, checked against its SHA-256.

python -m parakeet_worker.model.hub nvidia/parakeet-tdt-0.6b-v2 --to downloads
"""

import argparse
import itertools
import os
import re
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from parakeet_worker.model.card import sha256
from parakeet_worker.retry import backoff_s, retry_after_s

if TYPE_CHECKING:
    import httpx2

_FIRST_WAIT_S, _LONGEST_WAIT_S = 2.0, 120.0
"""The first wait between two attempts at most, and any later one; a hub that asks for more is given more."""

_MOST_WAITING_S = 600.0
"""All waits together, in seconds. The hub counts requests in windows of five minutes; RunPod ends a build after 30."""

_MOST_WAITING_UNCONNECTED_S = 60.0
"""All waits together where the connection fails: the hub's client has tried six times before it says so."""


class HubError(Exception):
    """A file of the hub could not be had, or is not the one that was pinned."""


class _UnavailableError(Exception):
    """The hub could not serve a request, and may be able to later.

    Args:
        reason: What it said, or what failed.
        after_s: How many seconds it asks to wait.
        most_waiting_s: How many seconds to wait for it, all attempts together.
    """

    def __init__(self, reason: str, after_s: float = 0.0, most_waiting_s: float = _MOST_WAITING_S) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.most_waiting_s = most_waiting_s


@dataclass(frozen=True)
class Pin:
    """One version of one model file.

    Attributes:
        name: The repository, such as `nvidia/parakeet-tdt-0.6b-v2`.
        file: The file in it.
        revision: The commit, 40 hexadecimal digits. A branch or a tag could move.
        sha256: SHA-256 of the file, in hexadecimal.
    """

    name: str
    file: str
    revision: str
    sha256: str

    def __post_init__(self) -> None:
        """Refuse what would not pin anything.

        Raises:
            ValueError: The revision is no commit, or the checksum no SHA-256.
        """
        if not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError("the revision must be a commit of 40 hexadecimal digits")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError("the checksum must be a SHA-256 of 64 hexadecimal digits")


PARAKEET_TDT_0_6B_V2 = Pin(
    name="nvidia/parakeet-tdt-0.6b-v2",
    file="parakeet-tdt-0.6b-v2.nemo",
    revision="ae9ad07059c7c739ffaf932226a8fe64ae2620b0",
    sha256="d99e39955c9d3d0350d8fb7c75e40c64a2b2eaeb003883d7c941fd2e8747b28c",
)
"""What production bakes. The checksum is the one that the hub's tree API gives for the file (`lfs.oid`)."""


def is_local(source: str) -> bool:
    """Say whether a model's source is a file or a directory here, rather than a name on the hub."""
    return source.endswith(".nemo") or Path(source).exists()


def find_pin(name: str, revision: str | None = None, checksum: str | None = None, file: str | None = None) -> Pin:
    """Say which version of which file is meant.

    Args:
        name: The repository.
        revision: The commit; known of the default model.
        checksum: SHA-256 of the file; known of the default model.
        file: The file; where it is None, named as the repository.

    Raises:
        HubError: That pins nothing.
    """
    known = PARAKEET_TDT_0_6B_V2
    if name == known.name and not revision and not checksum:
        return known
    if not revision or not checksum:
        raise HubError("a Hugging Face model needs --revision and --sha256, both or neither for " + known.name)
    try:
        return Pin(name, file or f"{name.split('/')[-1]}.nemo", revision, checksum)
    except ValueError as error:
        raise HubError(str(error)) from error


def download(pin: Pin, directory: Path) -> Path:
    """Download a pinned file into `directory`, with a progress bar, and return its path.

    A file that is there already, from an earlier call, is not downloaded again. A hub that is busy (408, 429, 5xx) or
    cannot be reached is asked again after waits that grow, and not before it says (`Retry-After`, `RateLimit`). Any
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
    found = sha256(path)
    if found != pin.sha256:
        path.unlink()
        raise HubError(f"{pin.file} has the SHA-256 {found}, not {pin.sha256}: it is not the pinned file")
    return path


def _fetch(pin: Pin, directory: Path) -> Path:
    """Make one attempt at a download; the next one goes on where it ended.

    Raises:
        _UnavailableError: Another attempt may succeed.
        HubError: None will. The message holds no URL: the hub redirects to signed ones.
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
    """Stop at an answer that may be another one later.

    The hub's client would ask again by itself, but not for every status, either for 23 seconds or for as long as the
    hub says, however long, and it does not understand a date.

    Raises:
        _UnavailableError: It is such an answer.
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


def main(arguments: list[str] | None = None) -> None:
    """Download a model ahead of its bake, for an image whose download is a layer of its own; see `--help`."""
    parser = argparse.ArgumentParser(prog="python -m parakeet_worker.model.hub", description="Download a .nemo file.")
    parser.add_argument("source", help="a Hugging Face model; of a path here there is nothing to download")
    parser.add_argument("--to", type=Path, required=True, help="the directory for it")
    parser.add_argument("--revision", help="commit of the model (40 digits); known for the default model")
    parser.add_argument("--sha256", help="checksum of the file; known for the default model")
    options = parser.parse_args(arguments)
    if is_local(options.source):
        return
    try:
        download(find_pin(options.source, options.revision, options.sha256), options.to)
    except HubError as error:
        sys.exit(f"hub: {error}")


if __name__ == "__main__":
    main()
