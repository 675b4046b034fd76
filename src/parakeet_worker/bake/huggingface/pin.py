"""Pins of files on the Hugging Face hub: a commit and a checksum, so that the file can never change."""

import re
from dataclasses import dataclass
from pathlib import Path


class HubError(Exception):
    """A file could not be downloaded from the hub, or is not the pinned one."""


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
        """Check the revision and the checksum.

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
"""The model of the production image. The checksum is the one that the hub's tree API gives for the file (`lfs.oid`)."""


def is_local(source: str) -> bool:
    """Return whether a model's source is a local file or directory rather than a name on the hub."""
    return source.endswith(".nemo") or Path(source).exists()


def find_pin(name: str, revision: str | None = None, checksum: str | None = None, file: str | None = None) -> Pin:
    """Return the pin for command line options.

    Args:
        name: The repository.
        revision: The commit; may be omitted for the default model.
        checksum: SHA-256 of the file; may be omitted for the default model.
        file: The file; where it is None, named as the repository.

    Raises:
        HubError: The revision or the checksum is missing or malformed.
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
