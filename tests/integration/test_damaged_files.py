"""Damaged files, of every format."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_files import decode, encode, tone
from parakeet_worker.errors import JobError

GOOD = {container: encode(tone(0.3), container=container) for container in ("WAV", "FLAC")}


@settings(max_examples=500)
@given(
    st.sampled_from(["WAV", "FLAC"]),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), max_size=5),
    st.integers(0, 12_000),
)
def test_damaged_files_give_samples_or_a_refusal(container: Any, edits: Any, length: Any) -> None:
    data = bytearray(GOOD[container])
    for place, patch in edits:
        data[place : place + len(patch)] = patch
    try:
        audio = decode(bytes(data[:length]))
    except JobError as error:
        assert error.message
    else:
        assert np.isfinite(audio.samples).all()
        assert audio.duration > 0
