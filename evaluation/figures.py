"""The figures of an evaluation: as rows of a table, and as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compare import Comparison, errors_of, rate_interval
from cost import Cost, measure_cost
from results import Outcome, without_secrets
from scoring import WordErrors
from timing import TimingErrors, measure_timing

Facts = Sequence[tuple[str, str]]
"""Names of figures with their values, as people read them."""

# At most this many failures are listed in the terminal; the results have all.
_LISTED = 20


@dataclass(frozen=True)
class Summary:
    """The figures of an evaluation.

    Attributes:
        source: What was transcribed.
        target: What transcribed it.
        model: What the target says of its model.
        utterances: Number of utterances.
        failures: How many of them have no transcript, by the code of the failure.
        errors: Word errors. Of an utterance without a transcript all words are missing.
        interval: The 95 percent interval of their rate, from a bootstrap over utterances.
        transcribed: Word errors of the utterances that have a transcript.
        wordless: Number of transcribed utterances in which nothing is said. They are no part of the word errors.
        wordless_words: Number of words that were heard in those.
        timing: Errors of the times of words, where the reference has times.
        cost: Audio, time and money.
    """

    source: str
    target: str
    model: Mapping[str, str]
    utterances: int
    failures: Mapping[str, int]
    errors: WordErrors
    interval: tuple[float, float] | None
    transcribed: WordErrors
    wordless: int
    wordless_words: int
    timing: TimingErrors | None
    cost: Cost

    @property
    def failed(self) -> int:
        """Number of utterances without a transcript."""
        return sum(self.failures.values())


def summarise(
    outcomes: Sequence[Outcome],
    source: str,
    target: str,
    model: Mapping[str, str],
    price_per_hour: float | None = None,
    repeated: Sequence[Outcome] = (),
) -> Summary:
    """Return the figures of outcomes.

    Args:
        outcomes: One for each utterance.
        source: What was transcribed.
        target: What transcribed it.
        model: What the target says of its model.
        price_per_hour: Dollars for an hour of a worker.
        repeated: Earlier outcomes of the same utterances, which failed. They only cost.
    """
    counted = [(outcome, errors_of(outcome)) for outcome in outcomes]
    scored = [(outcome, errors) for outcome, errors in counted if errors.words]
    wordless = [errors for outcome, errors in counted if not errors.words and outcome.hypothesis is not None]
    return Summary(
        source=source,
        target=target,
        model=model,
        utterances=len(outcomes),
        failures=dict(Counter(outcome.error.code for outcome in outcomes if outcome.error).most_common()),
        errors=sum((errors for _, errors in scored), WordErrors()),
        interval=rate_interval([errors for _, errors in scored]),
        transcribed=sum((errors for outcome, errors in scored if outcome.hypothesis is not None), WordErrors()),
        wordless=len(wordless),
        wordless_words=sum(errors.insertions for errors in wordless),
        timing=measure_timing(outcomes),
        cost=measure_cost(outcomes, price_per_hour, repeated),
    )


def facts(summary: Summary) -> Facts:
    """Return the figures that there are, as people read them."""
    errors, cost = summary.errors, summary.cost
    rows = [
        ("Recordings", summary.source),
        ("Target", summary.target),
        ("Model", _model(summary.model)),
        ("Utterances", f"{summary.utterances:,}"),
        ("Failed", _failed(summary)),
    ]
    if errors.rate is not None:
        rows.append(("Word error rate", f"{_percent(errors.rate)}{_interval(summary.interval)}"))
        kinds = f"{errors.substitutions:,} substituted, {errors.deletions:,} missing, {errors.insertions:,} added"
        rows.append(("Word errors", f"{kinds}, of {errors.words:,} words"))
    if summary.failed and summary.transcribed.rate is not None:
        rows.append(("Word error rate without the failed", _percent(summary.transcribed.rate)))
    if summary.wordless:
        rows.append(
            (
                "Recordings in which nothing is said",
                f"{summary.wordless:,}, with {summary.wordless_words:,} words heard",
            )
        )
    if summary.timing:
        rows += _timing(summary.timing)
    return [*rows, *_cost(cost)]


def _model(model: Mapping[str, str]) -> str:
    known = [model.get(field) for field in ("model", "engine", "device", "precision")]
    return ", ".join(filter(None, known)) or "not known"


def _failed(summary: Summary) -> str:
    by_code = ", ".join(f"{code}: {count:,}" for code, count in summary.failures.items())
    return f"{summary.failed:,} ({by_code})" if by_code else "0"


def _timing(timing: TimingErrors) -> list[tuple[str, str]]:
    return [
        ("Words with times", f"{timing.matched:,} of {timing.words:,} heard"),
        ("Starts off by", f"{timing.start_median:.0f} ms (median), {timing.start_p95:.0f} ms (95 percent)"),
        ("Ends off by", f"{timing.end_median:.0f} ms (median), {timing.end_p95:.0f} ms (95 percent)"),
    ]


def _cost(cost: Cost) -> list[tuple[str, str]]:
    rows = [("Audio", f"{cost.audio_seconds / 3600:.2f} hours"), ("Wall clock", f"{cost.wall_seconds:.1f} s")]
    if cost.wall_rtfx is not None:
        rows.append(("RTFx by wall clock", f"{cost.wall_rtfx:.1f}"))
    if cost.worker_seconds is None:
        reason = "the target does not tell it" if cost.audio_seconds else "nothing was transcribed"
        rows.append(("Worker time", f"not known: {reason}"))
        return rows
    workers = "workers without names, taken for one" if cost.workers is None else counted(cost.workers, "worker")
    rows.append(("Worker time", f"{cost.worker_seconds:.1f} s, {workers}"))
    if cost.rtfx is not None:
        rows.append(("RTFx by worker time", f"{cost.rtfx:.1f}"))
    if cost.dollars is not None and cost.dollars_per_1000_hours is not None:
        rows.append(("Cost", f"${cost.dollars:.6f} at ${cost.price_per_hour:g} per hour, without starts and idle time"))
        rows.append(("Cost of 1,000 hours of audio", f"${cost.dollars_per_1000_hours:.2f}"))
    return rows


def as_json(summary: Summary) -> dict[str, Any]:
    """Return the figures as JSON. Rates are errors for each word; times are seconds if their name does not say it."""
    fields = asdict(summary)
    for name, errors in (("errors", summary.errors), ("transcribed", summary.transcribed)):
        fields[name]["rate"] = errors.rate
    cost = summary.cost
    fields["cost"] |= {
        "rtfx": cost.rtfx,
        "wall_rtfx": cost.wall_rtfx,
        "dollars": cost.dollars,
        "dollars_per_1000_hours": cost.dollars_per_1000_hours,
    }
    if summary.timing:
        fields["timing"] = {
            name if name in ("words", "matched") else f"{name}_ms": value for name, value in fields["timing"].items()
        }
    return {"failed": summary.failed, **fields}


def failure_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return lines that name the failed utterances, and why each failed."""
    failed = [(outcome.id, outcome.error) for outcome in outcomes if outcome.error]
    lines = [f"{without_secrets(id_)}: {error.code}: {error.message}" for id_, error in failed[:_LISTED]]
    more = len(failed) - _LISTED
    return [*lines, f"and {more:,} more, in the results"] if more > 0 else lines


