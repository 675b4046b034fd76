"""From an `audio_url` to samples."""
