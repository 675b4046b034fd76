"""The page of the worst utterances: what is on it, in which order, that nothing escapes, and how large it gets."""

import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import page
from loopback import LoopbackServer
from page import write_page
from project import Clip
from results import Failure, Outcome, WordTime
from scoring import Pair

VOID = {"meta", "link", "br", "img", "input", "hr"}
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)> \" ' & </article></svg>"


class Page(HTMLParser):
    """A page's elements, with a check that each is closed where it should be.

    Attributes:
        elements: Names and attributes.
        texts: The text in each kind of element, with that of the elements in it.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[tuple[str, int]] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.texts.setdefault(tag, []).append("")
            self._open.append((tag, len(self.texts[tag]) - 1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for tag, index in self._open:
            self.texts[tag][index] += data

    def named(self, tag: str, style: str = "") -> list[dict[str, str]]:
        return [found for name, found in self.elements if name == tag and style in found.get("class", "")]

    def audio(self) -> list[bytes]:
        prefix = "data:audio/ogg;base64,"
        assert all(each["src"].startswith(prefix) for each in self.named("audio"))
        return [base64.b64decode(each["src"].removeprefix(prefix)) for each in self.named("audio")]


def render(path: Path, *outcomes: Outcome, worst: int = 20) -> Page:
    write_page(path / "page.html", outcomes, "Title", [("Word error rate", "8.1%")], worst)
    return Page((path / "page.html").read_text())


def outcome(clip: Clip, hypothesis: str | None = None) -> Outcome:
    """A clip that was transcribed right, or as another text without times."""
    words = tuple(WordTime(**word) for word in clip.words)
    right = Outcome(clip.path.stem, str(clip.path), clip.text, clip.duration, clip.text, None, words, words, 0.1, 0.2)
    return right if hypothesis is None else replace(right, hypothesis=hypothesis, hypothesis_words=())


def failed(clip: Clip, failure: Failure) -> Outcome:
    return replace(outcome(clip), hypothesis=None, hypothesis_words=(), error=failure)


def misheard(clip: Clip, *places: int) -> Outcome:
    """A clip of which the words at some places are heard as others."""
    right = outcome(clip)
    words = tuple(
        replace(word, word="other") if index in places else word for index, word in enumerate(right.hypothesis_words)
    )
    return replace(right, hypothesis=" ".join(word.word for word in words), hypothesis_words=words)


def samples_of(data: bytes) -> NDArray[np.float32]:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == 16_000
    return np.asarray(samples)


def similarity(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_an_utterance_has_its_texts_its_audio_and_the_times_of_its_words(tmp_path: Path, clips: list[Clip]) -> None:
    clip = clips[3]  # Tea has fragrant white around the surface of Old World terrestrial orchids.
    found = render(tmp_path, misheard(clip, 2))
    assert "1 error (1 substituted) in 12 words: 8.3 %" in found.texts["article"][0]
    texts = [text for text in found.texts["p"] if text.startswith("tea")]
    assert texts == [
        f"tea has {heard} white around the surface of old world terrestrial orchids" for heard in ("fragrant", "other")
    ]
    [data] = found.audio()
    original, _ = soundfile.read(clip.path, dtype="float32")
    assert similarity(samples_of(data), original) > 0.95
    assert [float(word["data-t"]) for word in found.named("g", "word")] == [word["start"] for word in clip.words] * 2
    assert [word["data-p"] for word in found.named("g", "sub")] == ["2", "2"]
    assert len(found.named("path", "band")) == 12
    assert len(found.named("path", "wave")) == 1


def test_the_texts_mark_each_kind_of_error(tmp_path: Path, clips: list[Clip]) -> None:
    clip = clips[2]  # The children must learn to reason.
    found = render(tmp_path, outcome(clip, "The children might learn to reason so. It"))
    marks = [each for each in found.named("span") if "data-p" in each]
    assert [each.get("class") for each in marks] == [
        *[None, None, "sub", None, None, None, "ins gap", "ins gap"],
        *[None, None, "sub", None, None, None, "ins", "ins"],
    ]
    # The errors can be reached with the keyboard, at the time at which they are said.
    assert [each["data-t"] for each in marks if "tabindex" in each] == ["0.900", "0.900", "1.550", "1.550"]
    found = render(tmp_path, outcome(clip, "The children must learn to"))
    assert [each.get("class") for each in found.named("span") if "data-p" in each][5::6] == ["del", "del gap"]


def test_more_errors_come_first_and_then_the_higher_rate(tmp_path: Path, clips: list[Clip]) -> None:
    one_of_four, one_of_eight, one_of_twelve = misheard(clips[0], 1), misheard(clips[1], 1), misheard(clips[3], 1)
    two_of_twelve = replace(misheard(clips[3], 1, 2), id="two")
    outcomes = [one_of_eight, outcome(clips[5]), one_of_twelve, one_of_four, two_of_twelve]
    assert render(tmp_path, *outcomes).texts["h3"] == ["1. two", "2. clip00", "3. clip01", "4. clip03"]
    found = render(tmp_path, *outcomes, worst=2)
    assert found.texts["h3"] == ["1. two", "2. clip00"]
    assert "4 of 5 utterances have errors. The worst 2 are below" in found.texts["body"][0]


def test_words_in_silence_are_the_worst_of_as_many(tmp_path: Path, clips: list[Clip]) -> None:
    silence = replace(outcome(clips[0], "Hallucinated"), reference="", reference_words=(), id="silence")
    found = render(tmp_path, misheard(clips[0], 1), silence)
    assert found.texts["h3"] == ["1. silence", "2. clip00"]
    assert "1 error (1 added); the reference has no words" in found.texts["article"][0]


def test_without_errors_there_is_nothing_to_show(tmp_path: Path, clips: list[Clip]) -> None:
    found = render(tmp_path, outcome(clips[0]), outcome(clips[1]))
    assert "2 utterances transcribed, none with an error." in found.texts["body"][0]
    assert "article" not in found.texts
    assert "Failed" not in found.texts["body"][0]


def test_all_failed_ones_are_listed(tmp_path: Path, clips: list[Clip]) -> None:
    failures = [Failure("corrupt_audio", "the audio is damaged"), *[Failure("download_failed", "404")] * 39]
    found = render(tmp_path, *map(failed, clips, failures), worst=3)
    assert "40 utterances without a transcript: 39 download_failed, 1 corrupt_audio." in found.texts["body"][0]
    cells = found.texts["td"]
    assert cells[:3] == ["clip00", "corrupt_audio", "the audio is damaged"]
    assert cells[::3] == [clip.path.stem for clip in clips]


def test_an_empty_transcript_is_no_failure(tmp_path: Path, clips: list[Clip]) -> None:
    found = render(tmp_path, outcome(clips[0], ""))
    assert "4 errors (4 missing) in 4 words: 100.0 %" in found.texts["article"][0]
    assert "td" not in found.texts


def test_a_signed_url_is_no_link(tmp_path: Path, clips: list[Clip]) -> None:
    address = "https://me:secret@example.com/a.wav?X-Signature=5e3"
    found = render(tmp_path, replace(outcome(clips[0], "else"), id=address, audio=address))
    assert found.texts["h3"] == ["1. https://example.com/a.wav"]
    assert not found.named("a")
    assert "The audio is not on this page: https://example.com/a.wav" in found.texts["p"]


def test_no_text_is_taken_for_markup(tmp_path: Path, clips: list[Clip]) -> None:
    words = (WordTime(ATTACK, 0.1, 0.5),)
    spoken = replace(outcome(clips[0], f"{ATTACK} said"), reference_words=words, hypothesis_words=words)
    attacks = [
        replace(spoken, id=ATTACK, reference=ATTACK),
        replace(outcome(clips[1], "else"), audio=f"https://example.com/{ATTACK}"),
        replace(outcome(clips[2], "else"), audio="javascript:alert(1)"),
        failed(clips[3], Failure(ATTACK, ATTACK)),
    ]
    path = tmp_path / "page.html"
    write_page(path, attacks, ATTACK, [(ATTACK, ATTACK)])
    found = Page(path.read_text())
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert not found.named("img")
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert found.texts["title"][0] == found.texts["h1"][0] == ATTACK
    assert found.texts["dt"] == found.texts["dd"] == [ATTACK]
    assert f"3. {ATTACK}" in found.texts["h3"]
    assert f"{ATTACK} said" in found.texts["p"]
    assert found.texts["td"][1:] == [ATTACK, ATTACK]
    assert found.texts["text"].count(ATTACK) == 2
    assert [each["href"] for each in found.named("a")] == [f"https://example.com/{ATTACK}"]


def test_scored_words_are_no_markup_whatever_normalisation_leaves(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "align", lambda *_: (Pair(ATTACK, f"{ATTACK} heard"),))
    found = render(tmp_path, misheard(clips[0], 1))
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert not found.named("img")
    assert f"{ATTACK} heard" in found.texts["p"]


def test_nothing_is_loaded_and_only_its_own_script_runs(tmp_path: Path, clips: list[Clip]) -> None:
    found = render(tmp_path, misheard(clips[0], 1))
    loading = {"src", "srcset", "poster", "data", "xlink:href", "action"}
    loads = [value for _, attributes in found.elements for name, value in attributes.items() if name in loading]
    assert all(value.startswith("data:audio/ogg;base64,") for value in loads)
    assert not found.named("link")
    assert "url(" not in found.texts["style"][0]
    assert "@import" not in found.texts["style"][0]
    [policy] = [each["content"] for each in found.named("meta") if "http-equiv" in each]
    digest = base64.b64encode(hashlib.sha256(found.texts["script"][0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_a_url_is_linked_and_not_fetched(tmp_path: Path, clips: list[Clip], server: LoopbackServer) -> None:
    url = server.serve("/clip.flac", clips[0].path.read_bytes())
    found = render(tmp_path, replace(misheard(clips[0], 1), audio=url))
    assert server.requests == []
    assert [each["href"] for each in found.named("a")] == [url]
    assert not found.named("audio")
    assert len(found.named("g", "word")) == 8


@pytest.mark.parametrize("form", ["file", "data"])
def test_other_urls_of_the_recording_itself_are_read(tmp_path: Path, clips: list[Clip], form: str) -> None:
    path = clips[0].path
    data = f"data:audio/flac;base64,{base64.b64encode(path.read_bytes()).decode()}"
    found = render(tmp_path, replace(misheard(clips[0], 1), audio=path.as_uri() if form == "file" else data))
    assert len(samples_of(found.audio()[0])) == round(clips[0].duration * 16_000)


def test_a_recording_that_cannot_be_read_costs_only_its_audio(tmp_path: Path, clips: list[Clip]) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    missing = replace(misheard(clips[0], 1), audio=str(tmp_path / "missing.wav"))
    damaged = replace(misheard(clips[1], 1), audio=str(tmp_path / "text.wav"))
    found = render(tmp_path, missing, damaged, misheard(clips[2], 1))
    notes = [text for text in found.texts["p"] if text.startswith("There is no audio here")]
    assert notes[0] == "There is no audio here: No such file or directory."
    assert "the file is not audio" in " ".join(notes)
    assert str(tmp_path) not in (tmp_path / "page.html").read_text()
    assert len(found.texts["article"]) == 3
    assert len(found.audio()) == 1


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory, clips: list[Clip]) -> Outcome:
    """More than seven minutes, in which the second word is heard as another one, and those from 370 to 410 s."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    parts, words, at = [], [], 0.0
    for clip in clips * 4:
        samples, rate = soundfile.read(clip.path, dtype="int16")
        parts.append(samples)
        words += [WordTime(word["word"], at + word["start"], at + word["end"]) for word in clip.words]
        at += len(samples) / rate
    soundfile.write(path, np.concatenate(parts), 16_000)
    is_wrong = [index == 1 or 370 <= word.start < 410 for index, word in enumerate(words)]
    heard = tuple(replace(w, word="other") if wrong else w for w, wrong in zip(words, is_wrong, strict=True))
    reference, hypothesis = (" ".join(word.word for word in each) for each in (words, heard))
    return Outcome("long", str(path), reference, at, hypothesis, None, tuple(words), heard, 1.0, 1.0)


