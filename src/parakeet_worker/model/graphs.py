"""CUDA graphs: a batch's kernels are launched at once, where launching them one by one takes longer than they run.

A graph replays what was captured, for one shape and at the same addresses. All are captured when the worker starts, and
never again. A batch is copied into the inputs of the smallest one that holds it; the rest of these is padding. A batch
that none holds runs eagerly.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from parakeet_worker.asr.types import SAMPLE_RATE, DecodingOptions, GraphCaptureError
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.decoder import Decoder, Emission, Variant
from parakeet_worker.model.key_terms import build
from parakeet_worker.model.network import Parakeet

T = TypeVar("T")

Clock = Callable[[Callable[[], object]], float]
"""Returns the seconds that a function takes."""

Shape = tuple[int, int]
"""Number of recordings, and mel frames of the longest."""

# Shapes of encoder graphs: batches, lengths in seconds, and the most padded seconds. The largest needs 0.45 GB with
# 0.6B in 16 bits, which all share.
_BATCHES, _SECONDS, _MOST_SECONDS = (1, 2, 4, 8, 16), (4, 8, 16, 32), 128

# A shape has a graph if running it eagerly takes at most so many times as long as the smallest one. For a larger one
# the kernels take longer than their launches, and padding a batch to it would cost more than a graph saves.
_LAUNCH_BOUND = 1.25

# Batches of decoder graphs, and the encoder frames that they have room for: 43 minutes, 84 MB with 0.6B.
_STREAMS, _FRAMES = (1, 4, 16, 64, 256), 32_768

# Recordings that decoder graphs are checked with, again and again in larger batches.
_CHECKED = 4

# Runs before a capture, in which libraries choose kernels and allocate what they keep.
_WARM_UPS = 2

# Largest error of an encoder graph, as part of the largest value. Eager runs of the same batch are equal or nearly so.
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class Capturer(Protocol):
    """Captures CUDA graphs."""

    def __call__(self, run: Callable[[], T]) -> Callable[[], T]:
        """Capture a function, and return one that replays it. Its results are the same tensors in each replay."""
        ...


class CudaCapturer:
    """Captures on a stream of its own, into memory that all graphs share.

    So the results of a replay hold until the next one of any graph.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, run: Callable[[], T]) -> Callable[[], T]:
        """See `Capturer`."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                run()
        graph = torch.cuda.CUDAGraph()
        # It waits for the device. Threads that have nothing to do with the capture may go on meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            results = run()

        def replay() -> T:
            graph.replay()
            return results

        return replay


class EncoderGraphs:
    """Graphs of an encoder, by shape. They read one buffer of features.

    Args:
        model: The model.
        shapes: Shapes to capture, as far as launches take most of their time.
        capture: Captures them, the largest first: the others fit into its memory.
        clock: Times their eager runs.
    """

    def __init__(self, model: Parakeet, shapes: Sequence[Shape], capture: Capturer, clock: Clock) -> None:
        self._model = model
        parameter = next(model.encoder.parameters())
        self._features = parameter.new_zeros(model.config.mels * max(map(prod, shapes)))
        self._lengths = torch.zeros(max(batch for batch, _ in shapes), dtype=torch.int64, device=parameter.device)
        # The graphs read the position terms that are kept now. The encoder may come to keep others.
        self._positions = model.encoder.position_terms(max(frames for _, frames in shapes) // model.config.subsampling)
        seconds = {shape: clock(partial(self.run, shape)) for shape in sorted(shapes, key=prod, reverse=True)}
        most = _LAUNCH_BOUND * min(seconds.values())
        self.replays = {shape: capture(partial(self.run, shape)) for shape in seconds if seconds[shape] <= most}

    def run(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """Encode the inputs of a graph eagerly."""
        encoded: tuple[Tensor, Tensor] = self._model.encoder(*self._inputs(shape))
        return encoded

    def fill(self, shape: Shape, features: Tensor, lengths: Tensor) -> None:
        """Copy features, (B, mels, mel frames), and their lengths, (B,), to the inputs of a graph, and pad them."""
        room, room_lengths = self._inputs(shape)
        for source, target in ((features, room), (lengths, room_lengths)):
            target.zero_()[tuple(map(slice, source.shape))] = source

    @torch.inference_mode()
    def encode(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `Parakeet.encode` returns, perhaps with more padding. It holds until the next replay."""
        batch, mel_frames = len(samples), samples.shape[1] // self._model.config.hop
        fitting = [shape for shape in self.replays if batch <= shape[0] and mel_frames <= shape[1]]
        if not fitting:
            return self._model.encode(samples, lengths)
        shape = min(fitting, key=prod)
        # The features are computed eagerly: a plan of cuFFT that a graph uses could be dropped from its cache.
        self.fill(shape, *self._model.features(samples, lengths))
        encoded, lengths = self.replays[shape]()
        return encoded[:batch], lengths[:batch]

    def _inputs(self, shape: Shape) -> tuple[Tensor, Tensor]:
        batch, mel_frames = shape
        mels = self._model.config.mels
        return self._features[: batch * mels * mel_frames].view(batch, mels, mel_frames), self._lengths[:batch]