def comparison_facts(comparison: Comparison) -> Facts:
    """Return the figures of a comparison, as people read them."""
    # The level that goes with an interval of 95 percent.
    is_clear = comparison.p_value < 0.05
    better = "second" if comparison.difference < 0 else "first"
    verdict = f"the {better} is better, by more than chance" if is_clear else "no difference beyond chance"
    low, high = comparison.low * 100, comparison.high * 100
    return [
        ("Utterances", f"{comparison.utterances:,} with {comparison.words:,} words"),
        ("Word error rate, first", _percent(comparison.first)),
        ("Word error rate, second", _percent(comparison.second)),
        ("Difference", f"{comparison.difference * 100:+.2f} points (95 percent: {low:+.2f} to {high:+.2f})"),
        ("Second better in", f"{comparison.improvement * 100:.1f} percent of the resamples"),
        ("p-value", f"{comparison.p_value:.4f}"),
        ("Verdict", verdict),
    ]


def table(rows: Facts) -> str:
    """Return rows as text in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _percent(rate: float) -> str:
    return f"{rate * 100:.2f} %"


def _interval(interval: tuple[float, float] | None) -> str:
    return f" (95 percent: {interval[0] * 100:.2f} to {interval[1] * 100:.2f})" if interval else ""


def counted(count: int, name: str) -> str:
    """Return a number of things with their name, in the plural where it is needed."""
    return f"{count:,} {name}" + "s" * (count != 1)
