"""The comparison of the plain engine with NeMo: what is equal, and the first difference by name."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from parakeet_worker.asr.types import Hypothesis, Token
from parakeet_worker.bake.prove import compare
from recognizers import FakeRecognizer

HEARD = [
    Hypothesis("no way", (Token("▁no", 0.08, 0.16), Token("▁way", 0.24, 0.4))),
    Hypothesis("yes", (Token("▁yes", 0.08, 0.16),)),
]
RECORDINGS = [np.zeros(8_000, np.float32), np.zeros(16_000, np.float32)]


class Repeats(FakeRecognizer):
    """A recognizer that hears what it is told to by the length of a recording, in batches maybe something else."""

    def __init__(self, alone: list[Hypothesis], together: list[Hypothesis]) -> None:
        self.alone, self.together = alone, together

    def hear(self, batch: Any) -> list[Hypothesis]:
        heard = self.alone if len(batch) == 1 else self.together
        return [heard[len(signal) // 8_000 - 1] for signal in batch]


def test_equal_engines_have_no_difference() -> None:
    assert compare(Repeats(HEARD, []), Repeats(HEARD, HEARD), RECORDINGS) is None


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Hypothesis("yes", (Token("▁yes", 0.08, 0.24),)), "token 1 is '▁yes' at 0.08 to 0.24 s, NeMo's is"),
        (Hypothesis("yes", (Token("▁yes", 0.0, 0.16),)), "token 1 is '▁yes' at 0.00 to 0.16 s"),
        (Hypothesis("no", (Token("▁no", 0.08, 0.16),)), "token 1 is '▁no'"),
        (Hypothesis("yes", ()), "token 1 is the end, NeMo's is '▁yes'"),
        (Hypothesis("yes.", (*HEARD[1].tokens, Token(".", 0.16, 0.16))), "token 2 is '.' at 0.16 to 0.16 s"),
        (replace(HEARD[1], text="Yes"), "the text is 'Yes', NeMo's is 'yes'"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(other: Hypothesis, said: str) -> None:
    different = [HEARD[0], other]
    found = compare(Repeats(HEARD, []), Repeats(different, HEARD), RECORDINGS)
    assert found is not None
    assert found.startswith(f"recording 2 alone: {said}")
    found = compare(Repeats(HEARD, []), Repeats(HEARD, different), RECORDINGS)
    assert found is not None
    assert found.startswith(f"recording 2 in a batch: {said}")
