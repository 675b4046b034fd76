"""The training of the embedded model, with the real network and real processes, on a few recordings of tones."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from torch.multiprocessing.spawn import start_processes

from cpu import CPU
from decoder_processes import wait_for
from parakeet_worker.bake.convert import ModelDescription, bake
from project import MODEL_DIR, read_clips
from tone_voice import tone_corpus
from training import build
from training.corpus import Shard
from training.export import export
from training.initial import start_from
from training.labels import frames
from training.network import MEL_BINS, VOCABULARY, new_network, write_tokenizer
from training.plan import Plan
from training.recordings import Composer, Mix
from training.train import Batch, Batches, Schedule, Team, Training, _mask

TOKENIZER = MODEL_DIR / "tokenizer"
# All batches of this seed have recordings of less than 5 s.
SCHEDULE = Schedule(
    batches=4, batch_seconds=8, warmup=2, masked_after=1, first_voice_batches=2, saved_every=2, seed=3381
)
DEVICE = CPU.device
ALONE = Team()


def batches(schedule: Schedule, team: Team, kind: type[Batches] = Batches) -> Batches:
    composer = Composer(tone_corpus(["a-first", "b-other"], 8), "a-first", Mix(channel=0, cut=0))
    return kind(composer, SentencePieceProcessor(model_file=str(TOKENIZER / "tokenizer.model")), schedule, team)


def network(tokenizer: Path = TOKENIZER) -> Any:
    """Return a network whose features have no random dither: equal batches then give equal weights."""
    torch.manual_seed(1)
    found = new_network(tokenizer)
    found.preprocessor.featurizer.dither = 0.0
    return found


def training(checkpoint: Path, schedule: Schedule = SCHEDULE, team: Team = ALONE) -> Training:
    return Training(network(), schedule, checkpoint, DEVICE, team)


def say_nothing(_: str) -> None:
    pass


def test_the_rate_rises_and_falls() -> None:
    schedule = Schedule(batches=1_000, learning_rate=1e-3, warmup=100)
    assert schedule.rate(0) == pytest.approx(1e-5)
    assert schedule.rate(500) == pytest.approx(1e-3 * (0.98 * 0.5 + 0.02))
    assert schedule.rate(1_000) == schedule.rate(2_000) == pytest.approx(1e-3 / 50)
    rates = [schedule.rate(batch) for batch in range(1_001)]
    highest = rates.index(max(rates))
    assert highest == 99
    assert rates == sorted(rates[:99]) + sorted(rates[99:], reverse=True)


def test_a_batch_is_the_same_for_every_size_of_the_team() -> None:
    schedule = replace(SCHEDULE, batch_seconds=30.0)
    for number in range(4):
        alone = batches(schedule, Team())[number]
        for size in (2, 3):
            shares = [batches(schedule, Team(size, place))[number] for place in range(size)]
            assert all(share.samples for share in shares)
            for index in range(max(len(alone.samples), size)):
                share = shares[index % size]
                if index < len(alone.samples):
                    np.testing.assert_array_equal(alone.samples[index], share.samples[index // size])
                    np.testing.assert_array_equal(alone.steps[index].label, share.steps[index // size].label)
            assert sum(len(share.samples) for share in shares) == max(size, len(alone.samples))


def test_only_the_first_voice_speaks_at_first() -> None:
    def tokens(number: int) -> set[int]:
        return {int(token) for steps in batches(schedule, Team())[number].steps for token in steps.tokens}

    schedule = replace(SCHEDULE, batch_seconds=60.0)
    processor = SentencePieceProcessor(model_file=str(TOKENIZER / "tokenizer.model"))
    of_other = {token for second in "mnoprst" for token in processor.encode(f"b{second}")}
    of_first = {token for second in "mnoprst" for token in processor.encode(f"a{second}")}
    assert not any(tokens(number) & (of_other - of_first) for number in (0, 1))
    assert any(tokens(number) & (of_other - of_first) for number in (2, 3))


class Interrupted(Batches):
    """Breaks off before the last batch."""

    def __getitem__(self, number: int) -> Batch:
        if number == SCHEDULE.batches - 1:
            raise KeyboardInterrupt
        return super().__getitem__(number)


def test_an_interrupted_training_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    whole = training(tmp_path / "whole.pt")
    whole.run(batches(SCHEDULE, Team()), 0, say_nothing)

    broken = training(tmp_path / "broken.pt")
    with pytest.raises(KeyboardInterrupt):
        broken.run(batches(SCHEDULE, Team(), Interrupted), 0, say_nothing)
    assert torch.load(tmp_path / "broken.pt", weights_only=True)["batch"] == 2
    training(tmp_path / "broken.pt").run(batches(SCHEDULE, Team()), 0, say_nothing)

    one, other = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "broken"))
    assert one["batch"] == other["batch"] == 4
    assert all(torch.equal(one["network"][name], other["network"][name]) for name in one["network"])
    start = network().state_dict()
    assert not torch.equal(one["network"]["joint.enc.weight"], start["joint.enc.weight"])


def test_the_network_learns(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, batches=8, batch_seconds=3, warmup=1, masked_after=100, saved_every=100)
    run = training(tmp_path / "checkpoint.pt", schedule)
    batch = batches(schedule, Team())[0]
    losses = [run._learn(batch) for _ in range(6)]
    assert losses[-1] < 0.7 * losses[0]


def run(work: Callable[[Team, Path], None], team: Team, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=(folder / "meeting").as_uri(), rank=team.place, world_size=team.size
    )
    work(team, folder)


def in_processes(count: int, work: Callable[[Team, Path], None], folder: Path, method: str = "fork") -> None:
    """Run work in processes that can average with one another, and raise if one of them fails.

    A fresh process imports NeMo, for ten seconds. A fork cannot compute gradients where its parent has done so.
    """
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=run, args=(work, Team(count, place), folder)) for place in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * count


def average(team: Team, folder: Path) -> None:
    draw = torch.Generator().manual_seed(team.place)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 2), (4,), (1,))]
    for parameter in parameters[:2]:  # the last has no gradient
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    torch.save(
        [parameter.grad.clone() for parameter in parameters[:2] if parameter.grad is not None],
        folder / f"own{team.place}",
    )
    team.average(parameters)
    assert parameters[2].grad is None
    torch.save([parameter.grad for parameter in parameters[:2]], folder / f"mean{team.place}")


def test_gradients_of_two_processes_are_averaged(tmp_path: Path) -> None:
    in_processes(2, average, tmp_path)
    own, mean = ([torch.load(tmp_path / f"{name}{place}") for place in (0, 1)] for name in ("own", "mean"))
    for number in range(2):
        expected = (own[0][number] + own[1][number]) / 2
        for found in mean:
            torch.testing.assert_close(found[number], expected)
        assert not torch.equal(own[0][number], own[1][number])


def learn(team: Team, folder: Path) -> None:
    torch.set_num_threads(1)
    run = training(folder / "together.pt", team=team)
    run.run(batches(SCHEDULE, team), 0, say_nothing)
    torch.save(run.network.state_dict(), folder / f"weights{team.place}")


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    in_processes(2, learn, tmp_path, "spawn")
    one, other = (torch.load(tmp_path / f"weights{place}") for place in (0, 1))
    saved = torch.load(tmp_path / "together.pt", weights_only=True)
    assert saved["batch"] == SCHEDULE.batches
    start = network().state_dict()
    learnt = [name for name, _ in network().named_parameters()]
    assert all(torch.equal(one[name], other[name]) for name in learnt)
    assert all(torch.equal(one[name], saved["network"][name]) for name in learnt)
    assert not torch.equal(one["joint.enc.weight"], start["joint.enc.weight"])


def test_the_processes_meet_in_a_folder_that_is_named_relatively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[build.Workplace] = []
    monkeypatch.setattr(build, "divide", lambda: Plan((), ()))
    monkeypatch.setattr(build, "speak", lambda *_: None)
    monkeypatch.setattr(build, "write_tokenizer", lambda *_: None)

    def train(place: build.Workplace, *_: object) -> None:
        made.append(place)
        raise InterruptedError

    monkeypatch.setattr(build, "train", train)
    with pytest.raises(InterruptedError):
        build.main(["work"])
    assert made[0].meeting == tmp_path / "work" / "meeting"


def wait(team: Team, place: build.Workplace, *_: object) -> None:
    (place.folder / str(team.place)).touch()
    time.sleep(60)


def train_for_long(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "spawn", partial(start_processes, start_method="fork"))
        patch.setattr(build, "_train", wait)
        build.train(build.Workplace(folder), (), SCHEDULE, None)


def write_for_long(shard: Shard, _: object, folder: Path) -> None:
    (folder / shard.name).touch()
    time.sleep(60)


def speak_for_long(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "write", write_for_long)
        patch.setattr(os, "cpu_count", lambda: 2)
        build.speak(Plan(tuple(Shard(str(number), "hibari", (), number) for number in range(4)), ()), folder)


def in_the_background(work: Callable[[Path], None], folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does
    work(folder)


@pytest.mark.parametrize("work", [train_for_long, speak_for_long])
def test_a_killed_command_leaves_no_process(work: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "this folder's name: 50 % of it is ünusual"
    folder.mkdir()
    context = multiprocessing.get_context("fork")
    alive, held = context.Pipe(duplex=False)  # each process holds the end, and reading fails when all have gone
    command = context.Process(target=in_the_background, args=(work, folder))
    command.start()
    held.close()
    wait_for(lambda: (folder / "0").exists() and (folder / "1").exists(), 30)
    assert not alive.poll(0)
    command.kill()
    assert alive.poll(10)
    with pytest.raises(EOFError):
        alive.recv()


def write_nothing(*_: object) -> None:
    pass


def test_speech_of_other_sentences_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "write", write_nothing)
    plans = [Plan((Shard("one", "hibari", (sentence,), 1),), ()) for sentence in ("It is.", "It was.")]
    build.speak(plans[0], tmp_path)
    build.speak(plans[0], tmp_path)
    with pytest.raises(build.OtherSentencesError, match="remove it, or choose another WORK"):
        build.speak(plans[1], tmp_path)
    (tmp_path / "plan").unlink()  # as a run before there were such files leaves it
    (tmp_path / "one.jsonl").touch()
    with pytest.raises(build.OtherSentencesError):
        build.speak(plans[0], tmp_path)


def write_to_a_full_disk(shard: Shard, _: object, folder: Path) -> None:
    (folder / shard.name).touch()
    raise OSError("No space left on device")


def test_the_first_failure_ends_the_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "write", write_to_a_full_disk)
    shards = tuple(Shard(str(number), "hibari", (), number) for number in range(100))
    with pytest.raises(OSError, match="No space"):
        build.speak(Plan(shards, ()), tmp_path)
    assert len(list(tmp_path.iterdir())) < 50


def test_what_is_drawn_of_a_batch_has_streams_of_its_own() -> None:
    # Whether the first recording of a batch is empty must not depend on how long the batch's recordings are.
    schedule = Schedule(batches=400, batch_seconds=4)
    composer = Composer(tone_corpus(["a-first"], 8), "a-first", Mix(empty=0.5, channel=0, room=0, background=0))
    processor = SentencePieceProcessor(model_file=str(TOKENIZER / "tokenizer.model"))
    found = Batches(composer, processor, schedule, ALONE)
    is_long, is_empty = [], []
    for number in range(150):
        batch = found[number]
        is_long.append(len(batch.samples[0]) > 8 * 16_000)
        is_empty.append(not len(batch.steps[0].tokens))
    long_ones = [empty for empty, long in zip(is_empty, is_long, strict=True) if long]
    short_ones = [empty for empty, long in zip(is_empty, is_long, strict=True) if not long]
    assert 0.3 < sum(long_ones) / len(long_ones) < 0.7
    assert 0.3 < sum(short_ones) / len(short_ones) < 0.7


def test_masks_are_small_and_depend_on_the_draw_alone() -> None:
    counts = [100, 1_000, 4_000]
    widest = 0
    for seed in range(20):
        features, again = (torch.ones(3, MEL_BINS, 4_000) for _ in range(2))
        _mask(features, counts, np.random.default_rng(seed))
        _mask(again, counts, np.random.default_rng(seed))
        assert torch.equal(features, again)
        for number, count in enumerate(counts):
            bands = (features[number] == 0).all(dim=1)
            columns = (features[number] == 0).all(dim=0)
            assert bands.sum() <= 20
            assert columns.sum() <= min(50, count // 20)
            assert not columns[count:].any()
            kept = ~bands[:, None] & ~columns[None]
            assert (features[number][kept] == 1).all()
            widest = max(widest, int(bands.sum()))
    assert widest > 10


def test_frames_are_those_of_the_network() -> None:
    found = network().eval()
    counts = torch.tensor([1_600, 8_000, 12_345, 16_000, 20_479, 20_480])
    with torch.no_grad():
        features, lengths = found.preprocessor(input_signal=torch.zeros(6, 20_480), length=counts)
        _, found_counts = found.encoder(audio_signal=features, length=lengths)
    assert found_counts.tolist() == [frames(count) for count in counts.tolist()]


def test_a_tokenizer_names_no_file_and_is_always_the_same(tmp_path: Path) -> None:
    sentences = [clip.text for clip in read_clips()]
    contents = []
    for name in ("one", "two"):
        write_tokenizer(sentences, tmp_path / name)
        contents.append((tmp_path / name / "tokenizer.model").read_bytes())
    assert contents[0] == contents[1]
    assert str(tmp_path).encode() not in contents[0]
    processor = SentencePieceProcessor(model_proto=contents[0])
    assert (tmp_path / "one" / "vocab.txt").read_text().splitlines() == [
        processor.id_to_piece(token) for token in range(VOCABULARY)
    ]


def changed_tokenizer(folder: Path, order: list[int], rename: dict[int, str]) -> Path:
    """Write the embedded model's tokenizer with its tokens in another order, and some of them with another text."""
    messages: Any = sentencepiece_model_pb2
    model = messages.ModelProto.FromString((TOKENIZER / "tokenizer.model").read_bytes())
    pieces = [messages.ModelProto.SentencePiece.FromString(p.SerializeToString()) for p in model.pieces]
    for token, text in rename.items():
        pieces[token].piece = text
    del model.pieces[:]
    model.pieces.extend(pieces[token] for token in order)
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    (folder / "vocab.txt").write_text("".join(f"{processor.id_to_piece(token)}\n" for token in range(len(order))))
    return folder


