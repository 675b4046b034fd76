"""All options of a request together on a recording of hours, checked and timed.

    make bench-hours

Joins the bundled clips, with pauses of 0.3 to 3 s, to one FLAC file, and sends it through the worker with and without
options. Checks what comes back, and prints the times.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bench import HERE, device_name, word_difference
from clips import SAMPLE_RATE, read_speech
from parakeet_worker.asr.alignment import Span
from parakeet_worker.job.captions import CaptionOptions, captions
from terms import ABSENT_TERMS

EVERYTHING = {"timestamps": True, "captions": "srt", "confidence": True, "keyterms": list(ABSENT_TERMS)}
CAPTIONS = CaptionOptions(format="srt")
_CUE = re.compile(r"\d+\n(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})\n(.*?)\n(?:\n|\Z)", re.DOTALL)


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


def write_hours(hours: float, path: Path) -> None:
    """Join clips, with pauses, to a FLAC file."""
    speech = [samples for samples, _ in read_speech("int16")]
    draw = np.random.default_rng(0)
    written = 0
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
        while written < hours * 3600 * SAMPLE_RATE:
            pause = np.zeros(int(draw.uniform(0.3, 3.0) * SAMPLE_RATE), np.int16)
            for part in (speech[draw.integers(len(speech))], pause):
                file.write(part)
                written += len(part)


def check(plain: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Return what is wrong with the answer of a job with all options, beside that of a job with words alone."""
    words, faults = answer["text"].split(), []
    spans = answer["timestamps"]
    if [entry["word"] for entry in spans["word"]] != words:
        faults.append("the words are not those of the text")
    if " ".join(entry["segment"] for entry in spans["segment"]) != answer["text"]:
        faults.append("the segments are not the text")
    if any(entry["end"] - entry["start"] > 30.0005 for entry in spans["segment"]):
        faults.append("a segment lasts more than 30 s")
    if not all(0 <= entry["confidence"] <= 1 for level in ("word", "segment") for entry in spans[level]):
        faults.append("a confidence is not between 0 and 1")
    found, expected = by_minute(answer), by_minute(plain)
    texts = [(found.get(minute, ""), expected.get(minute, "")) for minute in found.keys() | expected.keys()]
    changed = word_difference([one for one, _ in texts], [other for _, other in texts])
    print(f"The key terms changed {changed:.2%} of {len(words)} words.")
    return faults + check_cues(answer["captions"], words)


def by_minute(answer: dict[str, Any]) -> dict[int, str]:
    """Return the words of each minute, since comparing hours at once takes much memory."""
    minutes: dict[int, list[str]] = {}
    for entry in answer["timestamps"]["word"]:
        minutes.setdefault(int(entry["start"] // 60), []).append(entry["word"])
    return {minute: " ".join(words) for minute, words in minutes.items()}


def check_cues(file: str, words: list[str]) -> list[str]:
    """Return what is wrong with a SubRip file of words."""
    cues = []
    for found in _CUE.findall(file):
        hours, minutes, seconds, rest, *until, text = found
        start = int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(rest) / 1000
        end = int(until[0]) * 3600 + int(until[1]) * 60 + int(until[2]) + int(until[3]) / 1000
        cues.append((start, end, text.split("\n")))
    faults = []
    if [word for _, _, lines in cues for line in lines for word in line.split()] != words:
        faults.append("the words of the captions are not those of the text")
    if any(len(line) > CAPTIONS.max_line for _, _, lines in cues for line in lines):
        faults.append("a line is too long")
    if any(len(lines) > CAPTIONS.max_lines for _, _, lines in cues):
        faults.append("a cue has too many lines")
    lengths = [round(end - start, 3) for start, end, _ in cues]
    if not CAPTIONS.min_duration <= min(lengths) <= max(lengths) <= CAPTIONS.max_duration:
        faults.append(f"a cue lasts {min(lengths)} or {max(lengths)} s")
    if any(round(after[0] - before[1], 3) < CAPTIONS.min_gap for before, after in pairwise(cues)):
        faults.append("a gap is too short")
    print(f"{len(cues)} cues of {min(lengths):g} to {max(lengths):g} s.")
    return faults


def captions_seconds(spans: list[dict[str, Any]], duration: float, hours: float) -> float:
    """Return the CPU seconds of the captions of the first hours of a recording, the least of five runs."""
    words = [Span(entry["word"], entry["start"], entry["end"]) for entry in spans if entry["end"] <= hours * 3600]
    times = []
    for _ in range(5):
        started = time.process_time()
        captions(words, min(duration, hours * 3600), CAPTIONS)
        times.append(time.process_time() - started)
    print(f"Captions of {hours:g} h, {len(words)} words: {min(times) * 1000:.0f} ms of CPU.")
    return min(times)


def main() -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(description="Send hours through the worker with all options.")
    parser.add_argument("--hours", type=float, default=3.0)
    given = parser.parse_args()
    os.environ |= {"RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true", "RUNPOD_LOG_LEVEL": "ERROR"}
    sys.path.insert(0, str(HERE.parent))
    from parakeet_worker.settings import Settings
    from parakeet_worker.startup import build_worker

    print(f"{given.hours:g} hours on {device_name('cpu')}")
    with tempfile.TemporaryDirectory() as folder:
        write_hours(given.hours, Path(folder) / "hours.flac")
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        worker = build_worker(Settings.from_env())
        asyncio.run(worker.ready())
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        url = f"http://127.0.0.1:{server.server_port}/hours.flac"
        answers = []
        for name, options in (("words alone", {"timestamps": ["word"]}), ("all options", EVERYTHING)):
            answer = asyncio.run(worker.answer({"input": {"audio_url": url, **options}}))
            if answer["status"] != "success":
                sys.exit(f"{name}: {answer}")
            rtfx = answer["duration"] / answer["processing_time"]
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024
            size = len(json.dumps(answer, ensure_ascii=False).encode()) / 1e6
            print(f"{name}: RTFx {rtfx:.0f}, {peak:.0f} MB beyond idle, {size:.1f} MB of JSON")
            answers.append(answer)
        server.shutdown()
        worker.close()
    plain, answer = answers
    if "notice" in answer:
        sys.exit(f"A part was left out, so it cannot be checked: {answer['notice']}.")
    faults = check(plain, answer)
    for hours in sorted({min(1.0, given.hours), given.hours}):
        captions_seconds(answer["timestamps"]["word"], answer["duration"], hours)
    sys.exit("; ".join(faults) if faults else None)


if __name__ == "__main__":
    main()
