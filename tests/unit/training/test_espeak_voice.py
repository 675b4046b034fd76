import pytest

from training.espeak_voice import event_times
from training.espeak_worker import PHONEME, WORD

# "The children, left": words at the characters 1, 5 and 15.
WORDS = ["The", "children,", "left"]
EVENTS = [
    (WORD, 1, 0, ""),
    (PHONEME, 1, 0, "D"),
    (WORD, 5, 100, ""),
    (PHONEME, 5, 110, "tS"),
    (PHONEME, 12, 300, "_:"),
    (PHONEME, 12, 340, "_"),
    (WORD, 15, 400, ""),
    (PHONEME, 15, 400, "l"),
]


def test_pauses_belong_to_no_word() -> None:
    assert event_times(EVENTS, WORDS, 600) == [(0, 100), (100, 300), (400, 600)]
    with_pause = [*EVENTS, (PHONEME, 19, 550, "_:")]
    assert event_times(with_pause, WORDS, 600) == [(0, 100), (100, 300), (400, 550)]


@pytest.mark.parametrize("missing", [0, 2, 6])
def test_word_without_an_event_is_noticed(missing: int) -> None:
    assert event_times(EVENTS[:missing] + EVENTS[missing + 1 :], WORDS, 600) is None


def test_word_too_many_is_noticed() -> None:
    assert event_times([*EVENTS, (WORD, 20, 500, "")], WORDS, 600) is None
