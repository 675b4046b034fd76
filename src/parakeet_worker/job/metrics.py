"""Metrics of a job, for its line in the log. They hold no URL and no word of a transcript."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from parakeet_worker.asr.types import WindowResult
from parakeet_worker.stage_timer import StageTimer

SUCCESS = "ok"
CANCELLED = "cancelled"


class JobMetrics:
    """Metrics of one job, filled in by whichever thread works for it.

    Args:
        clock: Returns seconds that never go back.

    Attributes:
        action: The requested action; empty if the request is not valid.
        code: `ok`, `cancelled`, or the code of the failure.
        error: Message of the failure.
        audio_s: Length of the recording in seconds.
        timer: Seconds of `download` and `decode`; of `queue`, the longest wait of one of the job's windows;
            of `model`, all batches with a window of the job. These overlap for a long recording.
        batch: Number of windows in the largest batch with one of the job's own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.action = ""
        self.code = SUCCESS
        self.error = ""
        self.audio_s: float | None = None
        self.timer = StageTimer(clock)
        self.batch: int | None = None

    def add_windows(self, results: Iterable[WindowResult]) -> None:
        """Add the stages `queue` and `model`, and the batch, from the results of the job's windows, if it has any."""
        windows = list(results)
        if not windows:
            return
        batches = {(window.started, window.ended) for window in windows}
        self.timer.add("queue", max(window.started - window.queued for window in windows))
        self.timer.add("model", sum(ended - started for started, ended in batches))
        self.batch = max(window.batch for window in windows)

    def fields(self) -> dict[str, Any]:
        """Return the known metrics as JSON fields. Names that end in `_s` are seconds, rounded to milliseconds."""
        seconds = self.timer.elapsed
        given: dict[str, Any] = {
            "action": self.action or None,
            "code": self.code,
            "error": self.error or None,
            "audio_s": self.audio_s,
            "seconds": seconds,
            **{f"{stage}_s": spent for stage, spent in self._stages()},
            "batch": self.batch,
            "rtfx": self.audio_s / seconds if self.audio_s and self.code == SUCCESS else None,
        }
        known = {name: value for name, value in given.items() if value is not None}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in known.items()}

    def __str__(self) -> str:
        """Return the line of the log: `transcribe ok: 8.000 s of audio in 0.210 s (RTFx 38), download 0.050 s, …`."""
        known = self.fields()
        outcome = " ".join(filter(None, [self.action, self.code]))
        if self.error:
            outcome += f" ({self.error})"
        audio = f"{self.audio_s:.3f} s of audio in " if self.audio_s is not None else ""
        rtfx = f" (RTFx {known['rtfx']:.0f})" if "rtfx" in known else ""
        parts = [f"{audio}{known['seconds']:.3f} s{rtfx}"]
        parts += [f"{stage} {spent:.3f} s" for stage, spent in self._stages()]
        if self.batch is not None:
            parts.append(f"batch {self.batch}")
        return f"{outcome}: {', '.join(parts)}"

    def _stages(self) -> list[tuple[str, float]]:
        # In one step: the thread of a cancelled job may still be adding stages.
        return list(self.timer.seconds.items())
