"""Files of captions, as FFmpeg reads them, which is another program than the one that writes them."""

import html
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from typing import Literal

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parakeet_worker.asr.alignment import Span
from parakeet_worker.job.captions import CaptionOptions, captions, write_captions
from parakeet_worker.job.cues import Cue
from project import Clip

Format = Literal["srt", "vtt"]
FORMATS: tuple[Format, ...] = ("srt", "vtt")

# Words that mean something in a file of captions, or did somewhere.
SPECIAL = [
    *[
        "<b>",
        "</b>",
        "<v",
        "<c.x>",
        "<00:00:01.000>",
        "&",
        "&amp;",
        "&lt;",
        "&nbsp;",
        "-->",
        "->",
        "{\\an8}",
        "{}",
        "}{",
    ],
    *["WEBVTT", "NOTE", "STYLE", "REGION", "\\N", "\\n", "\\h", "1", "22", "00:00:01.000", "00:00:01,000", "$&", "%s"],
    *["שלום", "مرحبا،", "\u202eabc", "e\u0301", "👩‍👩‍👧", "\ufeff", "'", '"', "|", "[x]", "♪", "|:", "00:01.000"],
]


def read(text: str, file_format: Format) -> list[Cue]:
    """The cues of a file."""
    cues = []
    with av.open(BytesIO(text.encode()), "r", {"srt": "srt", "vtt": "webvtt"}[file_format]) as file:
        for packet in file.demux():
            if packet.pts is None:  # the end
                continue
            assert packet.time_base == Fraction(1, 1000)
            assert packet.duration is not None
            shown = bytes(packet).decode()
            lines = (html.unescape(shown) if file_format == "vtt" else shown).split("\n")
            cues.append(Cue(packet.pts / 1000, (packet.pts + packet.duration) / 1000, tuple(lines)))
    return cues


def speak(words: Sequence[str], start: float = 0.0) -> list[Span]:
    return [Span(word, start + index * 0.4, start + index * 0.4 + 0.32) for index, word in enumerate(words)]


def three_hours(clips: Sequence[Clip]) -> tuple[list[Span], float]:
    """The words of the clips one after another, for three hours, and how long they last."""
    words: list[Span] = []
    start = 0.0
    while start < 3 * 3600:
        for clip in clips:
            words += [Span(word["word"], start + word["start"], start + word["end"]) for word in clip.words]
            start += clip.duration
    return words, start


def test_subrip() -> None:
    cues = [Cue(0.5, 1.5, ("Hello there,", "and welcome.")), Cue(3661.08, 3663.0, ("Bye.",))]
    assert write_captions(cues, "srt") == (
        "1\n00:00:00,500 --> 00:00:01,500\nHello there,\nand welcome.\n\n2\n01:01:01,080 --> 01:01:03,000\nBye.\n"
    )


def test_webvtt() -> None:
    cues = [Cue(0.5, 1.5, ("Hello there,", "Q&A is <on>.")), Cue(3661.08, 3663.0, ("Bye.",))]
    assert write_captions(cues, "vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nHello there,\nQ&amp;A is &lt;on&gt;.\n\n"
        "01:01:01.080 --> 01:01:03.000\nBye.\n"
    )


def test_no_words_are_a_valid_file() -> None:
    assert captions([], 2.0, CaptionOptions(format="srt")) == ""
    assert captions([], 2.0, CaptionOptions(format="vtt")) == "WEBVTT\n"
    assert read("WEBVTT\n", "vtt") == []


@pytest.mark.parametrize("file_format", FORMATS)
@settings(max_examples=100)
@given(
    words=st.lists(
        st.one_of(st.sampled_from(SPECIAL), st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1))
    ),
    start=st.sampled_from([0.0, 3599.5, 36000.0]),
)
def test_any_text_is_read_back(file_format: Format, words: list[str], start: float) -> None:
    file = captions(speak(words, start), start + len(words), CaptionOptions(format=file_format))
    cues = read(file, file_format)
    text = "".join("".join(cue.lines) for cue in cues).replace("\u2060", "")
    assert text.replace(" ", "") == "".join(words).replace("\u2060", "")
    assert all(before.end < after.start for before, after in pairwise(cues))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("special", SPECIAL)
def test_a_text_with_a_meaning_in_files_of_captions_is_text(file_format: Format, special: str) -> None:
    for words in ([special], [special] * 30, ["before", special, "after"], ["It", "is", special]):
        file = captions(speak(words), len(words), CaptionOptions(format=file_format))
        assert " ".join(" ".join(cue.lines) for cue in read(file, file_format)) == " ".join(words)


def test_times_as_words_begin_no_cue_in_subrip() -> None:
    words = ["00:00:09,000", "-->", "00:00:10,000"]
    (cue,) = read(captions(speak(words), 2.0, CaptionOptions(format="srt")), "srt")
    assert " ".join(cue.lines).replace("\u2060", "") == " ".join(words)


@pytest.mark.parametrize("space", ["\n", "\r\n", "\n\n", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\t"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_no_character_breaks_a_line(file_format: Format, space: str) -> None:
    file = captions(speak([f"one{space}two", f"{space}three"]), 2.0, CaptionOptions(format=file_format))
    assert [cue.lines for cue in read(file, file_format)] == [("one two three",)]
    assert not set(space) - {"\n"} & set(file)


@pytest.mark.parametrize("file_format", FORMATS)
def test_three_hours_keep_to_the_limits(file_format: Format, clips: list[Clip]) -> None:
    words, duration = three_hours(clips)
    cues = read(captions(words, duration, CaptionOptions(format=file_format)), file_format)
    assert [word for cue in cues for line in cue.lines for word in line.split()] == [word.text for word in words]
    assert all(len(cue.lines) <= 2 and all(0 < len(line) <= 42 for line in cue.lines) for cue in cues)
    assert all(1000 <= round(1000 * (cue.end - cue.start)) <= 7000 for cue in cues)
    assert all(round(1000 * (after.start - before.end)) >= 80 for before, after in pairwise(cues))


def test_the_library_is_imported_when_it_is_needed() -> None:
    code = "import sys, parakeet_worker.job.captions; sys.exit('webvtt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
