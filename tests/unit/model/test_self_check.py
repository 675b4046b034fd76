"""The check of a loaded model with the bundled clip, and its warm-up."""

from typing import Any

import pytest

from parakeet_worker.model.self_check import SelfCheckError, check_transcript, warm_up, word_agreement
from recognizers import SENTENCE, Hears


@pytest.mark.parametrize("text", [SENTENCE, "The children must learn to season."])
def test_a_model_that_hears_the_clip_is_fit(text: Any) -> None:
    check_transcript(Hears(text), SENTENCE)


@pytest.mark.parametrize("text", ["", "mm mm mm", "reason to learn must children The"])
def test_a_model_that_hears_something_else_is_not(text: Any) -> None:
    with pytest.raises(SelfCheckError, match="for the bundled clip, instead of 'The children must"):
        check_transcript(Hears(text), SENTENCE)
    check_transcript(Hears(text), None)  # one that has not learned to transcribe


def test_agreement_is_between_nothing_and_everything() -> None:
    assert word_agreement("a b c", "a b c") == 1
    assert word_agreement("d", "a b c") == 0
    assert word_agreement("", "") == 1
    assert word_agreement("a c", "a b c") == pytest.approx(0.8)


def test_the_device_is_warmed_up_with_a_usual_batch() -> None:
    recognizer = Hears("")
    warm_up(recognizer)
    assert recognizer.batches == [[8 * 16_000] * 16]
