"""CUDA graphs, on a stand-in that records and replays on the CPU, with the real model."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import soundfile
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from capture import Recorder, capture
from cpu import CPU
from parakeet_worker.asr.types import DecodingOptions, DeviceFailedError, GraphCaptureError, Hypothesis, KeyTerm
from parakeet_worker.model.card import Card
from parakeet_worker.model.decoder import Variant
from parakeet_worker.model.files import ModelFiles
from parakeet_worker.model.graphs import DecoderGraphs, EncoderGraphs, Graphs, capture_graphs, encoder_shapes
from parakeet_worker.model.key_terms import TermCompiler
from parakeet_worker.model.prepare import load
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.model.self_check import clip
from parakeet_worker.stage_timer import StageTimer
from project import MODEL_DIR, Clip

SHAPES = [(1, 320), (2, 320), (4, 320), (1, 640), (2, 640)]
SPEECH = torch.from_numpy(clip())


def alike(_: Callable[[], object]) -> float:
    """A clock by which all shapes take the same time."""
    return 1.0


def only(largest: int) -> Any:
    """A clock by which launches take most of the time up to a padded size of inputs."""

    def clock(run: Any) -> float:
        batch, mel_frames = run.args[0]
        return 1.0 if batch * mel_frames <= largest else 2.0

    return clock


@pytest.fixture
def plain() -> PlainRecognizer:
    return load(ModelFiles(MODEL_DIR, Card.read(MODEL_DIR).files), CPU, StageTimer().stage)


@pytest.fixture(scope="module")
def speech(clips: list[Clip]) -> list[Any]:
    return [soundfile.read(clip.path, dtype="float32")[0] for clip in clips]


def make(plain: PlainRecognizer, shapes: Sequence[tuple[int, int]] = SHAPES, frames: int = 400) -> Graphs:
    encoder = EncoderGraphs(plain.model, shapes, capture, alike)
    return Graphs(encoder, DecoderGraphs(plain.model.search, [1, 4, 8], frames, capture))


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """Write down the arguments of a method's calls."""
    calls: list[Any] = []
    method = getattr(owner, name)
    monkeypatch.setattr(owner, name, after(lambda *args: calls.append(args), method))
    return calls


