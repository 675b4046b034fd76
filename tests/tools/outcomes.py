"""Outcomes of an evaluation, made on the spot."""

from typing import Any

from results import Execution, Failure, Outcome


def outcome(id_: str = "a", reference: str = "", hypothesis: str | None = "", **fields: Any) -> Outcome:
    """An outcome; one whose hypothesis is None has failed."""
    given: dict[str, Any] = {
        "audio": "/recordings/a.flac",
        "duration": 10.0,
        "error": Failure("corrupt_audio", "the audio is damaged") if hypothesis is None else None,
        "reference_words": (),
        "hypothesis_words": (),
        "worker_seconds": 1.0,
        "seconds": 2.0,
        "sent": 100.0,
        "executions": (Execution("w", 100.5, 101.5),),
    }
    return Outcome(id=id_, reference=reference, hypothesis=hypothesis, **(given | fields))