def logits(model: Any, tokens: list[int]) -> torch.Tensor:
    """Return the logits of tokens, blank and durations after some tokens, shape [tokens + 1, rows]."""
    model.eval()
    with torch.no_grad():
        predicted, _, _ = model.decoder(targets=torch.tensor([tokens]), target_length=torch.tensor([len(tokens)]))
        encoded = torch.randn(1, 144, 1, generator=torch.Generator().manual_seed(2))
        joint = model.joint
        return joint.joint_net(joint.enc(encoded.transpose(1, 2)) + joint.pred(predicted.transpose(1, 2)))[0]  # type: ignore[no-any-return]


def test_weights_follow_their_tokens_into_another_tokenizer(tmp_path: Path) -> None:
    order = [0, *torch.randperm(VOCABULARY - 1, generator=torch.Generator().manual_seed(3)).add(1).tolist()]
    permuted = changed_tokenizer(tmp_path / "permuted", order, {})
    model, same = network(permuted), network()
    assert start_from(model, MODEL_DIR, permuted) == VOCABULARY
    assert start_from(same, MODEL_DIR, TOKENIZER) == VOCABULARY
    tokens = [5, 17, 200, 31]
    expected = logits(same, tokens)
    found = logits(model, [order.index(token) for token in tokens])
    torch.testing.assert_close(found[:, :VOCABULARY], expected[:, order])
    torch.testing.assert_close(found[:, VOCABULARY:], expected[:, VOCABULARY:])
    weights = load_file(MODEL_DIR / "model.safetensors")
    assert all(torch.equal(same.state_dict()[name], weights[name]) for name in weights)