def after(first: Callable[..., object], then: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls two, and returns what the second one does."""

    def both(*args: Any) -> Any:
        first(*args)
        return then(*args)

    return both


def test_any_batch_gives_what_it_gives_eagerly(
    plain: PlainRecognizer, speech: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = (1, 2, 3, 4, 5, 8, 9)
    batches = [speech[first : first + size] for size in sizes for first in range(0, 40 - size, 8 * size)]
    batches += [[signal[:1_600], signal] for signal in speech[:3]]
    expected = [plain.transcribe(batch) for batch in batches]
    plain.graphs = make(plain)
    calls = count_calls(monkeypatch, plain.model.encoder, "forward")
    decoded = count_calls(monkeypatch, plain.model.search, "decode")
    assert [plain.transcribe(batch) for batch in batches] == expected
    # Both ways were taken.
    assert 0 < len(calls) < len(batches)
    assert 0 < len(decoded) < len(batches)


def check_alike(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    """Compare hypotheses whose confidence another padding of the encoder may change a little."""
    for one, other in zip(found, expected, strict=True):
        assert one.text == other.text
        for token, same in zip(one.tokens, other.tokens, strict=True):
            assert replace(token, confidence=None) == replace(same, confidence=None)
            assert token.confidence == (same.confidence and pytest.approx(same.confidence, abs=1e-5))


def test_options_give_what_they_give_eagerly(
    plain: PlainRecognizer, speech: list[Any], clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = TermCompiler(plain.tokenizer)
    terms = [compiler.compile([KeyTerm(word["word"], 4.0) for word in clip.words]) for clip in clips[:3]]
    kinds = [[DecodingOptions(True)], [DecodingOptions(), DecodingOptions(True)], []]
    kinds += [[DecodingOptions(terms=each), DecodingOptions(True, other)] for each, other in pairwise(terms)]
    batches = [
        (speech[first : first + size], (kind * size)[:size]) for first, kind in enumerate(kinds) for size in (3, 7)
    ]
    expected = [plain.transcribe(*batch) for batch in batches]
    without = [plain.transcribe(signals) for signals, _ in batches]
    texts = [[[hypothesis.text for hypothesis in batch] for batch in found] for found in (expected, without)]
    assert sum(a != b for a, b in zip(*texts, strict=True)) > 3
    plain.graphs = make(plain, frames=1_000)
    decoded = count_calls(monkeypatch, plain.model.search, "decode")
    for batch, hypotheses in zip(batches, expected, strict=True):
        check_alike(plain.transcribe(*batch), hypotheses)
    assert not decoded
    # More rows than the tables have.
    monkeypatch.setattr("parakeet_worker.model.term_tables.TermTables.rows_of", lambda _: 40_000)
    check_alike(plain.transcribe(*batches[-1]), expected[-1])
    assert len(decoded) == 1


def test_what_graphs_read_is_held(plain: PlainRecognizer) -> None:
    """A graph knows addresses: the memory behind them must not be freed. The stand-in is what else would hold it."""
    read: list[StorageWeakRef] = []

    def note(run: Any) -> Any:
        with torch.inference_mode(), Recorder() as recorder:
            run()
        read.extend(map(StorageWeakRef, recorder.storages_read()))
        return run

    encoder = EncoderGraphs(plain.model, SHAPES[:2], note, alike)
    decoder = DecoderGraphs(plain.model.search, [1, 4], 400, note)
    # The encoder comes to keep other position terms than the graphs read.
    plain.model.encode(torch.zeros(1, 16_000 * 30), torch.tensor([16_000 * 30]))
    gc.collect()
    assert len(read) > 80
    assert not any(storage.expired() for storage in read)
    assert encoder.replays
    assert decoder.replays


def test_a_batch_goes_to_the_smallest_graph_that_holds_it(plain: PlainRecognizer) -> None:
    graphs = make(plain).encoder
    replayed: list[Any] = []
    eager = object()

    graphs.replays = {shape: after(partial(replayed.append, shape), replay) for shape, replay in graphs.replays.items()}

    def taken(batch: int, mel_frames: int) -> Any:
        replayed.clear()
        samples = mel_frames * plain.model.config.hop
        encoded, lengths = graphs.encode(SPEECH.repeat(9)[:samples].expand(batch, -1), torch.full((batch,), samples))
        assert len(encoded) == len(lengths) == batch
        assert set(lengths.tolist()) == {-(-mel_frames // 8)}
        return replayed[0] if replayed else eager

    assert [taken(*shape) for shape in SHAPES] == SHAPES
    assert taken(1, 100) == taken(1, 319) == (1, 320)
    assert taken(1, 321) == (1, 640)
    assert taken(2, 321) == (2, 640)
    assert taken(3, 50) == (4, 320)
    assert taken(3, 321) is taken(5, 50) is taken(1, 641) is eager


def test_shapes_that_are_not_bound_by_launches_run_eagerly(plain: PlainRecognizer) -> None:
    assert list(EncoderGraphs(plain.model, SHAPES, capture, only(640)).replays) == [(2, 320), (1, 640), (1, 320)]


def test_shapes_have_whole_groups_of_encoder_frames(plain: PlainRecognizer) -> None:
    shapes = encoder_shapes(plain.model.config)
    assert max(batch * mel_frames for batch, mel_frames in shapes) < 135 * 100
    assert all(mel_frames % 64 == 0 for _, mel_frames in shapes)
    assert {mel_frames // 64 for _, mel_frames in shapes} == {7, 13, 25, 50}


def test_all_graphs_are_checked_with_speech(plain: PlainRecognizer) -> None:
    graphs = capture_graphs(plain.model, SPEECH, capture, only(448))
    assert list(graphs.encoder.replays) == [(1, 448)]
    assert list(graphs.decoder.replays) == [(variant, size) for variant in Variant for size in (1, 4, 16, 64, 256)]
    assert (len(graphs), graphs.dropped) == (16, [])


class Faulty:
    """A capturer whose n-th capture (from 0) fails, or gives a function that is made of the right one."""

    def __init__(self, index: int, fault: Callable[[Any], Any]) -> None:
        self.index, self.fault, self.captures = index, fault, 0

    def __call__(self, run: Any) -> Any:
        self.captures += 1
        return (self.fault if self.captures == self.index + 1 else lambda replay: replay)(capture(run))


def spoil(change: Callable[[Any, Any], None]) -> Callable[[Any], Any]:
    """Make a graph's replays end with a change of its two results."""

    def of(replay: Any) -> Any:
        def spoilt() -> Any:
            results = replay()
            change(*results)
            return results

        return spoilt

    return of


def fail(error: BaseException) -> Any:
    def raise_it(*_: object) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("index", "change", "dropped"),
    [
        (0, lambda encoded, _: encoded.mul_(1.1), "encoder, 1 x 448 mel frames"),
        (0, lambda encoded, _: encoded[0, 3, 0].fill_(torch.nan), "encoder, 1 x 448 mel frames"),
        (0, lambda _, lengths: lengths.sub_(1), "encoder, 1 x 448 mel frames"),
        (2, lambda record, _: record[:, 0].roll(1, 0), None),
        (2, lambda record, _: record[:, 1, 2].add_(1), "decoder, plain, 4 streams"),
        (2, lambda _, ended: ended.fill_(True), "decoder, plain, 4 streams"),
        (4, lambda record, _: record[:, 3, 1].add_(9), "decoder, with confidence, 4 streams"),
        (6, lambda record, _: record[:, 5, 3].fill_(1), "decoder, with confidence and key terms, 4 streams"),
    ],
)
def test_a_graph_that_gives_another_result_is_dropped(
    plain: PlainRecognizer,
    speech: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    index: int,
    change: Any,
    dropped: str | None,
) -> None:
    monkeypatch.setattr("parakeet_worker.model.graphs._STREAMS", (1, 4))
    expected = plain.transcribe(speech[:4])
    plain.graphs = capture_graphs(plain.model, SPEECH, Faulty(index, spoil(change)), only(448))
    assert plain.graphs.dropped == [dropped] * (dropped is not None)
    assert len(plain.graphs) == 7 - len(plain.graphs.dropped)
    assert plain.transcribe(speech[:4]) == expected


