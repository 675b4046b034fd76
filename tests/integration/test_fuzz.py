"""A part of the fuzzing, with the tests; see `make fuzz` for more."""

from pathlib import Path
from typing import Any

import pytest

import fuzz


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_give_samples_or_an_answer(seed: Any, scratch: Path) -> None:
    outcomes = set()
    for name, data in fuzz.mutants(50, seed):
        with fuzz.printed() as said:
            outcome, seconds = fuzz.decode(data)
        assert said == b"", name  # what libraries write would be in the worker's log
        assert seconds < fuzz.LONGEST_S, name
        outcomes.add(outcome)
    assert {"decoded", "corrupt_audio"} <= outcomes
    assert "nothing" not in outcomes
    assert not list(scratch.iterdir())
