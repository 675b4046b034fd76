"""Fetching the file of an `audio_url`: guarded downloads, `data:` URLs, temporary files."""
