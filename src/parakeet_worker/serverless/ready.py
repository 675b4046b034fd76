"""The line of the log that describes a worker when it is ready."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Ready:
    """A worker that is ready for its first job.

    Attributes:
        model: The model's name.
        revision: Which bake of the model it is; empty if unknown.
        worker: The worker's version.
        device: `cpu`, or the name of the GPU.
        precision: The arithmetic of matrix products.
        engine: `plain` or `nemo`.
        graphs: Number of CUDA graphs; without any, batches run eagerly.
        concurrency: Jobs that are taken at a time, if the limit on open files allows it.
        batch_limit_s: Longest batch that the memory holds, or PARAKEET_BATCH_SECONDS, in padded seconds.
        ready_s: Seconds that loading took.
        stages: Seconds of each of its stages.
    """

    model: str
    revision: str
    worker: str
    device: str
    precision: str
    engine: str
    graphs: int
    concurrency: int
    batch_limit_s: int
    ready_s: float
    stages: Mapping[str, float]

    def fields(self) -> dict[str, Any]:
        """Return the JSON fields of the line, with the seconds of each stage under its name."""
        fields = {"event": "ready", **asdict(self)}
        stages = fields.pop("stages")
        return fields | {f"{stage.replace('-', '_')}_s": round(seconds, 2) for stage, seconds in stages.items()}

    def __str__(self) -> str:
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.stages.items())
        graphs = f"with {self.graphs} CUDA graphs" if self.graphs else "eager"
        revision = f", model {self.revision}" if self.revision else ""
        return (
            f"{self.model} is ready after {self.ready_s:.2f} s: {stages}; on {self.device} in {self.precision}, "
            f"{self.engine} engine, {graphs}, {self.concurrency} jobs at a time, "
            f"batches of {self.batch_limit_s} s at most{revision}, worker {self.worker}."
        )
