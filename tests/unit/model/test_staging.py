"""Padding a batch, and recordings that cannot be copied ahead of it."""

from typing import Any

import numpy as np
import pytest
import torch

from parakeet_worker.model.staging import Staging

CPU = torch.device("cpu")
HOP, SUBSAMPLING = 160, 8
UNIT = 8 * SUBSAMPLING * HOP


def test_a_batch_is_padded_with_zeros() -> None:
    samples, lengths = Staging(CPU).pad([np.ones(2_000, np.float32), np.ones(10, np.float32)])
    assert samples.shape == (2, 2_000)
    assert samples.sum(1).tolist() == [2_000, 10]
    assert lengths.tolist() == [2_000, 1_600]


@pytest.mark.parametrize("length", [1, 1_600, UNIT - 1, UNIT, UNIT + 1, 7 * UNIT - 16, 128_000])
def test_a_batch_for_a_gpu_has_whole_groups_of_encoder_frames(length: int) -> None:
    samples, lengths = Staging(CPU, UNIT).pad([np.ones(length, np.float32)])
    padded = samples.shape[1]
    assert padded % (8 * SUBSAMPLING * HOP) == 0
    assert int(lengths[0]) <= padded
    assert padded - max(length, 1_600) < UNIT, "a group less would do"


def test_a_recording_that_cannot_be_copied_stays_on_the_host() -> None:
    """Without a GPU no memory can be pinned, as with one that has none left."""
    staging: Any = Staging(CPU)
    staging._copies = object()
    recording = np.ones(2_000, np.float32)
    with pytest.raises(RuntimeError):
        torch.from_numpy(recording).pin_memory()
    assert staging.stage(recording) is recording
    samples, _ = staging.pad([recording])
    assert samples.sum() == 2_000
