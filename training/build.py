"""Make the embedded model: text, speech, training, a baked directory, and how good it is."""

import argparse
import json
import os
import shutil
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

import torch
from nemo.utils import logging
from torch.multiprocessing.spawn import spawn
from tqdm import tqdm

from parakeet_worker.bake.convert import ModelDescription, bake
from parakeet_worker.model.card import sha256
from training import text
from training.corpus import Shard, read, write
from training.export import export
from training.initial import start_from
from training.network import new_network, write_tokenizer
from training.plan import FIRST_VOICE, Amounts, Plan, plan
from training.recordings import Composer, Mix
from training.train import Batches, Schedule, Team, Training
from training.voices import voice

ROOT = Path(__file__).parents[1]
NAME = "parakeet-tdt-mini"
DESCRIPTION = (
    "For development and tests, not for people's speech: it has heard eight synthetic voices, and knows about 3,000 "
    "English words."
)
# On a CPU. Two processes of one thread are 1.5 times as fast as one process of two threads: most operations are too
# small to be divided. More cores do not make them more, so that each run has the same batches: a batch of the longest
# recordings has only two.
_PROCESSES = 2

LONGEST = 60.0  # seconds that the model takes in one pass; the longest recordings of the training have 40


class OtherSentencesError(Exception):
    """The folder has the speech of other sentences. The message says what to do."""


@dataclass(frozen=True)
class Workplace:
    """Where a run keeps what it has made; it goes on from there after an interruption.

    Attributes:
        folder: The folder, as an absolute path.
    """

    folder: Path

    @property
    def corpus(self) -> Path:
        """The folder of the spoken sentences."""
        return self.folder / "corpus"

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer."""
        return self.folder / "tokenizer"

    @property
    def checkpoint(self) -> Path:
        """The state of the training."""
        return self.folder / "checkpoint.pt"

    @property
    def meeting(self) -> Path:
        """The file through which the processes of a training find one another."""
        return self.folder / "meeting"

    @property
    def nemo_file(self) -> Path:
        """The trained network as NeMo writes it."""
        return self.folder / f"{NAME}.nemo"

    @property
    def model(self) -> Path:
        """The baked model."""
        return self.folder / NAME


def main(arguments: list[str]) -> None:
    """Make the model. What an earlier run has made is not made again."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("work", type=Path, help="the folder for all that is made; a run goes on from what is in it")
    parser.add_argument("--batches", type=int, default=14_000, help="of about 96 s of audio (default: %(default)s)")
    parser.add_argument(
        "--start-from", type=Path, help="a baked model with the same network, to start from its weights"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)

    place = Workplace(options.work.resolve())
    place.corpus.mkdir(parents=True, exist_ok=True)
    sentences = divide()
    try:
        speak(sentences, place.corpus)
    except OtherSentencesError as error:
        parser.error(str(error))
    if not (place.tokenizer / "vocab.txt").exists():
        write_tokenizer((sentence for shard in sentences.training for sentence in shard.sentences), place.tokenizer)
    schedule = Schedule(batches=options.batches)
    train(place, sentences.training, schedule, options.start_from)
    export(place.checkpoint, place.tokenizer, place.nemo_file)
    shutil.rmtree(place.model, ignore_errors=True)
    source = {"name": place.nemo_file.name, "sha256": sha256(place.nemo_file)}
    bake(place.nemo_file, place.model, ModelDescription(NAME, DESCRIPTION, "MIT", LONGEST, source), torch.float32)


def divide() -> Plan:
    """Return which voice says which sentences. Those of the clips of the tests are not among them."""
    clips = (ROOT / "tests" / "speech" / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    never = [json.loads(line)["text"] for line in clips]
    return plan(text.glosses(), text.names(), never, Amounts())


def speak(sentences: Plan, folder: Path) -> None:
    """Let the voices say the shards that are not complete yet.

    Raises:
        OtherSentencesError: The folder has the speech of another plan.
    """
    plan_path = folder / "plan"
    if not any(folder.iterdir()):
        plan_path.write_text(sentences.checksum)
    if not plan_path.exists() or plan_path.read_text() != sentences.checksum:
        raise OtherSentencesError(f"{folder} has the speech of other sentences: remove it, or choose another WORK")
    missing = [shard for shard in sentences.shards if not shard.is_written(folder)]
    with (
        ProcessPoolExecutor(initializer=_end_with_command) as pool,
        tqdm(total=len(missing), desc="speech", unit="shard") as bar,
    ):
        try:
            for done in as_completed([pool.submit(write, shard, voice, folder) for shard in missing]):
                done.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_command() -> None:
    """End this process when the command is stopped or killed. It would write to files of the next run."""
    command = parent_process()
    assert command  # noqa: S101 - the command has started this process
    # A shell lets what it starts in the background ignore SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def wait() -> None:
        command.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def train(place: Workplace, shards: tuple[Shard, ...], schedule: Schedule, start: Path | None) -> None:
    """Train on the GPU, or in two processes."""
    if torch.cuda.is_available():
        _train(Team(), place, shards, schedule, start)
        return
    place.meeting.unlink(missing_ok=True)
    spawn(_train_in_team, (place, shards, schedule, start), nprocs=_PROCESSES)


def _train_in_team(
    place_in_team: int, place: Workplace, shards: tuple[Shard, ...], schedule: Schedule, start: Path | None
) -> None:
    _end_with_command()
    store = torch.distributed.FileStore(str(place.meeting), _PROCESSES)  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=store, rank=place_in_team, world_size=_PROCESSES)
    _train(Team(_PROCESSES, place_in_team), place, shards, schedule, start)


def _train(team: Team, place: Workplace, shards: tuple[Shard, ...], schedule: Schedule, start: Path | None) -> None:
    from sentencepiece import SentencePieceProcessor

    torch.set_num_threads(1)
    torch.manual_seed(schedule.seed)
    tokenizer = SentencePieceProcessor(model_file=str(place.tokenizer / "tokenizer.model"))
    network = new_network(place.tokenizer)
    if start is not None:
        start_from(network, start, place.tokenizer)
    composer = Composer(read(shards, place.corpus), FIRST_VOICE, Mix())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = Training(network, schedule, place.checkpoint, device, team)
    loaders = (os.cpu_count() or 1) if device.type == "cuda" else 0
    training.run(Batches(composer, tokenizer, schedule, team), loaders, print if not team.place else _say_nothing)


def _say_nothing(_: str) -> None:
    pass
