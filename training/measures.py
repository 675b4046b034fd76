"""What is measured of a model, as rows of a table beside the bars that a shipped model should not exceed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scoring import WordErrors
from timing import TimingErrors
from training.seams import Difference, JoinedErrors


@dataclass(frozen=True)
class Rate:
    """A word error rate: errors for each word.

    Attributes:
        errors: What it is made of.
        low: The lower end of its 95 percent interval, from a bootstrap over clips.
        high: The upper end.
    """

    errors: WordErrors
    low: float
    high: float

    @property
    def percent(self) -> float:
        """The rate in percent of the words."""
        return 100 * (self.errors.rate or 0.0)


@dataclass(frozen=True)
class Invented:
    """Words that were heard in a recording in which nobody speaks.

    Attributes:
        worker: Words in the worker's transcript. The worker does not give the model windows without sound.
        model: Words that the model hears in windows without overlap, each as long as the longest of its card.
    """

    worker: int
    model: int


@dataclass(frozen=True)
class Measures:
    """What was measured of a model.

    Attributes:
        name: Its name.
        fields: What the worker says of it.
        windows: Shortest and longest window, and their overlap, in seconds.
        clips: Word error rates of the first voice, by what was transcribed: `SINGLE` and others.
        voices: Word error rates of held-out sentences, by voice.
        hours: Length of all joined recordings.
        joined: Their word errors.
        timing: Their word times.
        invented: Words heard where nobody speaks, by what there is in their place.
    """

    name: str
    fields: Mapping[str, str]
    windows: tuple[float, float, float]
    clips: Mapping[str, Rate]
    voices: Mapping[str, Rate]
    hours: float
    joined: JoinedErrors
    timing: TimingErrors | None
    invented: Mapping[str, Invented]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: What was measured.
        bar: What it must not exceed; empty if nothing is asked of it.
        values: The value of each model, with a mark where it exceeds the bar.
    """

    name: str
    bar: str
    values: tuple[str, ...]


SINGLE = "held out"
"""The sentences of the first voice that are in no training, as they are; also what is joined."""

SILENCE = "digital silence"
"""The recording without speech in which there is nothing at all."""


