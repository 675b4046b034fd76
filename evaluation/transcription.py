"""Many utterances through a target, several at a time."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from manifest import Utterance
from results import Outcome, WordTime, is_url
from targets import Answer, StoppedError, Target


def transcribe_all(
    utterances: Iterable[Utterance], target: Target, concurrency: int, take: Callable[[Outcome], None]
) -> None:
    """Transcribe utterances, several at a time.

    Args:
        utterances: They are only taken as there is room for them.
        target: What transcribes them.
        concurrency: How many it gets at a time.
        take: Called with each outcome, on any thread.

    Raises:
        TargetError: The target takes no requests.
        KeyboardInterrupt: Raised on this thread; what was in flight has been given up.
    """
    running: set[Future[None]] = set()

    def transcribe(utterance: Utterance) -> None:
        sent = time.time()
        modified = _modified(utterance.audio)
        # What was given up has no outcome: the next run sends it again.
        with suppress(StoppedError):
            answer = target.transcribe(utterance.audio)
            take(_outcome(utterance, answer, modified, sent, time.time()))

    with ThreadPoolExecutor(concurrency, thread_name_prefix="evaluate") as pool:
        try:
            for utterance in utterances:
                running.add(pool.submit(transcribe, utterance))
                if len(running) == concurrency:
                    running = _wait(running, FIRST_COMPLETED)
            _wait(running, FIRST_EXCEPTION)
        except BaseException:
            # Or the pool would wait for it.
            target.stop()
            raise


def _modified(audio: str) -> float | None:
    """Return when a recording's file was last changed, or None: it is a URL, or there is no such file."""
    if is_url(audio):
        return None
    try:
        return Path(audio).stat().st_mtime
    except OSError:
        return None


def _wait(running: set[Future[None]], until: str) -> set[Future[None]]:
    """Wait, and return what still runs. Raises what was raised."""
    done, running = wait(running, return_when=until)
    for future in done:
        future.result()
    return running


def _outcome(utterance: Utterance, answer: Answer, modified: float | None, sent: float, received: float) -> Outcome:
    transcript = answer.transcript
    words = transcript.words or () if transcript else ()
    executions = answer.executions
    return Outcome(
        id=utterance.id,
        audio=utterance.audio,
        reference=utterance.text,
        duration=transcript.duration if transcript else utterance.duration,
        hypothesis=transcript.text if transcript else None,
        error=answer.error,
        reference_words=utterance.words,
        hypothesis_words=tuple(WordTime(word.text, word.start, word.end) for word in words),
        worker_seconds=sum(each.end - each.start for each in executions) if executions else None,
        seconds=received - sent,
        sent=sent,
        modified=modified,
        executions=executions,
    )
