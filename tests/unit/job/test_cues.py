"""Cues: their limits, which hold whatever the times of the words are, and where they are broken."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parakeet_worker.asr.alignment import Span
from parakeet_worker.job.cues import Cue, CueLimits, make_cues

MILLISECOND = 0.001
TOLERANCE = 1e-8  # of sums of floating-point numbers
DEFAULT = CueLimits()


def speak(text: str, *, speed: float = 15.0, start: float = 0.0) -> list[Span]:
    """Words that follow each other at a number of characters per second; `|` is a pause of 0.4 s."""
    words = []
    for word in text.split():
        if word == "|":
            start += 0.4
            continue
        end = start + (len(word) + 1) / speed
        words.append(Span(word, start, end))
        start = end
    return words


def texts(words: Sequence[Span], limits: CueLimits = DEFAULT, after: float = 5.0) -> list[list[str]]:
    return [list(cue.lines) for cue in make_cues(words, words[-1].end + after, limits)]


def words_of(cues: Sequence[Cue], words: Sequence[Span]) -> Iterator[list[Span]]:
    """The words that each cue has a part of, after a check that together they are all words, in order."""
    text = "".join(word.text for word in words)
    owners = [word for word in words for _ in word.text]
    at = 0
    for cue in cues:
        shown = "".join(cue.lines).replace(" ", "")
        assert text[at : at + len(shown)] == shown
        yield owners[at : at + len(shown)]
        at += len(shown)
    assert at == len(text)


def check(cues: Sequence[Cue], words: Sequence[Span], duration: float, limits: CueLimits) -> None:
    """Check all that holds for any words."""
    owners = list(words_of(cues, words))
    has_long_word = any(len(word.text) > limits.max_line for word in words)
    for cue in cues:
        assert 1 <= len(cue.lines) <= limits.max_lines
        assert all(1 <= len(line) <= limits.max_line and line == " ".join(line.split()) for line in cue.lines)
        assert limits.min_duration - TOLERANCE <= cue.end - cue.start <= limits.max_duration + MILLISECOND
        assert (cue.start, cue.end) == (round(cue.start, 3), round(cue.end, 3))
    for before, after in pairwise(cues):
        assert after.start - before.end >= limits.min_gap - TOLERANCE

    ends = [cue.start - limits.min_gap for cue in cues[1:]] + [duration]
    late_from = [0.0] + [cue.end + limits.min_gap for cue in cues[:-1]]
    for cue, owned, latest, earliest in zip(cues, owners, ends, late_from, strict=True):
        shown = cue.end - cue.start
        is_shortest = shown < limits.min_duration + 2 * MILLISECOND
        is_longest = shown > limits.max_duration - 2 * MILLISECOND
        is_one_word = all(word is owned[0] for word in owned)
        assert owned[-1].end - owned[0].start <= limits.max_duration + MILLISECOND or has_long_word or is_one_word
        stopped = is_longest or cue.end > latest - 2 * MILLISECOND
        assert cue.start >= owned[0].start - MILLISECOND
        if len(owned[0].text) <= limits.max_line and cue.start > owned[0].start + 2 * MILLISECOND:
            assert cue.start < earliest + 2 * MILLISECOND
        if len(owned[-1].text) <= limits.max_line:
            assert cue.end > owned[-1].end - 2 * MILLISECOND or stopped
        characters = len(" ".join(cue.lines))
        assert characters / shown <= limits.max_speed + 0.05 or stopped
        assert cue.end <= max(duration, words[-1].end) + MILLISECOND or is_shortest


@st.composite
def limits(draw: st.DrawFn) -> CueLimits:
    shortest = draw(st.floats(0.1, 10))
    return CueLimits(
        max_line=draw(st.integers(10, 60)),
        max_lines=draw(st.integers(1, 4)),
        min_duration=shortest,
        max_duration=draw(st.floats(shortest, 60)),
        max_speed=draw(st.floats(5, 100)),
        min_gap=draw(st.one_of(st.just(0.08), st.floats(0, 2))),
    )


TEXTS = st.one_of(
    st.sampled_from(
        ["a", "I", "the", "and", "Yes.", "No,", "J.", "Smith", "5", "km", "$5", "million", "Dr.", "–", "in,"]
    ),
    st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=15),
    st.text("abc./", min_size=1, max_size=150),
)
TIMES = st.one_of(st.sampled_from([0.0, 0.08, 0.16, 0.4]), st.floats(0, 1), st.sampled_from([2.0, 15.0]))


@st.composite
def speech(draw: st.DrawFn, max_size: int = 40) -> list[Span]:
    words = []
    now = draw(TIMES)
    for text, pause, length in draw(st.lists(st.tuples(TEXTS, TIMES, TIMES), min_size=1, max_size=max_size)):
        words.append(Span(text, now + pause, now + pause + length))
        now = words[-1].end
    return words


@settings(max_examples=150)
@given(speech(), st.one_of(st.just(DEFAULT), limits()), st.floats(0, 5))
def test_all_words_are_in_cues_that_keep_to_their_limits(words: list[Span], limits: CueLimits, after: float) -> None:
    duration = words[-1].end + after
    check(make_cues(words, duration, limits), words, duration, limits)


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXTS, st.floats(0, 5), st.floats(0, 5)), max_size=30), limits())
def test_damaged_times_lose_nothing(entries: list[tuple[str, float, float]], limits: CueLimits) -> None:
    words = [Span(*entry) for entry in entries]
    cues = make_cues(words, 5.0, limits)
    list(words_of(cues, words))
    for cue in cues:
        assert limits.min_duration - TOLERANCE <= cue.end - cue.start <= limits.max_duration + MILLISECOND
    for before, after in pairwise(cues):
        assert after.start - before.end >= limits.min_gap - TOLERANCE


def fits(words: Sequence[Span], limits: CueLimits) -> bool:
    """Whether the words fit the lines of a cue."""
    lines, free = 0, 0
    for word in words:
        if len(word.text) + 1 > free:
            lines, free = lines + 1, limits.max_line + 1
        free -= len(word.text) + 1
    return lines <= limits.max_lines


def can_be_on_time(words: Sequence[Span], duration: float, limits: CueLimits) -> bool:
    """Whether any cues of these words keep to their limits without one that begins late: tries all."""
    count = len(words)
    for size in range(count):
        for inner in combinations(range(1, count), size):
            for first, end in pairwise((0, *inner, count)):
                latest = words[end].start - limits.min_gap if end < count else max(duration, words[-1].end)
                short = latest - words[first].start < limits.min_duration
                spoken = words[end - 1].end - words[first].start
                long = spoken > limits.max_duration and end > first + 1
                if short or long or not fits(words[first:end], limits):
                    break
            else:
                return True
    return False


@st.composite
def quick_speech(draw: st.DrawFn) -> list[Span]:
    """A few short words in whole tens of milliseconds."""
    now, words = 0.0, []
    for size, pause, length in draw(
        st.lists(st.tuples(st.integers(1, 9), st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8)
    ):
        start = now + pause / 100
        now = start + length / 100
        words.append(Span("x" * size, start, now))
    return words


@settings(max_examples=200)
@given(
    quick_speech(),
    st.builds(CueLimits, max_line=st.integers(10, 20), max_lines=st.integers(1, 2), max_duration=st.just(2.0)),
    st.floats(0, 1),
)
def test_a_cue_begins_late_only_where_no_other_cues_are_on_time(
    words: list[Span], limits: CueLimits, after: float
) -> None:
    duration = words[-1].end + after
    cues = make_cues(words, duration, limits)
    on_time = (
        all(
            abs(cue.start - owned[0].start) < 2 * MILLISECOND
            for cue, owned in zip(cues, words_of(cues, words), strict=True)
        )
        and cues[-1].end <= duration + 2 * MILLISECOND
    )
    assert on_time or not can_be_on_time(words, duration - 2 * MILLISECOND, limits)


def test_no_words_no_cues() -> None:
    assert make_cues([], 3.0, DEFAULT) == []
    assert make_cues([Span(" ", 0.0, 1.0)], 3.0, DEFAULT) == []


def test_sentences_have_cues_of_their_own() -> None:
    words = speak("The train to the coast leaves in the morning. It takes two hours if nothing is on the tracks.")
    assert texts(words) == [
        ["The train to the coast leaves", "in the morning."],
        ["It takes two hours", "if nothing is on the tracks."],
    ]


def test_short_sentences_share_a_cue() -> None:
    assert texts(speak("Yes. I know. It is late.")) == [["Yes. I know. It is late."]]


def test_a_long_sentence_is_broken_at_its_clauses() -> None:
    words = speak(
        "When the water had risen above the lower bridge, the people who lived along the river went up to the church, "
        "where they stayed until the next morning."
    )
    cues = texts(words)
    assert [cue[-1].split()[-1] for cue in cues] == ["bridge,", "church,", "morning."]


def test_a_sentence_without_punctuation_is_broken_at_its_pauses() -> None:
    words = speak(
        "the people who had lived by the river all went up | there was a church that they stayed in for the night | "
        "nobody else who lived there had any room for so many"
    )
    assert [cue[-1].split()[-1] for cue in texts(words)] == ["up", "night", "many"]


def test_silence_ends_a_cue() -> None:
    words = [*speak("I think"), *speak("that he left.", start=4.0)]
    first, second = make_cues(words, 10.0, DEFAULT)
    assert (first.lines, second.lines) == (("I think",), ("that he left.",))
    assert second.start == 4.0
    assert first.end == 1.0  # its shortest duration
    assert len(texts([*speak("The"), *speak("house is old.", start=1.9)])) == 2


NAMES = ["George W. Bush", "J. K. Rowling", "Dr. Smith", "Mr. Jones", "St. Louis"]
QUANTITIES = ["5 km", "20 percent", "$5 million", "10 a.m.", "May 5", "May 5, 2020"]


@pytest.mark.parametrize("together", [*NAMES, *QUANTITIES])
@pytest.mark.parametrize("limits", [DEFAULT, CueLimits(max_line=37, max_lines=1), CueLimits(max_line=24, max_lines=3)])
def test_no_break_goes_through_a_name_or_a_quantity(together: str, limits: CueLimits) -> None:
    filler = ["we", "had", "seen", "them", "all", "those", "other", "things", "before"]
    for before in range(3, 30):
        words = speak(" ".join((filler * 4)[:before] + [together] + filler * 2))
        lines = [line for cue in texts(words, limits) for line in cue]
        assert any(together in line for line in lines), lines


def test_a_long_name_is_broken_where_the_limits_leave_nothing_else() -> None:
    words = speak("Dr. Wolfeschlegelsteinhausenbergerdorff")
    assert texts(words, CueLimits(max_line=38)) == [["Dr.", "Wolfeschlegelsteinhausenbergerdorff"]]


def test_a_word_longer_than_a_line_is_cut_and_stays_in_one_cue_if_it_fits() -> None:
    address = "https://example.com/" + "x" * 40
    assert texts(speak(f"You will find all of it at {address} now.")) == [
        ["You will find all of it at"],
        [address[:42], address[42:] + " now."],
    ]
    # Not even the end of a sentence before it makes it better to part it.
    words = speak(f"It is all written down there. {address} it is, if you want to know.")
    assert any(address in "".join(lines) for lines in texts(words))


def test_text_that_fits_stays_on_one_line() -> None:
    assert texts(speak("It is on one line, as it fits there.")) == [["It is on one line, as it fits there."]]


def test_lines_are_broken_before_a_preposition_and_keep_an_article_with_its_noun() -> None:
    assert texts(speak("They carried all those heavy boxes into the old house.")) == [
        ["They carried all those heavy boxes", "into the old house."]
    ]


def test_three_lines_are_used_where_two_would_part_a_name() -> None:
    words = speak("no understanding Dr. Wolfeschlegelstein now")
    assert texts(words, CueLimits(max_line=24, max_lines=3)) == [["no understanding", "Dr. Wolfeschlegelstein", "now"]]


def test_the_lower_line_is_the_longer_one() -> None:
    words = ["x" * 20, "y" * 20, "z" * 21]
    assert texts(speak(" ".join(words))) == [[words[0], f"{words[1]} {words[2]}"]]


def test_a_word_is_not_left_alone() -> None:
    words = speak("They stayed in the old church until the next morning.")
    words += speak("Really?", start=words[-1].end + 0.6)
    assert texts(words) == [["They stayed in the old church", "until the next morning. Really?"]]


def test_a_sentence_that_is_too_long_is_divided_evenly() -> None:
    sizes = [len(" ".join(cue)) for cue in texts(speak("word " * 25))]
    assert len(sizes) == 2
    assert max(sizes) - min(sizes) < 6


@pytest.mark.parametrize(("pause", "count"), [(0.4, 1), (1.3, 2)])
def test_a_pause_ends_a_cue_if_it_is_long(pause: float, count: int) -> None:
    words = speak("Well, we waited for him,")
    words += speak("but nobody ever came to the door.", start=words[-1].end + pause)
    assert len(texts(words)) == count


def test_speech_too_fast_to_read_shares_a_cue_with_slower_speech() -> None:
    words = speak("They all ran away from the place.", speed=30.0)
    words += speak("It was not one to be in for a while.", speed=8.0, start=words[-1].end)
    (cue,) = make_cues(words, 20.0, DEFAULT)
    assert len(" ".join(cue.lines)) / (cue.end - cue.start) < 20


def test_a_gap_makes_no_cue_too_fast_that_is_not_spoken_so() -> None:
    words = speak("They ran away from the place, all of them.", speed=19.77)
    words += speak("It was not one to be in for a long while.", speed=12.0, start=words[-1].end)
    assert len(make_cues(words, 20.0, DEFAULT)) == 1
    slower = speak("They ran away from the place, all of them.", speed=17.0)
    slower += speak("It was not one to be in for a long while.", speed=12.0, start=slower[-1].end)
    assert len(make_cues(slower, 20.0, DEFAULT)) == 2


def test_a_cue_is_not_made_too_long_to_read_in_the_longest_time() -> None:
    words = speak("the people who lived along the river", speed=14.0)
    words += speak("went up to the church on the hill above them", speed=14.0, start=words[-1].end + 0.9)
    assert len(texts(words)) == 1
    assert len(texts(words, CueLimits(max_speed=11.0))) == 2


def test_a_cue_stays_for_its_reader_if_silence_follows() -> None:
    words = [*speak("There were only seventeen of them left by then.", speed=40.0), *speak("Yes, we saw.", start=8.0)]
    first = make_cues(words, 10.0, DEFAULT)[0]
    assert first.end == pytest.approx(47 / 20)


def test_a_cue_ends_with_its_last_word_if_that_is_later() -> None:
    words = [*speak("There were only a few of them left.", speed=6.0), *speak("We saw.", start=12.0)]
    assert make_cues(words, 20.0, DEFAULT)[0].end == pytest.approx(6.0)


def test_a_short_gap_is_closed_to_the_shortest() -> None:
    words = [
        *speak("There were only a few of them left, I think."),
        *speak("We saw where they all had gone.", start=3.3),
    ]
    first, second = make_cues(words, 20.0, DEFAULT)
    assert second.start == 3.3
    assert first.end == pytest.approx(3.22)


def test_a_word_longer_than_the_longest_cue_is_shown_as_long_as_one_may_be() -> None:
    assert make_cues([Span("Ah", 1.0, 30.0)], 30.0, DEFAULT) == [Cue(1.0, 8.0, ("Ah",))]


def test_only_the_shortest_duration_passes_the_end_of_the_audio() -> None:
    assert make_cues([Span("Yes.", 9.5, 9.8)], 10.0, DEFAULT) == [Cue(9.5, 10.5, ("Yes.",))]
    long = make_cues(speak("There were only seventeen of them left by then.", speed=40.0), 1.5, DEFAULT)
    assert long[-1].end == 1.5


def test_cues_that_cannot_be_on_time_are_late_and_catch_up() -> None:
    words = [Span("x" * 40, 0.0, 0.0) for _ in range(8)] + speak("And so it goes on as it was before.", start=20.0)
    cues = make_cues(words, 30.0, DEFAULT)
    check(cues, words, 30.0, DEFAULT)
    assert [cue.start for cue in cues[:4]] == pytest.approx([0.0, 1.08, 2.16, 3.24])
    assert cues[-1].start == 20.0


def test_words_that_overlap_are_shown_until_both_are_said() -> None:
    (cue,) = make_cues([Span("One", 0.0, 3.0), Span("two.", 1.0, 2.0)], 9.0, DEFAULT)
    assert (cue.start, cue.end) == (0.0, 3.0)
    (cue,) = make_cues([Span("One", 2.0, 3.0), Span("two.", 1.0, 2.0)], 9.0, DEFAULT)
    assert (cue.start, cue.end) == (2.0, 3.0)


def test_milliseconds_are_rounded_without_loss_of_the_gap() -> None:
    words = [Span("One day.", 0.0, 1.23449), Span("xxxxxxxxxx", 2.34551, 3.4567)]
    limits = CueLimits(max_line=10, max_lines=1, min_gap=0.0801)
    for before, after in pairwise(make_cues(words, 4.0, limits)):
        assert math.ceil(1000 * limits.min_gap) <= round(1000 * (after.start - before.end))
