"""What is kept of a job for its line in the log. No URL and no word of a transcript is in it."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from parakeet_worker.log import json_line
from parakeet_worker.model.engine import Heard

SUCCESS = "ok"
CANCELLED = "cancelled"


@dataclass
class Record:
    """One job, filled in as it goes along by whichever thread has it.

    Attributes:
        clock: Seconds that never go back.
        action: What was asked for; empty where the request is not valid.
        code: `ok`, `cancelled`, or the code of the failure.
        error: What the caller is told of a failure.
        audio_s: Length of the recording in seconds.
        stages: Seconds spent on `download` and `decode`; in `queue`, the longest that one of its windows waited for a
            batch; on the `model`, all batches with a window of it. A long recording does several at once.
        batch: Windows in the largest batch with one of its own.
    """

    clock: Callable[[], float] = time.monotonic
    action: str = ""
    code: str = SUCCESS
    error: str = ""
    audio_s: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    batch: int | None = None

    def __post_init__(self) -> None:
        """Begin to count."""
        self._started = self.clock()

    @property
    def seconds(self) -> float:
        """How long the job has taken until now."""
        return self.clock() - self._started

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Count what is within as a part of a stage, however it ends."""
        began = self.clock()
        try:
            yield
        finally:
            self.add(stage, self.clock() - began)

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds as a part of a stage."""
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def hear(self, windows: Iterable[Heard]) -> None:
        """Keep what the engine says of the windows of the recording."""
        heard = list(windows)
        self.stages["queue"] = max(window.started - window.queued for window in heard)
        self.stages["model"] = sum(ended - started for started, ended in {(w.started, w.ended) for w in heard})
        self.batch = max(window.batch for window in heard)

    def fields(self) -> dict[str, Any]:
        """Return what is known, for a machine: seconds in milliseconds' precision, under names that end in `_s`."""
        seconds = self.seconds
        given: dict[str, Any] = {
            "action": self.action or None,
            "code": self.code,
            "error": self.error or None,
            "audio_s": self.audio_s,
            "seconds": seconds,
            **{f"{stage}_s": spent for stage, spent in self._spent()},
            "batch": self.batch,
            "rtfx": self.audio_s / seconds if self.audio_s and self.code == SUCCESS else None,
        }
        known = {name: value for name, value in given.items() if value is not None}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in known.items()}

    def __str__(self) -> str:
        """Say it in a line: `transcribe ok: 8.000 s of audio in 0.210 s (RTFx 38), download 0.050 s, …, batch 12`."""
        known = self.fields()
        said = " ".join(filter(None, [self.action, self.code]))
        if self.error:
            said += f" ({self.error})"
        audio = f"{self.audio_s:.3f} s of audio in " if self.audio_s is not None else ""
        rtfx = f" (RTFx {known['rtfx']:.0f})" if "rtfx" in known else ""
        parts = [f"{audio}{known['seconds']:.3f} s{rtfx}"]
        parts += [f"{stage} {spent:.3f} s" for stage, spent in self._spent()]
        if self.batch is not None:
            parts.append(f"batch {self.batch}")
        return f"{said}: {', '.join(parts)}"

    def _spent(self) -> list[tuple[str, float]]:
        """Return the stages, in one step: the thread of a cancelled job may still be adding to them."""
        return list(self.stages.items())

    def as_json(self, job_id: object, level: str) -> str:
        """Return the line as a JSON object; see `json_line`."""
        return json_line(str(self), level, job_id, self.fields())
