"""The pictures of the README are what their scripts draw of a real response and of the committed results."""

import json
from typing import Any
from xml.etree import ElementTree

import chart
import timeline
from audio_files import data_url
from project import Clip

SVG = "{http://www.w3.org/2000/svg}"


def test_timeline_is_a_real_response(ask: Any) -> None:
    response = ask({"input": {"audio_url": data_url(timeline.CLIP.read_bytes()), "timestamps": True}})
    words = ElementTree.parse(timeline.PICTURE).iter(f"{SVG}g")
    shown = [(word.findtext(f"{SVG}text"), word.get("data-start"), word.get("data-end")) for word in words]
    assert shown == [(w["word"], str(w["start"]), str(w["end"])) for w in response["timestamps"]["word"]]
    assert timeline.PICTURE.read_text() == timeline.picture(response)


def test_timeline_is_of_a_clip_that_is_transcribed_right(ask: Any, clips: list[Clip]) -> None:
    (clip,) = [clip for clip in clips if clip.path == timeline.CLIP]
    assert ask({"input": {"audio_url": data_url(clip.path.read_bytes())}})["text"] == clip.text


def test_charts_are_of_the_committed_results() -> None:
    results = chart.read_results()
    assert chart.SPEED.read_text() == chart.speed(results)
    for stem, result in results.items():
        assert (chart.RESULTS / f"{stem}.svg").read_text() == chart.curve(result), stem
    drawn = chart.batching(json.loads(chart.BATCHING.read_text()))
    assert chart.BATCHING.with_suffix(".svg").read_text() == drawn
    assert chart.CALIBRATION.read_text() == chart.calibration(json.loads(chart.CONFIDENCE.read_text()))
