"""The picture of the words: everything stands at its time, and labels do not cover each other."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from numpy.typing import NDArray

from excerpt import choose_excerpt
from results import Outcome, WordTime
from scoring import align
from word_lanes import clock, draw

RATE = 16_000
SVG = ET.Element
REFERENCE = (WordTime("Good", 0.5, 0.8), WordTime("morning,", 0.9, 1.5), WordTime("all.", 1.6, 2.0))
HYPOTHESIS = (WordTime("Good", 0.52, 0.79), WordTime("mourning", 0.9, 1.4))


def spoken(reference: tuple[WordTime, ...] = REFERENCE, hypothesis: tuple[WordTime, ...] = HYPOTHESIS) -> Outcome:
    texts = [" ".join(word.word for word in words) for words in (reference, hypothesis)]
    return Outcome("id", "/audio.wav", texts[0], 2.5, texts[1], None, reference, hypothesis, 1.0, 1.0)


def picture(outcome: Outcome, samples: NDArray[np.float32] | None = None) -> ET.Element:
    """The SVG of the lanes."""
    pairs = align(outcome.reference, outcome.hypothesis or "")
    drawn = draw(outcome, choose_excerpt(outcome, pairs), np.zeros(0, np.float32) if samples is None else samples, RATE)
    return next(svg for svg in ET.fromstring(drawn).iter("svg") if svg.get("class") == "lanes")


def classed(svg: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in svg.iter() if name in element.get("class", "").split()]


def numbers(element: ET.Element | None, *names: str) -> list[float]:
    assert element is not None
    return [float(element.get(name, "")) for name in names]


def test_words_stand_at_their_times_in_the_colour_of_their_pair() -> None:
    svg = picture(spoken())
    scale = float(svg.get("data-scale", ""))
    words = classed(svg, "word")
    for word, group in zip((*REFERENCE, *HYPOTHESIS), words, strict=True):
        left, width = numbers(group.find("rect"), "x", "width")
        assert left == pytest.approx(word.start * scale, abs=0.06)
        assert width == pytest.approx((word.end - word.start) * scale, abs=0.06)
        assert float(group.get("data-t", "")) == word.start
        assert group.findtext("text") == word.word
    assert [group.get("class") for group in words] == ["word k0", "word sub", "word del", "word k0", "word sub"]
    assert [group.get("data-p") for group in words] == ["0", "1", "2", "0", "1"]
    assert [band.get("class") for band in classed(svg, "band")] == ["band k0", "band sub"]


def test_a_band_joins_the_bars_of_both_lanes() -> None:
    svg = picture(spoken())
    scale = float(svg.get("data-scale", ""))
    path = classed(svg, "band")[0].get("d", "")
    corners = re.fullmatch(r"M([\d.]+) ([\d.]+)H([\d.]+)L([\d.]+) ([\d.]+)H([\d.]+)Z", path)
    assert corners
    a, top, b, c, bottom, d = map(float, corners.groups())
    assert [a, b, c, d] == pytest.approx([scale * at for at in (0.5, 0.8, 0.79, 0.52)], abs=0.06)
    upper, lower = (numbers(classed(svg, "word")[index].find("rect"), "y", "height") for index in (0, 3))
    assert (top, bottom) == (sum(upper), lower[0])


def test_a_word_says_how_far_it_is_from_the_reference() -> None:
    titles = [title.text for title in picture(spoken()).iter("title")]
    assert titles[0] == "“Good”, 0.50 to 0.80 s in the reference"
    assert titles[4] == (
        "“mourning”, 0.90 to 1.40 s in the hypothesis: start +0 ms, end -100 ms from “morning,” in the reference"
    )


def test_labels_do_not_cover_each_other() -> None:
    words = tuple(WordTime("conversation", index * 0.1, index * 0.1 + 0.05) for index in range(3))
    svg = picture(spoken(words, words))
    labels = [numbers(group.find("text"), "x", "y") for group in classed(svg, "word")]
    assert len({y for _, y in labels}) == 6
    # Those of the reference are above the bars, and those of the hypothesis below.
    bars = [numbers(group.find("rect"), "y")[0] for group in classed(svg, "word")]
    assert all((y < bar) == (index < 3) for index, ((_, y), bar) in enumerate(zip(labels, bars, strict=True)))
    assert max(y for _, y in labels) < float(svg.get("height", ""))


def test_a_lane_without_words_is_left_out() -> None:
    svg = picture(spoken(reference=()))
    assert [group.get("class") for group in classed(svg, "word")] == ["word ins", "word ins"]
    assert not classed(svg, "band")
    assert not classed(picture(replace(spoken(), reference_words=(), hypothesis_words=())), "word")


def test_a_word_that_is_not_scored_has_no_pair() -> None:
    words = (WordTime("Uh,", 0.1, 0.3), *HYPOTHESIS)
    group = classed(picture(spoken(hypothesis=words)), "word")[3]
    assert (group.get("class"), group.get("data-p")) == ("word none", None)


def test_the_waveform_is_as_loud_as_the_recording() -> None:
    samples = np.zeros(2 * RATE, np.float32)
    samples[RATE:] = 0.3 * np.sign(np.sin(np.arange(RATE)))
    [wave] = classed(picture(spoken(), samples), "wave")
    lines = [list(map(float, line)) for line in re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)", wave.get("d", ""))]
    heights = [low - high for _, high, low in lines]
    half = len(lines) // 2
    assert max(heights[: half - 1]) == 1
    assert min(heights[half + 1 :]) > 55


def test_low_noise_is_drawn_low() -> None:
    samples = np.random.default_rng(0).uniform(-0.002, 0.002, RATE).astype(np.float32)
    [wave] = classed(picture(spoken(), samples), "wave")
    heights = [float(low) - float(high) for high, low in re.findall(r" ([\d.]+)V([\d.]+)", wave.get("d", ""))]
    assert max(heights) < 8


def test_the_seconds_are_those_of_the_recording() -> None:
    words = tuple(WordTime(f"w{index}", index + 0.2, index + 0.6) for index in range(200))
    late = replace(spoken(words, words[:-1]), duration=200.0)
    svg = picture(late)
    assert [label.text for label in classed(svg, "time")][:2] == ["2:20", "2:21"]
    assert float(classed(svg, "word")[0].get("data-t", "")) == pytest.approx(0.2)


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (67.9, "1:07"), (3599, "59:59"), (3723, "1:02:03")])
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
