"""NeMo's recognizer: the times of a CTC decoder's tokens."""

from typing import Any

import pytest
import torch

from parakeet_worker.nemo.recognizer import ctc_frames


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([9, 9, 3, 3, 9, 3, 4, 9], ([3, 3, 4], [1, 2, 5], [2, 5, 6])),
        ([3, 3, 9], ([3], [0], [0])),
        ([9, 9], ([], [], [])),
        ([], ([], [], [])),
    ],
)
def test_a_ctc_token_lasts_from_the_one_before_to_its_own_first_frame(labels: Any, expected: Any) -> None:
    assert tuple(each.tolist() for each in ctc_frames(torch.tensor(labels, dtype=torch.int64), 9)) == expected
