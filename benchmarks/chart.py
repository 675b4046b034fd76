"""Charts of the benchmarks' results, as SVG without a plotting library.

    make pictures                   # these charts and the timeline of the README
    python benchmarks/chart.py      # these charts alone

For each JSON file of `bench.py` in `benchmarks/results/`, draws RTFx over jobs in flight, beside that file, and for
that of `batching.py` RTFx and latencies. Draws `docs/speed.svg` from three of them: the worker beside NeMo's own
`transcribe()`. Draws `docs/confidence.svg` from that of `confidence.py`.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SPEED = ROOT / "docs" / "speed.svg"
BATCHING = RESULTS / "batching.json"
CONFIDENCE = RESULTS / "confidence.json"
CALIBRATION = ROOT / "docs" / "confidence.svg"

Result = Mapping[str, Any]  # what bench.py, batching.py and confidence.py write as JSON

# Classes of fills and of strokes: the colour on a light page and on a dark one.
_FILLS = {
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#9198a1"),
    "worker": ("#1a7f37", "#57ab5a"),
    "worker-text": ("#116329", "#7fd858"),
    "nemo": ("#8c959f", "#6e7681"),
    "box": ("#dafbe1", "#12372a"),
}
_STROKES = {
    "grid": ("#d8dee4", "#30363d"),
    "base": ("#59636e", "#9198a1"),
    "edge": ("#1a7f37", "#57ab5a"),
    "offline": ("#0969da", "#58a6ff"),
    "quiet": ("#afb8c1", "#484f58"),
}
_CARD = (("#ffffff", "#d0d7de"), ("#0d1117", "#30363d"))
_FONT = "-apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"

# What the README compares: by the file of the results, the model and the arithmetic in words.
_SPEED = {
    "twin-cpu": (
        "Parakeet-TDT-0.6B-v2 with random weights (617.8 M parameters)",
        "matrix products in bfloat16 in the worker, in float32 in NeMo",
    ),
    "embedded-cpu": ("The bundled model (4.8 M parameters)", "float32 in both"),
    "embedded-cpu-long": ("The bundled model, long recordings", "float32 in both"),
}
_SPEED_LEVELS = (1, 64)


def document(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """Return an SVG document: a card in the colours of the reader's theme, with `parts` on it.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        title: What the picture shows, in words.
        parts: The elements, whose classes are those of this module.
    """
    light, dark = _rules(0), _rules(1)
    style = f"{light}@media(prefers-color-scheme:dark){{{dark}}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family="{_FONT}" font-size="13">\n<title>{escape(title)}</title>\n<style>{style}</style>\n'
        f'<rect class="card" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _rules(theme: int) -> str:
    """Return the style of the card and of the classes, on a light (0) or a dark (1) page."""
    fill, stroke = _CARD[theme]
    rules = [f".card{{fill:{fill};stroke:{stroke}}}"]
    rules += [f".{name}{{fill:{colors[theme]}}}" for name, colors in _FILLS.items()]
    rules += [f".{name}{{stroke:{colors[theme]}}}" for name, colors in _STROKES.items()]
    return "".join(rules)


def text(x: float, y: float, content: str, style: str = "ink", anchor: str = "start", **attributes: object) -> str:
    """Return a line of text of a class, at its baseline; attributes are written with `_` for `-`."""
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" x="{number(x)}" y="{number(y)}"{where}{more}>{escape(content, quote=False)}</text>'


def number(value: float) -> str:
    """Return a coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def curve(result: Result) -> str:
    """Draw the worker's RTFx over the number of jobs in flight, with NeMo's as level lines."""
    width, height, left, right, top, bottom = 640, 360, 64, 210, 56, 52
    line = {int(jobs): float(rtfx) for jobs, rtfx in result["rtfx_by_jobs"].items()}
    reference, offline, *_ = result["rows"]
    levels: dict[str, tuple[str, float]] = {
        "transcribe([path])": ("base", reference["rtfx"]),
        "NeMo offline": ("offline", offline["rtfx"]),
    }
    highest = max(*line.values(), *(rtfx for _, rtfx in levels.values())) * 1.1

    def x(jobs: float) -> float:
        return left + (width - left - right) * math.log2(jobs) / math.log2(max(line))

    def y(rtfx: float) -> float:
        return height - bottom - (height - top - bottom) * rtfx / highest

    title = f"{result['model']}, {result['device']}"
    parts = [text(20, 30, title, font_size=15, font_weight=600)]
    step = _step(highest, 8)
    for index in range(int(highest / step) + 1):
        at = number(y(index * step))
        parts.append(f'<path class="grid" d="M{left} {at}H{width - right}"/>')
        parts.append(text(left - 8, y(index * step) + 4, f"{index * step:g}", "muted", "end"))
    parts += [text(x(jobs), height - bottom + 18, str(jobs), "muted", "middle") for jobs in line]
    parts.append(text((left + width - right) / 2, height - 14, "jobs in flight", "muted", "middle"))
    middle = (top + height - bottom) / 2
    parts.append(text(20, middle, "RTFx", "muted", "middle", transform=f"rotate(-90 20 {number(middle)})"))
    points = " ".join(f"{number(x(jobs))},{number(y(rtfx))}" for jobs, rtfx in line.items())
    for style, rtfx in levels.values():
        parts.append(f'<path class="{style}" d="M{left} {number(y(rtfx))}H{width - right}" stroke-dasharray="6 4"/>')
    parts.append(f'<polyline class="edge" points="{points}" fill="none" stroke-width="2.5"/>')
    labels = {"this worker": line[max(line)], **{name: rtfx for name, (_, rtfx) in levels.items()}}
    below = math.inf
    for name, rtfx in sorted(labels.items(), key=lambda label: label[1]):
        below = min(y(rtfx) + 4, below - 16)  # labels of lines that are near each other are moved apart
        style = "ink" if name in levels else "worker-text"
        parts.append(text(width - right + 8, below, f"{name}: {_round(rtfx)}", style))
    return document(width, height, f"RTFx over jobs in flight: {title}", parts)


