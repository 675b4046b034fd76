"""From an `audio_url` to samples."""

SAMPLE_RATE = 16_000
"""Samples per second of everything that a model hears."""