def test_a_new_token_keeps_its_random_weights(tmp_path: Path) -> None:
    tokenizer = changed_tokenizer(tmp_path / "renamed", list(range(VOCABULARY)), {40: "qqq", 41: "qqqq"})
    model = network(tokenizer)
    before = model.state_dict()["joint.joint_net.1.bias"].clone()
    assert start_from(model, MODEL_DIR, tokenizer) == VOCABULARY - 2
    after = model.state_dict()["joint.joint_net.1.bias"]
    weights = load_file(MODEL_DIR / "model.safetensors")["joint.joint_net.1.bias"]
    for token in range(len(after)):
        assert after[token] == (before if token in (40, 41) else weights)[token]


def test_a_checkpoint_is_baked_and_names_no_path(tmp_path: Path) -> None:
    folder = changed_tokenizer(tmp_path / "tokenizer", list(range(VOCABULARY)), {})
    model = network(folder)
    start_from(model, MODEL_DIR, folder)
    Training(model, SCHEDULE, tmp_path / "checkpoint.pt", DEVICE, Team()).save()
    export(tmp_path / "checkpoint.pt", folder, tmp_path / "mini.nemo")
    description = ModelDescription("mini", "A test.", "MIT", 60.0, {"name": "mini.nemo"})
    bake(tmp_path / "mini.nemo", tmp_path / "baked", description, torch.float32)

    texts = [path for path in (tmp_path / "baked").rglob("*") if path.suffix in (".json", ".yaml", ".txt", ".model")]
    assert {path.name for path in texts} >= {"card.json", "model_config.yaml", "tokenizer.model"}
    for path in texts:
        assert str(tmp_path).encode() not in path.read_bytes(), path
        assert b"/home/" not in path.read_bytes(), path
    card = json.loads((tmp_path / "baked" / "card.json").read_text())
    assert card["engine"] == "plain"
    weights, expected = (load_file(path / "model.safetensors") for path in (tmp_path / "baked", MODEL_DIR))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