class DecoderGraphs:
    """Graphs of a block of a decoder's steps, by variant and number of streams.

    Positions are absolute in the one buffer of encoder frames that they share, so the length of a batch is free. So are
    the rows of key terms in the decoder's tables.
    """

    def __init__(self, decoder: Decoder, batches: Sequence[int], frames: int, capture: Capturer) -> None:
        self._decoder = decoder
        self._room = frames
        buffer = decoder.frames(frames)
        self.streams = {batch: decoder.streams(batch, buffer, decoder.tables) for batch in batches}
        self.replays = {
            (variant, batch): capture(partial(decoder.block, streams, variant))
            for variant in Variant
            for batch, streams in self.streams.items()
        }

    def decode(self, encoded: Tensor, lengths: Tensor, options: Sequence[DecodingOptions] = ()) -> list[list[Emission]]:
        """Return what `Decoder.decode` returns."""
        batch, frames, _ = encoded.shape
        variant = Variant.of(options)
        size = min((size for each, size in self.replays if each is variant and batch <= size), default=None)
        if (
            size is None
            or batch * frames > self._room
            or (variant is Variant.TERMS and not self._decoder.has_room(options))
        ):
            return self._decoder.decode(encoded, lengths, options)
        replay = self.replays[variant, size]

        def block() -> tuple[Tensor, Tensor]:
            record, have_ended = replay()
            return record.clone(), have_ended  # the latter is read before the next block

        return self._decoder.search(encoded, lengths, options, self.streams[size], block)


