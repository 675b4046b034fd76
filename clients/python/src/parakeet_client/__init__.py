"""A client of the Parakeet speech-to-text worker on RunPod."""

from parakeet_client.client import Client, Task
from parakeet_client.contract import (
    BoostedTerm,
    CaptionLimits,
    ModelInfo,
    Options,
    Source,
    Span,
    Transcript,
    TranscriptionError,
)
from parakeet_client.endpoint import Pace

__all__ = [
    "BoostedTerm",
    "CaptionLimits",
    "Client",
    "ModelInfo",
    "Options",
    "Pace",
    "Source",
    "Span",
    "Task",
    "Transcript",
    "TranscriptionError",
]
