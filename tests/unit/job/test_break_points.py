"""Where the text of captions may be broken."""

import pytest

from parakeet_worker.job.break_points import CLAUSE_END, INSEPARABLE, SENTENCE_END, WITHIN_CLAUSE, break_costs


def cost(text: str) -> float:
    """The cost of a break at the bar in a text."""
    before, _, after = text.partition(" | ")
    return break_costs(f"{before} {after}".split())[len(before.split())]


@pytest.mark.parametrize(
    "text",
    [
        "He left. | She stayed.",
        "Really? | Yes.",
        "Stop! | Now.",
        "And so… | Nothing.",
        "Well... | He left.",
        "“He left.” | She stayed.",
        "(They did.) | Why?",
        "plan B. | The next",
        "So do I. | Then we",
        "Tom and I. | Bob too",
        "at 10 a.m. | The train",
        "on Main St. | He waited",
        "in the U.S. | They said",
        "Yes. | No. Maybe.",
        "No. | Maybe.",
        "It cost 5. | Then",
        "On that page. | 5 people came.",
        "他走了。 | 她留下。",
    ],
)
def test_the_end_of_a_sentence(text: str) -> None:
    assert cost(text) == SENTENCE_END


@pytest.mark.parametrize("text", ["well, | he left", "first; | then", "this: | that", "now – | never", "so — | yes"])
def test_the_end_of_a_clause(text: str) -> None:
    assert cost(text) == CLAUSE_END


@pytest.mark.parametrize(
    "text",
    [
        "George | W. Bush",
        "George W. | Bush",
        "George | W Bush",
        "George W | Bush",
        "W. | I. Thomas",
        "W. I. | Thomas",
        "J. | Smith",
        "J. | K. Rowling",
        "J. K. | Rowling",
        "“J. | Smith”",
        "W.-H. | Auden",
        "J.R.R. | Tolkien",
        "Isaac I. | Rabi",
        "Isaac | I. Rabi",
        "Dr. | Smith",
        "Mr. | Jones",
        "Mrs | Jones",
        "St. | Louis",
        "Prof. | J. Smith",
        "Martin Luther King | Jr. said",
        "King, | Jr. said",
        "the U.S. | Senate",
        "5 | km",
        "5 | km.",
        "20 | percent",
        "20 | per cent",
        "20 per | cent",
        "twenty | percent,",
        "twenty-five | percent",
        "50 | %",
        "$5 | million",
        "$5 million | dollars",
        "1,500.50 | euros",
        "100 degrees | Celsius",
        "45 miles | per hour",
        "45 miles per | hour.",
        "twenty | five dollars",
        "two thousand | three hundred",
        "10 | a.m.",
        "10 | a.m. today",
        "10:30 | pm",
        "May | 5",
        "May | 5th,",
        "May 5, | 2020",
        "May | 2020",
        "5 | May",
        "Jan. | 5",
        "No. | 5",
        "page | 12",
        "# | 5",
        "he left | –",
    ],
)
def test_names_and_quantities_are_inseparable(text: str) -> None:
    assert cost(text) >= INSEPARABLE


@pytest.mark.parametrize(
    "text",
    ["approx. | ten", "Inc. | bought", "10 a.m. | Monday", "vs. | England", "they may | 5 times", "5 | 6 people"],
)
def test_what_ends_neither_a_sentence_nor_belongs_together(text: str) -> None:
    assert CLAUSE_END < cost(text) < INSEPARABLE


def test_a_break_goes_before_a_conjunction_or_preposition_and_not_behind_it() -> None:
    assert cost("he left | and went") < WITHIN_CLAUSE < cost("he left and | went")
    assert cost("he went | to school") < WITHIN_CLAUSE < cost("he went to | school")


@pytest.mark.parametrize(
    "text",
    ["saw the | house", "and he | left", "have | gone", "Barack | Obama", "Boeing | 747", "50 | people", "it’s | late"],
)
def test_what_belongs_together_is_parted_after_other_places(text: str) -> None:
    assert WITHIN_CLAUSE < cost(text) < INSEPARABLE


def test_nothing_is_before_the_first_word() -> None:
    assert break_costs([]) == []
    assert break_costs(["and"]) == [SENTENCE_END]
