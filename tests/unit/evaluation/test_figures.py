import json

from compare import compare
from figures import as_json, comparison_facts, facts, failure_lines, summarise, table
from outcomes import outcome
from results import WordTime
from scoring import WordErrors

MODEL = {"model": "parakeet", "version": "1", "engine": "plain", "device": "cpu", "precision": "float32"}


def test_a_failed_utterance_is_counted() -> None:
    summary = summarise(
        [outcome("a", "a b c d", "a b x d"), outcome("b", "a b", None), outcome("c", "a", None)], "clips", "here", MODEL
    )
    assert summary.errors == WordErrors(1, 3, 0, 7)
    assert summary.transcribed == WordErrors(1, 0, 0, 4)
    assert (summary.utterances, summary.failed, summary.failures) == (3, 2, {"corrupt_audio": 2})
    rows = dict(facts(summary))
    assert rows["Failed"] == "2 (corrupt_audio: 2)"
    assert rows["Word error rate"].startswith("57.14 % (95 percent: ")
    assert rows["Word errors"] == "1 substituted, 3 missing, 0 added, of 7 words"
    assert rows["Word error rate without the failed"] == "25.00 %"


def test_words_where_nothing_is_said_are_told_apart() -> None:
    silent = [outcome("b", "", "boats sail past"), outcome("c", "[noise]", "")]
    summary = summarise([outcome("a", "a b", "a b"), *silent], "clips", "here", {})
    assert summary.errors == WordErrors(0, 0, 0, 2)
    rows = dict(facts(summary))
    assert rows["Recordings in which nothing is said"] == "2, with 3 words heard"
    assert rows["Model"] == "not known"


def test_only_what_was_measured_is_shown() -> None:
    bare = {"executions": (), "worker_seconds": None}
    names = {name for name, _ in facts(summarise([outcome("a", "a", "a", **bare)], "clips", "here", MODEL, 1.0))}
    assert not {"Starts off by", "Cost", "RTFx by worker time", "Word error rate without the failed"} & names
    for hypothesis, reason in (("a", "the target does not tell it"), (None, "nothing was transcribed")):
        rows = dict(facts(summarise([outcome("a", "a", hypothesis, **bare)], "clips", "here", MODEL)))
        assert rows["Worker time"] == f"not known: {reason}"
    words = (WordTime("a", 0.0, 0.1),)
    full = [outcome("a", "a", "a", reference_words=words, hypothesis_words=words)]
    rows = dict(facts(summarise(full, "clips", "here", MODEL, 0.36)))
    assert rows["Words with times"] == "1 of 1 heard"
    assert rows["Starts off by"] == "0 ms (median), 0 ms (95 percent)"
    assert rows["Worker time"] == "1.0 s, 1 worker"
    assert rows["RTFx by worker time"] == "10.0"
    assert rows["RTFx by wall clock"] == "5.0"
    assert rows["Cost"] == "$0.000100 at $0.36 per hour, without starts and idle time"
    assert rows["Cost of 1,000 hours of audio"] == "$36.00"


def test_the_figures_as_json() -> None:
    summary = summarise([outcome("a", "a b c d", "a b x d"), outcome("b", "a b", None)], "clips", "here", MODEL, 0.36)
    found = json.loads(json.dumps(as_json(summary), allow_nan=False))
    assert found["errors"] == {"substitutions": 1, "deletions": 2, "insertions": 0, "words": 6, "rate": 0.5}
    assert found["failed"] == 1
    assert found["cost"]["rtfx"] == 10
    assert found["timing"] is None


def test_failures_are_listed() -> None:
    lines = failure_lines([outcome("a"), *(outcome(f"f{number}", "a", None) for number in range(25))])
    assert lines[0] == "f0: corrupt_audio: the audio is damaged"
    assert (len(lines), lines[-1]) == (21, "and 5 more, in the results")


def test_the_verdict_of_a_comparison() -> None:
    good = [outcome(str(number), "a b c", "a b c") for number in range(50)]
    bad = [outcome(str(number), "a b c", "a b x") for number in range(50)]
    rows = dict(comparison_facts(compare(bad, good)))
    assert rows["Verdict"] == "the second is better, by more than chance"
    assert rows["Difference"] == "-33.33 points (95 percent: -33.33 to -33.33)"
    assert dict(comparison_facts(compare(good, bad)))["Verdict"] == "the first is better, by more than chance"
    assert dict(comparison_facts(compare(good, good)))["Verdict"] == "no difference beyond chance"


def test_a_table_has_two_columns() -> None:
    assert table([("a", "1"), ("long", "2")]) == "a     1\nlong  2"
