"""The words of one recording under its waveform, as an SVG: `docs/timeline.svg`.

    make pictures                        # this picture and the charts
    python docs/pictures/timeline.py     # this picture alone

The words and times are the worker's response to a request with `timestamps: true`.
"""

import asyncio
import base64
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from chart import document, number, text  # noqa: E402

# A bundled clip that the bundled model transcribes right, and whose words are long enough for the numbers below them.
CLIP = ROOT / "tests" / "speech" / "clip27.flac"
PICTURE = ROOT / "docs" / "timeline.svg"

_WIDTH, _MARGIN = 900, 20
_WAVE_TOP, _WAVE_BOTTOM = 48, 148
_BOX_TOP, _BOX_BOTTOM = 160, 196
_AXIS = 236
_BAR = 4  # pixels from one bar of the waveform to the next


def draw(response: Mapping[str, Any], samples: NDArray[np.float32], sample_rate: int, name: str) -> str:
    """Draw a response's words at their times under the waveform of their recording.

    Args:
        response: What `transcribe` with `timestamps: true` answers.
        samples: The recording, of one channel.
        sample_rate: Samples per second.
        name: What the recording is called.

    Returns:
        An SVG document.
    """
    words = response["timestamps"]["word"]
    duration = len(samples) / sample_rate

    def x(seconds: float) -> float:
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * seconds / duration

    parts = [
        text(_MARGIN, 32, "One response: each word with its start and end in seconds", font_size=15, font_weight=600),
        text(_WIDTH - _MARGIN, 32, f"{name}, {duration:g} s", "muted", "end"),
    ]
    times = sorted({time for word in words for time in (word["start"], word["end"])})
    parts.append(_lines("grid", [(x(time), _WAVE_TOP, _BOX_BOTTOM + 6) for time in times], 1))
    parts += _waveform(samples, [(word["start"] / duration, word["end"] / duration) for word in words])
    for word in words:
        start, end = x(word["start"]), x(word["end"])
        size = f'width="{number(max(end - start - 2, 1))}" height="{_BOX_BOTTOM - _BOX_TOP}"'
        parts.append(
            f'<g data-start="{word["start"]}" data-end="{word["end"]}">'
            f'<rect class="box edge" x="{number(start + 1)}" y="{_BOX_TOP}" {size} rx="4"/>'
            + text((start + end) / 2, _BOX_BOTTOM - 13, word["word"], "ink", "middle", font_size=15)
            + "</g>"
        )
    parts += [text(x(time), _BOX_BOTTOM + 20, f"{time:.2f}", "muted", "middle", font_size=11) for time in times]
    parts += _axis(duration, x(0), x(duration))
    return document(_WIDTH, _AXIS + 32, f"The words of “{response['text']}” under their waveform", parts)


def _waveform(samples: NDArray[np.float32], words: Sequence[tuple[float, float]]) -> list[str]:
    """Draw the peak of each stretch as a bar, in a colour of its own within words (start and end as parts of 1)."""
    count = (_WIDTH - 2 * _MARGIN) // _BAR
    edges = np.linspace(0, len(samples), count + 1).astype(int)
    peaks = np.array([np.abs(samples[start:end]).max() for start, end in pairwise(edges)])
    middle, half = (_WAVE_TOP + _WAVE_BOTTOM) / 2, (_WAVE_BOTTOM - _WAVE_TOP) / 2
    heights = np.maximum(half * peaks / peaks.max(), 0.5)
    bars: dict[str, list[tuple[float, float, float]]] = {"quiet": [], "edge": []}
    for index, height in enumerate(heights):
        is_word = any(start <= (index + 0.5) / count < end for start, end in words)
        left = _MARGIN + (index + 0.5) * _BAR
        bars["edge" if is_word else "quiet"].append((left, middle - height, middle + height))
    return [_lines(style, lines, 2.5) for style, lines in bars.items()]


def _axis(duration: float, left: float, right: float) -> list[str]:
    """Draw the seconds, with a mark at each half of one."""
    marks = [index / 2 for index in range(int(2 * duration) + 1)]
    at = [left + (right - left) * mark / duration for mark in marks]
    labels = [f"{mark:g}" for mark in marks]
    labels[0] = "0 s"
    return [
        f'<path class="base" d="M{number(left)} {_AXIS}H{number(right)}"/>',
        _lines("base", [(place, _AXIS, _AXIS + 5) for place in at], 1),
        *[text(place, _AXIS + 20, label, "muted", "middle") for place, label in zip(at, labels, strict=True)],
    ]


def _lines(style: str, lines: Sequence[tuple[float, float, float]], width: float) -> str:
    """Draw vertical lines, each given as x, top and bottom."""
    path = "".join(f"M{number(x)} {number(top)}V{number(bottom)}" for x, top, bottom in lines)
    return f'<path class="{style}" stroke-width="{width}" d="{path}"/>'


def ask(audio: bytes) -> dict[str, Any]:
    """Return the worker's response for a FLAC file, with timestamps."""
    import handler

    url = f"data:audio/flac;base64,{base64.b64encode(audio).decode()}"
    response: dict[str, Any] = asyncio.run(handler.handler({"input": {"audio_url": url, "timestamps": True}}))
    if response["status"] != "success":
        raise RuntimeError(f"The worker did not transcribe: {response}")
    return response


def picture(response: Mapping[str, Any]) -> str:
    """Draw the README's picture, of the response for its clip."""
    samples, sample_rate = soundfile.read(CLIP, dtype="float32")
    return draw(response, samples, sample_rate, CLIP.name)


def main() -> None:
    """Draw the README's picture anew."""
    PICTURE.write_text(picture(ask(CLIP.read_bytes())))


if __name__ == "__main__":
    main()