class Graphs:
    """The graphs of a model.

    Args:
        encoder: Of its encoder.
        decoder: Of its decoder.

    Attributes:
        dropped: Names of the graphs whose results differed from those of eager runs, and which are not used.
    """

    def __init__(self, encoder: EncoderGraphs, decoder: DecoderGraphs) -> None:
        self.encoder, self.decoder = encoder, decoder
        self.dropped: list[str] = []

    def __len__(self) -> int:
        """Return the number of graphs that are used."""
        return len(self.encoder.replays) + len(self.decoder.replays)

    def encode(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `EncoderGraphs.encode`."""
        return self.encoder.encode(samples, lengths)

    def decode(self, frames: Tensor, lengths: Tensor, options: Sequence[DecodingOptions] = ()) -> list[list[Emission]]:
        """See `Parakeet.decode`."""
        return self.decoder.decode(frames, lengths, options)

    def check(self, model: Parakeet, speech: Tensor) -> None:
        """Compare each graph with an eager run of the same inputs, and drop those that differ; see `capture_graphs`."""
        encoder, decoder = self.encoder, self.decoder
        for shape in list(encoder.replays):
            encoder.fill(shape, *model.features(*_recordings(model, speech, shape)))
            expected = tuple(tensor.clone() for tensor in encoder.run(shape))
            if not _are_close(encoder.replays[shape](), expected):
                del encoder.replays[shape]
                self.dropped.append(f"encoder, {shape[0]} x {shape[1]} mel frames")
        encoded, lengths = model.encode(*_recordings(model, speech, (_CHECKED, 400)))
        checked = _options(model.decode(encoded, lengths))
        for variant, size in list(decoder.replays):
            repeats = -(-size // _CHECKED)
            batch = encoded.repeat(repeats, 1, 1)[:size], lengths.repeat(repeats)[:size]
            options = (checked[variant] * repeats)[:size]
            streams = decoder.streams[size]
            eager = partial(model.search.block, streams, variant)
            if decoder.decode(*batch, options) != model.search.search(*batch, options, streams, eager):
                del decoder.replays[variant, size]
                self.dropped.append(f"decoder, {variant.value}, {size} streams")


def encoder_shapes(config: ModelConfig) -> list[Shape]:
    """Return the shapes that encoder graphs may have."""
    unit = config.aligned_samples
    return [
        (batch, -(-seconds * SAMPLE_RATE // unit) * unit // config.hop)
        for batch in _BATCHES
        for seconds in _SECONDS
        if batch * seconds <= _MOST_SECONDS
    ]


def capture_graphs(model: Parakeet, speech: Tensor, capture: Capturer, clock: Clock) -> Graphs:
    """Capture the graphs of a model, and check them.

    Args:
        model: The model.
        speech: What they are checked with: samples on the device, shape (samples,), float32.
        capture: Captures them.
        clock: Times the encoder.

    Raises:
        GraphCaptureError: Anything failed. The allocator may believe from now on that a capture is under way.
    """
    try:
        with torch.inference_mode():
            encoder = EncoderGraphs(model, encoder_shapes(model.config), capture, clock)
            graphs = Graphs(encoder, DecoderGraphs(model.search, _STREAMS, _FRAMES, capture))
            graphs.check(model, speech)
            return graphs
    except Exception as error:
        raise GraphCaptureError(f"{type(error).__name__}: {error}") from error


def cuda_clock(run: Callable[[], object]) -> float:
    """Return the wall-clock seconds of a function and its work on the GPU: the shortest of three runs after a first."""
    seconds = []
    for _ in range(4):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _recordings(model: Parakeet, speech: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return recordings of a shape, the first as long as it allows and the others shorter, and their lengths."""
    batch, mel_frames = shape
    samples = mel_frames * model.config.hop
    repeated = speech.repeat(samples // len(speech) + 1)[:samples].expand(batch, -1)
    return repeated, samples - torch.arange(batch, device=speech.device) * samples // (2 * batch)


def _options(decoded: Sequence[Sequence[Emission]]) -> dict[Variant, list[DecodingOptions]]:
    """Return options of each variant for streams of which it is known what they emit without any.

    The key terms are labels that each emits later on, so that they change what it emits.
    """
    labels = [[emission.label for emission in stream] for stream in decoded]
    terms = [build([(each[place:], 5.0) for place in (1, 3) if each[place:]] or [([0], 1.0)]) for each in labels]
    return {
        Variant.PLAIN: [],
        Variant.CONFIDENCE: [DecodingOptions(has_confidence=True)] * len(labels),
        Variant.TERMS: [DecodingOptions(has_confidence=True, terms=each) for each in terms],
    }


def _are_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    """Return whether encoder frames, (B, T, D), and their numbers, (B,), are within the tolerance of an eager run's."""
    (frames, lengths), (expected_frames, expected_lengths) = found, expected
    is_within = torch.arange(frames.shape[1], device=frames.device) < expected_lengths[:, None]
    frames, expected_frames = frames[is_within].float(), expected_frames[is_within].float()
    tolerance = _TOLERANCES[found[0].dtype] * expected_frames.abs().max()
    # NaN is not within the tolerance.
    return torch.equal(lengths, expected_lengths) and bool((frames - expected_frames).abs().max() <= tolerance)
