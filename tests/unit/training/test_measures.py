import re
from dataclasses import replace

from scoring import WordErrors
from timing import TimingErrors
from training.measures import SILENCE, SINGLE, Invented, Measures, Rate, as_json, as_text, rows
from training.seams import Difference, JoinedErrors

JOINED = JoinedErrors(
    words=1000,
    seams=3,
    words_near=40,
    alone=0.05,
    joined=0.054,
    near_alone=0.05,
    near=0.052,
    elsewhere_alone=0.05,
    elsewhere=0.0541,
    beyond_alone=Difference(0.4, 0.1, 0.7),
    near_beyond_elsewhere=Difference(0.2000001, -1.0, 1.3),
    caused_by_seams=Difference(-0.2, -0.3, -0.1),
)
GOOD = Measures(
    name="good",
    fields={"device": "cpu"},
    windows=(20.0, 30.0, 3.0),
    clips={SINGLE: Rate(WordErrors(2, 1, 3, 100), 0.04, 0.08), "old ones": Rate(WordErrors(1, 0, 0, 100), 0.0, 0.02)},
    voices={"rms": Rate(WordErrors(30, 0, 0, 100), 0.2, 0.4), "kal": Rate(WordErrors(70, 0, 0, 100), 0.6, 0.8)},
    hours=1.0,
    joined=JOINED,
    timing=TimingErrors(1000, 950, 30.0, 99.0, 40.0, 140.0),
    invented={SILENCE: Invented(0, 0), "hum": Invented(0, 0), "white noise": Invented(0, 0)},
)


def marked(measures: Measures) -> list[str]:
    return [row.name for row in rows([measures], "rms") if row.values[0].endswith("✗")]


def test_what_is_at_its_bar_does_not_exceed_it() -> None:
    assert marked(GOOD) == []


def test_each_bar_marks_what_exceeds_it() -> None:
    bad = replace(
        GOOD,
        clips={**GOOD.clips, SINGLE: Rate(WordErrors(7, 0, 0, 100), 0.0, 0.1)},
        voices={**GOOD.voices, "rms": Rate(WordErrors(36, 0, 0, 100), 0.2, 0.4)},
        joined=replace(JOINED, beyond_alone=Difference(0.51, 0, 1), near_beyond_elsewhere=Difference(0.21, 0, 1)),
        timing=TimingErrors(1000, 950, 40.0, 101.0, 40.0, 140.0),
        invented={SILENCE: Invented(1, 2), "hum": Invented(1, 0), "white noise": Invented(2, 4)},
    )
    with_bars = [row.name for row in rows([bad], "rms") if row.bar]
    assert marked(bad) == with_bars
    assert len(with_bars) == 9
    values = {row.name: row.values[0] for row in rows([bad], "rms")}
    assert values["words in digital silence: worker"] == "1 ✗"
    assert values["words in low noise: worker"] == "3 ✗"
    assert values["words in low noise: model"] == "4 ✗"
    assert values["words in white noise: worker / model"] == "2 / 4"
    late = replace(GOOD, timing=TimingErrors(1000, 950, 41.0, 99.0, 40.0, 140.0))
    assert marked(late) == ["word starts, joined: median / 95 percent, ms"]


def test_a_model_that_hears_nothing_is_in_the_table() -> None:
    deaf = replace(GOOD, timing=None, joined=replace(JOINED, near_beyond_elsewhere=None, caused_by_seams=None))
    values = {row.name: row.values[0] for row in rows([deaf], "rms")}
    assert values["words near a seam beyond others, points"] == "no seams"
    assert values["word starts, joined: median / 95 percent, ms"] == "inf / inf ✗"


def test_models_stand_side_by_side() -> None:
    text = as_text([GOOD, replace(GOOD, name="old", windows=(0.5, 8.0, 0.0))], rows([GOOD, GOOD], "rms"))
    head, first, *_ = text.splitlines()
    assert re.split(" {2,}", head)[-2:] == ["good (20/30/3)", "old (0.5/8/0)"]
    assert first.count("6.00 (4.0 to 8.0)") == 2


def test_json_has_the_rates_and_what_they_are_made_of() -> None:
    fields = as_json(GOOD)
    assert fields["clips"][SINGLE] == {
        "rate": 0.06,
        "low": 0.04,
        "high": 0.08,
        "substitutions": 2,
        "deletions": 1,
        "insertions": 3,
        "words": 100,
    }
    assert fields["voices"]["rms"]["rate"] == 0.3
    assert fields["joined"]["beyond_alone"]["points"] == 0.4
    assert fields["timing"]["start_p95"] == 99.0
