"""A chart of RTFx over concurrency, as an SVG without a plotting library."""

import math
from collections.abc import Mapping

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 360, 60, 210, 30, 45
_COLORS = ("#1a7f37", "#57606a", "#0969da", "#bf3989")


def draw(title: str, line: Mapping[int, float], levels: Mapping[str, float]) -> str:
    """Draw the worker's RTFx over the number of jobs in flight, with other subjects as level lines.

    Args:
        title: What was measured.
        line: The worker's RTFx by jobs in flight.
        levels: RTFx of each other subject, by its name.

    Returns:
        An SVG document.
    """
    top = max(*line.values(), *levels.values()) * 1.1
    last = math.log2(max(line))

    def x(jobs: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log2(jobs) / last

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top

    parts = [f'<text x="{_LEFT}" y="18" font-size="14" font-weight="bold">{title}</text>']
    step = 10 ** math.floor(math.log10(top)) / (1 if top / 10 ** math.floor(math.log10(top)) >= 4 else 4)
    for i in range(int(top / step) + 1):
        at = y(i * step)
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{i * step:g}</text>')
    below = _HEIGHT - _BOTTOM + 18
    parts += [f'<text x="{x(jobs):.1f}" y="{below}" text-anchor="middle">{jobs}</text>' for jobs in line]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">jobs in flight</text>')
    parts.append(
        f'<text x="14" y="{_HEIGHT / 2}" transform="rotate(-90 14 {_HEIGHT / 2})" text-anchor="middle">RTFx</text>'
    )
    points = " ".join(f"{x(jobs):.1f},{y(value):.1f}" for jobs, value in line.items())
    parts.append(f'<polyline points="{points}" fill="none" stroke="{_COLORS[0]}" stroke-width="2.5"/>')
    labels = {"this worker": list(line.values())[-1], **levels}
    for color, (name, value) in zip(_COLORS, labels.items(), strict=False):
        if name in levels:
            dashes = f'stroke="{color}" stroke-width="1.5" stroke-dasharray="6 4"'
            parts.append(f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" {dashes}/>')
        label = f"{name}: {value:.0f}" if value >= 10 else f"{name}: {value:.1f}"
        parts.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{y(value) + 4:.1f}" fill="{color}">{label}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
