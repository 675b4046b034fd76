"""The pieces of a transcript that lines are made of."""

from parakeet_worker.asr.alignment import Span
from parakeet_worker.job.cue_text import Pieces


def test_a_word_that_fits_is_a_piece() -> None:
    pieces = Pieces([Span("One", 0.1234, 1.0), Span("day.", 1.0, 1.5)], 42)
    assert pieces.texts == ["One", "day."]
    assert (pieces.starts, pieces.ends) == ([123, 1000], [1000, 1500])
    assert pieces.offsets == [0, 4, 9]
    assert pieces.length(0, 2) == len(pieces.text(0, 2)) == len("One day.")


def test_a_longer_word_is_cut_and_each_part_has_a_share_of_its_time() -> None:
    pieces = Pieces([Span("abcdefghijklmnopqrstuvwxy", 1.0, 6.0)], 10)
    assert pieces.texts == ["abcdefghij", "klmnopqrst", "uvwxy"]
    assert (pieces.starts, pieces.ends) == ([1000, 3000, 5000], [3000, 5000, 6000])
    assert pieces.costs[1] > pieces.costs[0]


def test_spaces_of_any_kind_are_between_pieces_and_never_in_one() -> None:
    pieces = Pieces([Span(" a\u2028b ", 0.0, 1.0), Span("\x85", 1.0, 1.0), Span("c", 2.0, 3.0)], 10)
    assert pieces.texts == ["a", "b", "c"]


def test_times_ascend() -> None:
    pieces = Pieces([Span("a", 2.0, 5.0), Span("b", 1.0, 0.5), Span("c", 6.0, 5.5)], 10)
    assert (pieces.starts, pieces.ends) == ([2000, 2000, 6000], [5000, 5000, 6000])