def speed(results: Mapping[str, Result]) -> str:
    """Draw how many times as fast as NeMo's own `transcribe()` the worker is.

    Args:
        results: What bench.py wrote, by the name of its file without suffix.

    Returns:
        An SVG document.

    Raises:
        ValueError: The results are of different machines.
    """
    width, left, right, row, y = 900, 220, 160, 22, 106.0
    groups = [(labels, results[stem], _speed_rows(results[stem])) for stem, labels in _SPEED.items()]
    devices = {result["device"] for _, result, _ in groups}
    if len(devices) != 1:
        raise ValueError(f"The results are of different machines: {', '.join(sorted(devices))}.")
    unit = (width - left - right) / max(ratio for _, _, rows in groups for _, ratio, _ in rows)

    title = "Speed beside NeMo's own transcribe()"
    machine = f"{devices.pop()}, without a GPU. RTFx is seconds of audio for each second of work."
    parts = [
        text(20, 34, title, font_size=17, font_weight=600),
        text(20, 57, machine, "muted"),
        text(20, 76, "1x is NeMo's transcribe([path]), called for one recording after the other.", "muted"),
    ]
    for (model, arithmetic), result, rows in groups:
        mean = result["audio_s"] / result["recordings"]
        rounds = "1 round" if result["rounds"] == 1 else f"median of {result['rounds']} rounds"
        about = f"{result['recordings']} recordings of {mean:.0f} s on average, {rounds}, {arithmetic}"
        parts.append(text(20, y + 8, model, font_size=14, font_weight=600))
        parts.append(text(20, y + 27, about, "muted"))
        y += 35
        for index, (name, ratio, rtfx) in enumerate(rows):
            is_worker = name.startswith("worker")
            top, end, line = y + index * row, left + unit * ratio, y + index * row + 15.5
            parts.append(text(left - 10, line, name, "ink" if is_worker else "muted", "end"))
            shape = f'x="{left}" y="{number(top + 2)}" width="{number(end - left)}" height="{row - 4}"'
            parts.append(f'<rect class="{"worker" if is_worker else "nemo"}" {shape} rx="2"/>')
            style, weight = ("worker-text", 600) if is_worker else ("muted", 400)
            parts.append(text(end + 8, line, f"{ratio:.2f}x", style, font_weight=weight))
            parts.append(text(end + 58, line, f"RTFx {_round(rtfx)}", "muted"))
        below = y + len(rows) * row + 2
        parts.append(
            f'<path class="base" d="M{number(left + unit)} {number(y)}V{number(below)}" stroke-dasharray="4 3"/>'
        )
        y = below + 26
    return document(width, round(y - 10), f"{title}, on the same machine and weights", parts)


