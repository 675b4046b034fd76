"""What a folder has results of. Results are only added to others of the same recordings, target and model."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from targets import fingerprint

# Workers of an endpoint may have several devices.
_SAME = ("model", "version", "engine", "precision")


class OutputError(Exception):
    """The folder for the results cannot be used. The message says why, and what to do."""


class Origin:
    """What a folder has results of, in a file: recordings, target and model.

    Args:
        path: The file.
        source: What is transcribed now, by name.
        place: Tells it from others of that name: the name of a set, or the absolute path of a manifest.
        target: What transcribes it.
        is_new: Whether what the file says is discarded.

    Raises:
        OutputError: The folder has results of other recordings, or of another target or model.
    """

    def __init__(self, path: Path, source: str, place: str, target: str, *, is_new: bool = False) -> None:
        self._path = path
        if Path(place).is_absolute():
            # So that a folder can be moved together with what it is about.
            place = Path(os.path.relpath(place, path.parent.resolve())).as_posix()
        self._now = {"recordings": place, "target": target, "weights": fingerprint(target)}
        self.source = source
        self.target = target
        self.model: Mapping[str, str] = {}
        if path.exists() and not is_new:
            self._read()

    def _read(self) -> None:
        try:
            before = json.loads(self._path.read_text(encoding="utf-8"))
            self.model = dict(before["model"])
            changed = [field for field in self._now if before[field] != self._now[field]]
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{self._path.name}, in the folder for the results, is damaged: use --restart") from error
        if changed:
            raise OutputError(_other(changed))

    def take(self, model: Mapping[str, str]) -> None:
        """Note what the target says of its model.

        Raises:
            OutputError: The folder has results of another one.
        """
        if self.model and (changed := [field for field in _SAME if self.model.get(field) != model.get(field)]):
            raise OutputError(_other(changed))
        self.model = model
        # A full disk must not leave half a file: the results would be lost with it.
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._now | {"model": model}, indent=2) + "\n", encoding="utf-8")
        partial.replace(self._path)


def _other(changed: Sequence[str]) -> str:
    return f"the folder has results with other {' and '.join(changed)}: use --restart, or another folder with --output"
