import pytest

from training.segments import Segment, are_spoken_as_written, word_times

PAUSES = frozenset({"pau"})


def test_word_is_its_first_to_its_last_phoneme() -> None:
    segments = [
        Segment("pau", 0.2, None),
        Segment("ax", 0.25, 0),
        Segment("b", 0.3, 1),
        Segment("l", 0.4, 1),
        Segment("pau", 0.7, None),
        Segment("iy", 0.9, 2),
        Segment("pau", 1.0, None),
    ]
    assert word_times(segments, 3, PAUSES) == [(0.2, 0.25), (0.25, 0.4), (0.7, 0.9)]


def test_added_phoneme_belongs_to_the_word_before_it() -> None:
    segments = [Segment("er", 0.2, 0), Segment("r", 0.3, None), Segment("ax", 0.5, 1)]
    assert word_times(segments, 2, PAUSES) == [(0.0, 0.3), (0.3, 0.5)]


@pytest.mark.parametrize(
    "segments",
    [
        [Segment("ax", 0.2, 0)],
        [Segment("ax", 0.2, 1), Segment("b", 0.3, 0)],
        [Segment("ax", 0.2, None), Segment("b", 0.3, 0), Segment("b", 0.4, 1)],
        [Segment("ax", 0.2, 0), Segment("b", 0.3, 1), Segment("b", 0.4, 2)],
        [Segment("ax", 0.2, 0), Segment("b", 0.3, 1), Segment("ax", 0.4, 0)],
    ],
    ids=["missing", "order", "nobody's", "too many", "back"],
)
def test_segments_of_other_words_are_refused(segments: list[Segment]) -> None:
    assert word_times(segments, 2, PAUSES) is None


def test_parts_of_a_word_are_the_word() -> None:
    assert are_spoken_as_written(["John's", "dog,", "isn't."], [["john", "'s"], ["dog"], ["isnt"]])


@pytest.mark.parametrize("spoken", [[["street"]], [["s"], ["t"]], [[]], []])
def test_other_words_are_noticed(spoken: list[list[str]]) -> None:
    assert not are_spoken_as_written(["St."], spoken)
