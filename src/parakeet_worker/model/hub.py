"""Getting a `.nemo` file from the Hugging Face hub: one revision of one file, checked against its SHA-256.

python -m parakeet_worker.model.hub nvidia/parakeet-tdt-0.6b-v2 --to downloads
"""

import argparse
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from parakeet_worker.model.card import sha256


class HubError(Exception):
    """A file of the hub could not be had, or is not the one that was pinned."""


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

    A file that is there already, from an earlier call, is not downloaded again.

    `HF_ENDPOINT` names another hub, `HF_TOKEN` a token for it, as everywhere in Hugging Face's tools.

    Raises:
        HubError: The hub cannot be reached, does not have the file, or sent other bytes.
    """
    # The hub's own client switches to a transfer protocol that needs further hosts; plain HTTPS reaches everywhere.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(pin.name, pin.file, revision=pin.revision, local_dir=directory, tqdm_class=tqdm))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise HubError(f"{pin.file} of {pin.name} at {pin.revision[:12]} could not be downloaded: {error}") from error
    found = sha256(path)
    if found != pin.sha256:
        path.unlink()
        raise HubError(f"{pin.file} has the SHA-256 {found}, not {pin.sha256}: it is not the pinned file")
    return path


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