def _speed_rows(result: Result) -> list[tuple[str, float, float]]:
    """Return the name, the ratio and the RTFx of each bar."""
    names = {result["rows"][0]["name"]: "NeMo, one by one"}
    size = result["rows"][1]["name"].removeprefix("NeMo offline, batches of ")
    names[result["rows"][1]["name"]] = f"NeMo, best batch size ({size})"
    for level in _SPEED_LEVELS:
        names[f"worker, {level} in flight"] = f"worker, {level} job{'s' if level > 1 else ''} in flight"
    rows = {row["name"]: row for row in result["rows"]}
    return [(shown, rows[name]["ratio"], rows[name]["rtfx"]) for name, shown in names.items()]


# How the batchers of batching.py are drawn, in their order: class and width of the stroke.
_LINES = (("edge", 2.5), ("offline", 1.8), ("quiet", 1.8), ("base", 1.8))

# Marks of the logarithmic axis of latencies, in ms, and its ends.
_DECADES = {10.0: "10 ms", 100.0: "100 ms", 1_000.0: "1 s", 10_000.0: "10 s"}
_LEAST_MS, _MOST_MS = 5.0, 12_000.0


def batching(result: Result) -> str:
    """Draw RTFx and latency over the number of jobs in flight, for each device and batcher of `batching.py`."""
    width, height, left, step, panel = 1_000, 560, 58, 188, 136
    top, below, tall = 126, 342, 160  # of the two rows of panels
    title = "Ways to make batches, on simulated devices"
    about = (
        "Above: seconds of audio per second (RTFx). Below: from a job's arrival to its answer, "
        "95 percent of jobs at most (lines) and the median (dashes)."
    )
    parts = [text(20, 32, title, font_size=17, font_weight=600), text(20, 54, about, "muted")]
    x = 20.0
    for name, (style, stroke) in zip(result["devices"][0]["loads"][0]["batchers"], _LINES, strict=True):
        parts.append(f'<path class="{style}" d="M{number(x)} 76H{number(x + 26)}" stroke-width="{stroke}"/>')
        parts.append(text(x + 33, 80, name))
        x += 66 + 7.2 * len(name)
    for index, device in enumerate(result["devices"]):
        at = left + index * step
        loads = [load for load in device["loads"] if load["in_flight"]]
        parts.append(text(at + panel / 2, top - 12, device["name"], anchor="middle", font_weight=600))
        highest = 1.05 * max(each["rtfx"] for load in loads for each in load["batchers"].values())
        distance = _step(highest, 5)
        marks = [mark * distance for mark in range(int(highest / distance) + 1)]
        parts += _panel(
            (at, top, panel, tall), loads, {"rtfx": ""}, {mark / highest: f"{mark:,g}" for mark in marks}, highest
        )
        shares = {_latency_share(mark): label for mark, label in _DECADES.items()}
        parts += _panel((at, below, panel, tall), loads, {"p95_ms": "", "p50_ms": "3 3"}, shares, None)
    parts.append(text(width / 2, height - 18, "jobs in flight", "muted", "middle"))
    return document(width, height, f"{title}: RTFx and latency over jobs in flight", parts)


