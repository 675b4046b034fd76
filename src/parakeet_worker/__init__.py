"""NVIDIA Parakeet speech-to-text as a RunPod serverless worker."""

__version__ = "0.1.0"
