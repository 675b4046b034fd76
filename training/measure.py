"""Measure baked models: word errors of single and joined clips, errors near seams, silence, other voices, word times.

    make measure MODEL=MODEL_DIR OLD=MODEL_DIR CORPUS=FOLDER
    PYTHONPATH=evaluation:clients/python/src python -m training.measure MODEL_DIR --corpus FOLDER [--old MODEL_DIR]

Everything goes through the worker in this process, with the windows of the model's card. Recordings without speech
also go to the model itself, since the worker does not give it windows without sound. Prints a table and writes
measures.json. Two models take the same recordings.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from compare import errors_of, rate_interval
from figures import failure_lines
from manifest import Utterance
from parakeet_worker.audio.chunking import ChunkingConfig
from parakeet_worker.model.card import Card
from parakeet_worker.model.device import Plan, use_plan
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.prepare import load
from parakeet_worker.settings import Settings
from parakeet_worker.stage_timer import StageTimer
from results import Outcome
from scoring import WordErrors, normalise
from targets import HERE, Target, TargetError, open_target
from timing import measure_timing
from training import held_out
from training.corpus import Spoken
from training.measures import SINGLE, Invented, Measures, Rate, as_json, as_text, rows
from training.plan import FIRST_VOICE, HELD_OUT_VOICE, OTHER_VOICES
from training.seams import JoinedClips, Transcribed, find_seams, measure_joined
from training.voice import SAMPLE_RATE
from transcription import transcribe_all

_OLD_CLIPS = Path(__file__).parents[1] / "tests" / "speech" / "clips.jsonl"

# Silence of this length around a clip raised the word error rate of the first bundled model from 4 to 20 percent.
_SILENCE = 0.7  # seconds

# Lengths of joined clips, in seconds. The worker decodes them in one pass, without windows, up to what the card and
# PARAKEET_PASS_SECONDS allow.
_PASSES = (30.0, 45.0, 60.0, 90.0, 120.0, 150.0, 180.0, 240.0)

_SEED = 16

# As `make eval` has it: enough for full batches.
_CONCURRENCY = 32


class MeasureError(Exception):
    """A model cannot be measured. The message says why."""


@dataclass(frozen=True)
class Recordings:
    """What every model transcribes.

    Attributes:
        clips: Clips of the first voice, by what is special about them.
        voices: Clips of the other voices, by voice.
        joined: Recordings that the clips called `SINGLE` are joined to, each with its clips in order.
        empty: Recordings without speech, by what there is instead, with their files.
    """

    clips: Mapping[str, Sequence[Utterance]]
    voices: Mapping[str, Sequence[Utterance]]
    joined: Sequence[tuple[Utterance, Sequence[int]]]
    empty: Mapping[str, tuple[Spoken, Utterance]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `--help`. Returns 0, or 2 if something cannot be measured."""
    parser = argparse.ArgumentParser(
        "training.measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the directory of a baked model")
    parser.add_argument("--corpus", type=Path, required=True, metavar="FOLDER", help="where the held-out sentences are")
    parser.add_argument("--old", type=Path, metavar="MODEL_DIR", help="another model, to be compared")
    parser.add_argument("--hours", type=int, default=3, metavar="N", help="joined recordings of an hour each (3)")
    parser.add_argument("--output", type=Path, default=Path("measures.json"), help="the JSON file (measures.json)")
    given = parser.parse_args(arguments)
    directories = [directory for directory in (given.model, given.old) if directory]
    started = time.monotonic()

    def report(stage: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:5.0f} s  {stage}\n")

    try:
        with tempfile.TemporaryDirectory() as folder:
            report("writing the recordings")
            recordings = make_recordings(given.corpus, given.hours, Path(folder))
            models = [measure(directory, recordings, report) for directory in directories]
    except (MeasureError, TargetError) as error:
        sys.stderr.write(f"measure: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"measure: {error.filename or 'a file'} cannot be used: {error.strerror}\n")
        return 2
    table = rows(models, HELD_OUT_VOICE)
    print(as_text(models, table))
    fields = {"table": [asdict(row) for row in table], "models": [as_json(model) for model in models]}
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    given.output.write_text(text + "\n", encoding="utf-8")
    return 0


def make_recordings(corpus: Path, hours: int, folder: Path) -> Recordings:
    """Write the recordings into a folder.

    Args:
        corpus: The folder with the held-out shards of a corpus.
        hours: Number of joined recordings of an hour.
        folder: Where the files go.
    """
    single = held_out.held_out(FIRST_VOICE, corpus)
    old = held_out.read_clips(_OLD_CLIPS, FIRST_VOICE)
    clips = {SINGLE: single, "old ones": old}
    for name, known in list(clips.items()):
        clips[f"{name}, {_SILENCE:g} s of silence around"] = [held_out.with_silence(clip, _SILENCE) for clip in known]
    voices = {voice: held_out.held_out(voice, corpus) for voice in (HELD_OUT_VOICE, *OTHER_VOICES)}
    passes = [held_out.join(single, seconds, _SEED).recording for seconds in _PASSES]
    clips[f"joined to {_PASSES[0]:g} to {_PASSES[-1]:g} s"] = passes
    joined = [held_out.join(single, 3600, _SEED + number) for number in range(hours)]
    empty = held_out.empty_recordings(_SEED)
    return Recordings(
        {name: held_out.write_utterances(name, group, folder) for name, group in clips.items()},
        {voice: held_out.write_utterances(voice, group, folder) for voice, group in voices.items()},
        [
            (held_out.write_utterance(f"joined {number}", each.recording, folder), each.order)
            for number, each in enumerate(joined)
        ],
        {name: (each, held_out.write_utterance(name, each, folder)) for name, each in empty.items()},
    )


def measure(directory: Path, recordings: Recordings, report: Callable[[str], None]) -> Measures:
    """Measure a model.

    Args:
        directory: A baked model.
        recordings: What it transcribes.
        report: Takes a line about what is being done.

    Raises:
        MeasureError: There is no model, or a recording could not be transcribed.
        TargetError: The worker cannot be started with it.
    """
    try:
        card = Card.read(directory)
    except (OSError, ValueError) as error:
        raise MeasureError(f"{directory} is not the directory of a baked model") from error
    report(f"{directory.name}: recordings without speech, without the worker")
    by_model = {name: _words_of_model(directory, card, each) for name, (each, _) in recordings.empty.items()}
    os.environ["PARAKEET_MODEL"] = str(directory)
    settings = Settings.from_env()
    chunking = ChunkingConfig(min(card.max_duration, settings.pass_seconds), *card.windows)
    with open_target(HERE) as target:
        fields = target.model()

        def transcribe(utterances: Sequence[Utterance]) -> list[Outcome]:
            return _transcribe(utterances, target)

        report(f"{directory.name}: recordings without speech")
        by_worker = transcribe([utterance for _, utterance in recordings.empty.values()])
        report(f"{directory.name}: clips of the first voice")
        clips = {name: transcribe(group) for name, group in recordings.clips.items()}
        report(f"{directory.name}: joined clips")
        joined = transcribe([utterance for utterance, _ in recordings.joined])
        report(f"{directory.name}: other voices")
        voices = {voice: _rate(transcribe(group)) for voice, group in recordings.voices.items()}
    report(f"{directory.name}: scores")
    return Measures(
        name=str(directory),
        fields=fields,
        windows=card.windows,
        clips={name: _rate(outcomes) for name, outcomes in clips.items()},
        voices=voices,
        hours=sum(outcome.duration or 0.0 for outcome in joined) / 3600,
        joined=measure_joined(
            [_transcribed(outcome) for outcome in clips[SINGLE]],
            [
                JoinedClips(order, _transcribed(outcome), find_seams(Path(outcome.audio), chunking))
                for outcome, (_, order) in zip(joined, recordings.joined, strict=True)
            ],
        ),
        timing=measure_timing(joined),
        invented={
            name: Invented(len(normalise(outcome.hypothesis or "").split()), by_model[name])
            for name, outcome in zip(recordings.empty, by_worker, strict=True)
        },
    )


def _words_of_model(directory: Path, card: Card, recording: Spoken) -> int:
    """Return how many words a model hears in a recording that is cut into its longest windows, without the worker."""
    plan = Plan(torch.device("cpu"), torch.float32, batch_seconds=1e9)
    use_plan(plan, cpu_threads=Settings.from_env().cpu_threads)
    recognizer = load(ModelFiles(directory, card.files), plan, StageTimer().stage)
    length = round(card.windows[1] * SAMPLE_RATE)
    samples = recording.samples.astype("float32") / 32768
    windows = [samples[first : first + length] for first in range(0, len(samples), length)]
    return sum(len(normalise(hypothesis.text).split()) for hypothesis in recognizer.transcribe(windows))


def _transcribe(utterances: Sequence[Utterance], target: Target) -> list[Outcome]:
    """Return the outcomes of utterances, in their order.

    Raises:
        MeasureError: One could not be transcribed.
    """
    outcomes: dict[str, Outcome] = {}

    def take(outcome: Outcome) -> None:
        outcomes[outcome.id] = outcome

    transcribe_all(utterances, target, _CONCURRENCY, take)
    ordered = [outcomes[utterance.id] for utterance in utterances]
    if lines := failure_lines(ordered):
        raise MeasureError("; ".join(lines))
    return ordered


def _rate(outcomes: Sequence[Outcome]) -> Rate:
    errors = [errors_of(outcome) for outcome in outcomes]
    low, high = rate_interval(errors) or (0.0, 0.0)
    return Rate(sum(errors, WordErrors()), low, high)


def _transcribed(outcome: Outcome) -> Transcribed:
    return Transcribed(outcome.reference_words, outcome.hypothesis_words)


if __name__ == "__main__":
    sys.exit(main())