def rows(models: Sequence[Measures], held_out_voice: str) -> list[Row]:
    """Return the table of one or several models: first what there are bars for, then the rest."""

    def row(name: str, value: Callable[[Measures], str], *bars: tuple[float, Callable[[Measures], float]]) -> Row:
        # As many digits as the table shows: what reads as the bar does not exceed it.
        exceeds = [any(round(measured(model), 2) > bar for bar, measured in bars) for model in models]
        values = tuple(value(model) + " ✗" * failed for model, failed in zip(models, exceeds, strict=True))
        return Row(name, " / ".join(f"≤ {bar:g}" for bar, _ in bars), values)

    def difference(name: str, of: Callable[[JoinedErrors], Difference | None], *bar: float) -> Row:
        def points(model: Measures) -> float:
            found = of(model.joined)
            return found.points if found else 0.0

        return row(name, lambda model: _points(of(model.joined)), *((limit, points) for limit in bar))

    def words(kind: Callable[[Invented], int], is_noise: bool) -> Callable[[Measures], float]:
        return lambda model: sum(kind(each) for name, each in model.invented.items() if (name != SILENCE) == is_noise)

    def timing(which: str) -> tuple[Callable[[Measures], float], Callable[[Measures], float]]:
        return lambda model: _ms(model, f"{which}_median"), lambda model: _ms(model, f"{which}_p95")

    def both(which: str) -> Callable[[Measures], str]:
        median, p95 = timing(which)
        return lambda model: f"{median(model):.0f} / {p95(model):.0f}"

    median, p95 = timing("start")
    first = next(iter(models))
    table = [
        row(
            "WER of single clips, first voice, held out, %",
            _clip(SINGLE),
            (6, lambda model: model.clips[SINGLE].percent),
        ),
        difference("joined clips beyond the same one by one, points", lambda joined: joined.beyond_alone, 0.5),
        difference("words near a seam beyond others, points", lambda joined: joined.near_beyond_elsewhere, 0.2),
        row("words in digital silence: worker", _count(words(_worker, False)), (0, words(_worker, False))),
        row("words in digital silence: model", _count(words(_model, False)), (0, words(_model, False))),
        row("words in low noise: worker", _count(words(_worker, True)), (0, words(_worker, True))),
        row("words in low noise: model", _count(words(_model, True)), (0, words(_model, True))),
        row(
            f"WER of a voice that was not in training ({held_out_voice}), %",
            lambda model: _rate(model.voices[held_out_voice]),
            (35, lambda model: model.voices[held_out_voice].percent),
        ),
        row("word starts, joined: median / 95 percent, ms", both("start"), (40, median), (100, p95)),
        row("word ends, joined: median / 95 percent, ms", both("end")),
        difference("caused by seams: the same words joined and alone, points", lambda joined: joined.caused_by_seams),
        row("WER of joined clips, %", lambda model: f"{100 * model.joined.joined:.2f}"),
        row("WER of the same one by one, %", lambda model: f"{100 * model.joined.alone:.2f}"),
        row("WER near a seam: joined / alone, %", lambda model: _pair(model.joined.near, model.joined.near_alone)),
        row(
            "WER elsewhere: joined / alone, %",
            lambda model: _pair(model.joined.elsewhere, model.joined.elsewhere_alone),
        ),
        row("seams / words near one / words", _sizes),
    ]
    table += [row(f"WER of clips, {name}, %", _clip(name)) for name in first.clips if name != SINGLE]
    table += [
        row(f"WER of {voice}, held out, %", lambda model, voice=voice: _rate(model.voices[voice]))  # type: ignore[misc]
        for voice in first.voices
        if voice != held_out_voice
    ]
    table += [
        row(f"words in {name}: worker / model", lambda model, name=name: _invented(model.invented[name]))  # type: ignore[misc]
        for name in first.invented
        if name != SILENCE
    ]
    return table


def as_text(models: Sequence[Measures], table: Sequence[Row]) -> str:
    """Return the table as lines of text; ✗ marks what exceeds its bar."""
    heads = ["", "bar", *(f"{model.name} ({'/'.join(f'{length:g}' for length in model.windows)})" for model in models)]
    lines = [heads, *([row.name, row.bar, *row.values] for row in table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_json(model: Measures) -> dict[str, Any]:
    """Return the measures of a model as JSON: rates are errors for each word, with what they are made of."""
    fields = asdict(model)
    for group in ("clips", "voices"):
        fields[group] = {
            name: {"rate": rate.errors.rate, "low": rate.low, "high": rate.high, **asdict(rate.errors)}
            for name, rate in getattr(model, group).items()
        }
    return fields


def _worker(invented: Invented) -> int:
    return invented.worker


def _model(invented: Invented) -> int:
    return invented.model


def _clip(name: str) -> Callable[[Measures], str]:
    return lambda model: _rate(model.clips[name])


def _rate(rate: Rate) -> str:
    return f"{rate.percent:.2f} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def _points(difference: Difference | None) -> str:
    if difference is None:
        return "no seams"
    return f"{difference.points:+.2f} ({difference.low:+.1f} to {difference.high:+.1f})"


def _count(words: Callable[[Measures], float]) -> Callable[[Measures], str]:
    return lambda model: f"{words(model):g}"


def _pair(joined: float, alone: float) -> str:
    return f"{100 * joined:.2f} / {100 * alone:.2f}"


def _sizes(model: Measures) -> str:
    return f"{model.joined.seams:,} / {model.joined.words_near:,} / {model.joined.words:,}"


def _invented(invented: Invented) -> str:
    return f"{invented.worker} / {invented.model}"


def _ms(model: Measures, name: str) -> float:
    # Nothing was heard: no time is right.
    return float(getattr(model.timing, name)) if model.timing else float("inf")
