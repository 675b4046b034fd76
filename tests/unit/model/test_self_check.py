"""The check of a loaded model with the bundled clip, and its warm-up."""

from functools import partial
from itertools import accumulate
from typing import Any

import pytest
import torch

from parakeet_worker.asr.types import BatchTime
from parakeet_worker.model.self_check import SelfCheckError, check_transcript, warm_up, word_agreement
from recognizers import Hears

SENTENCE = "The children must learn to reason."


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


def warmed_up(*seconds: float, batch_seconds: float = 2_000) -> tuple[Hears, list[BatchTime]]:
    """Warm up a device on which batches take so many seconds."""
    recognizer, ticks = Hears(""), accumulate(second for each in seconds for second in (0.0, each))
    recognizer.batch_seconds = batch_seconds
    return recognizer, warm_up(recognizer, partial(next, ticks))


def test_a_gpu_is_warmed_up_with_batches_up_to_a_large_one() -> None:
    recognizer, times = warmed_up(0.045, 0.046, 0.047, 0.049, 0.06, batch_seconds=2_000)
    assert recognizer.batches == [[2 * 16_000], *([8 * 16_000] * count for count in (1, 4, 16, 64))]
    assert [(time.windows, time.longest) for time in times] == [(1, 2), (1, 8), (4, 8), (16, 8), (64, 8)]
    assert [time.seconds for time in times] == pytest.approx([0.045, 0.046, 0.047, 0.049, 0.06])


def test_a_slow_device_is_not_kept_busy_by_its_warm_up() -> None:
    assert [time.windows * time.longest for time in warmed_up(0.013, 0.027, 0.052)[1]] == [2, 8, 32]
    assert [time.windows * time.longest for time in warmed_up(0.25)[1]] == [2]


def test_the_warm_up_takes_no_more_memory_than_there_is() -> None:
    _, times = warmed_up(0.045, 0.046, 0.047, 0.049, batch_seconds=500)
    assert [time.windows * time.longest for time in times] == [2, 8, 32, 128]


def test_a_warm_up_that_finds_no_memory_is_cut_short() -> None:
    class Full(Hears):
        batch_seconds = 2_000.0

        def hear(self, batch: Any) -> Any:
            if len(batch) > 4:
                raise torch.OutOfMemoryError
            return super().hear(batch)

    ticks = accumulate([0.0, 0.02] * 5)
    assert [time.windows for time in warm_up(Full(""), partial(next, ticks))] == [1, 1, 4]
