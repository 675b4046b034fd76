import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from manifest import Utterance
from parakeet_client import Transcript
from parakeet_client.contract import Span
from results import Execution, Failure, Outcome, WordTime
from targets import Answer, StoppedError, TargetError
from transcription import transcribe_all

TRANSCRIPT = Transcript("Hi.", 2.5, 0.1, 16_000, "now", words=(Span("Hi.", 0.1, 0.3, 0.9),))


class ScriptedTarget:
    """Answers as it is told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.stopped = threading.Event()

    def model(self) -> dict[str, str]:
        return {}

    def transcribe(self, audio: str) -> Answer:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            answer: Answer = self.answer(self, audio)
            return answer
        finally:
            with self.lock:
                self.running -= 1

    def stop(self) -> None:
        self.stopped.set()


def utterances(count: int) -> list[Utterance]:
    words = (WordTime("Hi", 0.0, 0.2),)
    return [Utterance(f"u{number}", f"/a/{number}", "Hi", words, 9.0) for number in range(count)]


def run(target: ScriptedTarget, given: Any, concurrency: int = 4) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    transcribe_all(given, target, concurrency, lambda outcome: outcomes.update({outcome.id: outcome}))
    return outcomes


def wait_until_stopped(target: ScriptedTarget, _: str) -> Answer:
    assert target.stopped.wait(10)
    raise StoppedError


def test_an_outcome_has_all_that_is_known() -> None:
    executions = (Execution("w", 1.0, 2.0), Execution("w", 3.0, 3.5))
    before = time.time()
    [done] = run(ScriptedTarget(lambda *_: Answer(TRANSCRIPT, None, executions)), utterances(1)).values()
    assert (done.id, done.audio, done.reference, done.reference_words) == ("u0", "/a/0", "Hi", utterances(1)[0].words)
    assert (done.hypothesis, done.duration, done.error) == ("Hi.", 2.5, None)
    assert done.hypothesis_words == (WordTime("Hi.", 0.1, 0.3),)
    assert (done.worker_seconds, done.executions) == (1.5, executions)
    assert before <= done.sent <= done.sent + done.seconds <= time.time()


def test_a_failure_is_an_outcome() -> None:
    failure = Failure("corrupt_audio", "it is damaged")
    [done] = run(ScriptedTarget(lambda *_: Answer(None, failure, ())), utterances(1)).values()
    assert (done.hypothesis, done.error, done.duration, done.worker_seconds) == (None, failure, 9.0, None)


def test_as_many_at_a_time_as_wanted_and_no_more_are_taken() -> None:
    taken = []

    def lazily() -> Iterator[Utterance]:
        for utterance in utterances(40):
            taken.append(utterance)
            yield utterance

    def answer(target: ScriptedTarget, audio: str) -> Answer:
        time.sleep(0.005)
        # What runs, and one that waits for room.
        assert len(taken) <= int(audio.rpartition("/")[2]) + 2 * 4
        return Answer(TRANSCRIPT, None, ())

    target = ScriptedTarget(answer)
    assert list(run(target, lazily())) != []
    assert (target.most, len(taken)) == (4, 40)


def test_a_target_that_takes_nothing_ends_it() -> None:
    def answer(target: ScriptedTarget, audio: str) -> Answer:
        if audio == "/a/1":
            raise TargetError("RunPod does not take the API key.")
        return wait_until_stopped(target, audio)

    with pytest.raises(TargetError, match="does not take the API key"):
        run(ScriptedTarget(answer), utterances(9))


def test_what_is_in_flight_is_given_up_when_the_source_fails() -> None:
    def broken() -> Iterator[Utterance]:
        yield from utterances(2)
        raise KeyboardInterrupt

    target = ScriptedTarget(wait_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        run(target, broken())
    assert target.stopped.is_set()