def _panel(
    box: tuple[float, float, float, float],
    loads: Sequence[Result],
    keys: Mapping[str, str],
    marks: Mapping[float, str],
    highest: float | None,
) -> list[str]:
    """Draw lines over jobs in flight.

    Args:
        box: Left and top edge, width and height.
        loads: The loads of one device.
        keys: What is drawn of each batcher, with the dashes of its lines.
        marks: Labels of the levels, by their share of the height.
        highest: The value at the top. None for latencies on a logarithmic axis.
    """
    left, top, width, height = box
    levels = [load["in_flight"] for load in loads]
    xs = [left + width * math.log2(level) / math.log2(levels[-1]) for level in levels]
    parts = []
    for share, label in marks.items():
        y = top + height * (1 - share)
        parts.append(f'<path class="grid" d="M{number(left)} {number(y)}h{number(width)}"/>')
        parts.append(text(left - 6, y + 4, label, "muted", "end", font_size=11))
    for x, level in zip(xs, levels, strict=True):
        parts.append(text(x, top + height + 17, str(level), "muted", "middle", font_size=11))
    for name, (style, stroke) in reversed(list(zip(loads[0]["batchers"], _LINES, strict=True))):
        for key, dashes in keys.items():
            values = [load["batchers"][name][key] for load in loads]
            shares = [value / highest if highest else _latency_share(value) for value in values]
            points = " ".join(
                f"{number(x)},{number(top + height * (1 - share))}" for x, share in zip(xs, shares, strict=True)
            )
            dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
            parts.append(f'<polyline class="{style}" points="{points}" fill="none" stroke-width="{stroke}"{dashed}/>')
    return parts


def _latency_share(ms: float) -> float:
    """Return how high a latency is drawn, as a share of the panel's height."""
    return math.log(ms / _LEAST_MS) / math.log(_MOST_MS / _LEAST_MS)


def calibration(result: Result) -> str:
    """Draw what share of the words is right over their confidence, and how many there are, by `confidence.py`."""
    width, left, top, side, tall = 560, 66, 84, 400, 46
    below = top + side + 14 + tall  # of the numbers of words
    title = "Confidence of words"
    ratio = result["ways"]["mean"]["ratio"]
    words = f"{result['words']:,} words, {result['wrong']:.1%} wrong"
    about = f"{words}; of the lowest tenth {ratio:.1f} times as many as of the rest"
    parts = [text(20, 32, title, font_size=17, font_weight=600), text(20, 54, about, "muted")]
    for tick in range(0, 11, 2):
        x, y = left + side * tick / 10, top + side * (1 - tick / 10)
        parts.append(f'<path class="grid" d="M{left} {number(y)}h{side}M{number(x)} {top}v{side}"/>')
        parts.append(text(left - 8, y + 4, f"{tick * 10}%", "muted", "end"))
        parts.append(text(x, below + 18, f"{tick / 10:g}", "muted", "middle"))
    parts.append(f'<path class="base" d="M{left} {top + side}l{side} {-side}" stroke-dasharray="4 3"/>')
    most = max(each["words"] for each in result["bins"])
    points = []
    for each in result["bins"]:
        x, y = left + side * each["confidence"], top + side * (1 - each["right"])
        points.append(f"{number(x)},{number(y)}")
        parts.append(f'<circle class="worker" cx="{number(x)}" cy="{number(y)}" r="4"/>')
        bar = max(1.0, tall * each["words"] / most)
        shape = f'x="{number(x - 9)}" y="{number(below - bar)}" width="18" height="{number(bar)}"'
        parts.append(f'<rect class="nemo" {shape} rx="1"/>')
    parts.append(f'<polyline class="edge" points="{" ".join(points)}" fill="none" stroke-width="2"/>')
    parts.append(text(left + side + 10, top + 14, "right", "worker-text"))
    parts.append(text(left + side + 10, below - 4, "words", "muted"))
    return document(width, below + 36, f"{title}: the share that is right over the confidence", parts)


def _step(highest: float, most: int) -> float:
    """Return a round distance of grid lines, of which there are `most` at most above zero."""
    digit = 10.0 ** math.floor(math.log10(highest))
    return next(step for step in (digit / 5, digit / 2, digit, 2 * digit, 5 * digit) if highest / step <= most)


def _round(rtfx: float) -> str:
    return f"{rtfx:.0f}" if rtfx >= 20 else f"{rtfx:.1f}"


def read_results() -> dict[str, Result]:
    """Return the committed results of bench.py, by the name of their file without suffix."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    return {stem: result for stem, result in found.items() if "rtfx_by_jobs" in result}


def main() -> None:
    """Draw the charts of the committed results anew."""
    results = read_results()
    for stem, result in results.items():
        (RESULTS / f"{stem}.svg").write_text(curve(result))
    BATCHING.with_suffix(".svg").write_text(batching(json.loads(BATCHING.read_text())))
    SPEED.write_text(speed(results))
    CALIBRATION.write_text(calibration(json.loads(CONFIDENCE.read_text())))


if __name__ == "__main__":
    main()