@pytest.mark.parametrize("index", [0, 1, 5])
@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: capture"), torch.OutOfMemoryError("of graphs"), ValueError("driver")]
)
def test_any_failure_of_a_capture_is_told_as_one(plain: PlainRecognizer, index: int, error: Exception) -> None:
    capturer = Faulty(index, fail(error))
    with pytest.raises(GraphCaptureError, match=f"^{type(error).__name__}: {error}$"):
        capture_graphs(plain.model, SPEECH, capturer, only(448))
    assert capturer.captures == index + 1


def test_a_graph_that_waits_for_the_device_cannot_be_captured(
    plain: PlainRecognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = plain.model.encoder.forward
    monkeypatch.setattr(plain.model.encoder, "forward", after(lambda _, n: n.max().item(), forward))
    with pytest.raises(GraphCaptureError, match="not permitted"):
        capture_graphs(plain.model, SPEECH, capture, only(448))


def test_a_replay_that_fails_is_a_failure_of_the_device(plain: PlainRecognizer, speech: list[Any]) -> None:
    plain.graphs = make(plain)
    plain.plan = type(CPU)(torch.device("cuda"), torch.float32, 120.0)
    plain.graphs.encoder.replays = dict.fromkeys(SHAPES, fail(RuntimeError("CUDA error: an illegal memory access")))
    with pytest.raises(DeviceFailedError, match="illegal"):
        plain.transcribe(speech[:1])


def test_a_small_room_for_encoder_frames(plain: PlainRecognizer, speech: list[Any]) -> None:
    expected = plain.transcribe(speech[:4])
    plain.graphs = make(plain, frames=10)
    assert plain.transcribe(speech[:4]) == expected