def test_of_a_long_recording_the_minute_with_the_most_errors_is_shown(tmp_path: Path, long_recording: Outcome) -> None:
    found = render(tmp_path, long_recording)
    [stretch] = [text for text in found.texts["p"] if text.startswith("Shown")]
    total = int(found.texts["strong"][0].removesuffix(" errors"))
    # The errors are in the middle of the minute, without the one at the start of the recording.
    assert re.fullmatch(rf"Shown is (5:59 to 6:59|6:00 to 7:00), with {total - 1} of {total} errors\.", stretch)
    assert not found.named("details")
    # What is heard is what is drawn: the first wrong word stands where it is in the audio.
    samples = samples_of(found.audio()[0])
    recording, _ = soundfile.read(long_recording.audio, dtype="float32")
    shown = [float(each["data-t"]) for each in found.named("g", "word sub")]
    first = next(word for word in long_recording.hypothesis_words if word.start >= 370)
    start = round((first.start - shown[0]) * 16_000)
    assert len(samples) == 60 * 16_000
    # The times in the page are whole milliseconds.
    near = [similarity(samples, recording[at : at + len(samples)]) for at in range(start - 8, start + 9)]
    assert max(near) > 0.95


def test_a_page_of_long_recordings_stays_below_its_cap(tmp_path: Path, long_recording: Outcome) -> None:
    render(tmp_path, *[replace(long_recording, id=str(number)) for number in range(3)])
    assert (tmp_path / "page.html").stat().st_size < 3 * 700_000


def test_audio_stops_where_the_page_has_enough(
    tmp_path: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [misheard(clip, 1) for clip in clips[:4]]
    whole = render(tmp_path, *outcomes)
    sizes = [len(each["src"]) for each in whole.named("audio")]
    monkeypatch.setattr(page, "_AUDIO_CHARACTERS", sizes[0] + sizes[1])
    found = render(tmp_path, *outcomes)
    assert len(found.audio()) == 2
    assert found.texts["p"].count("There is no audio here: the page has as much as it may have.") == 2
    assert len(found.named("path", "wave")) == 4


def test_the_same_results_give_the_same_page(tmp_path: Path, clips: list[Clip]) -> None:
    outcomes = [misheard(clip, 1) for clip in clips[:5]]
    for name, order in (("one", outcomes), ("other", outcomes[::-1])):
        write_page(tmp_path / name, order, "Title", [])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path, clips: list[Clip]) -> None:
    assert "a?b" in render(tmp_path, outcome(clips[0], "a\ud800b")).texts["article"][0]
