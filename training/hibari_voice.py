"""The voice of hibari-tts, with the times of its words."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import hibari
import numpy as np
import onnx
import onnxruntime
import soxr
from hibari import dsp

from training.voice import SAMPLE_RATE, Speech

# The tensor of the voice's graph with the number of frames of each phoneme, rounded and clipped.
_DURATIONS = "/Clip_output_0"
_MARKS = ".,?!"


class HibariVoice:
    """hibari's bundled voice.

    Its graph computes how many frames each phoneme lasts, but does not return them: here that tensor becomes one more
    output. All frames have the same length, so the sum of the frames is the length of the audio.
    """

    name = "hibari"

    def __init__(self) -> None:
        """Load the graph and the pronunciation rules."""
        self._speaker = hibari.Hibari(threads=1)
        graph = onnx.load(Path(hibari.__file__).parent / "assets" / "hibari.onnx")
        graph.graph.output.append(onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def speak_many(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        """Say each sentence at its pace. See `Voice.speak_many`."""
        for words, pace in zip(sentences, paces, strict=True):
            yield self._speak(words, pace)

    def _speak(self, words: Sequence[str], pace: float) -> Speech | None:
        parts = self._speaker.phonemize(" ".join(words))
        if len(parts) != 1:
            return None
        phonemes = parts[0].split(" ")
        ids = self._speaker.ids(parts[0])
        # Each character of the phonemes has one id, and there is one more at either end.
        if len(phonemes) != len(words) or len(ids) != len(parts[0]) + 2:
            return None
        feeds = {"ids": np.asarray([ids], np.int64), "speed": np.asarray([pace], np.float32)}
        *tensors, frames = self._session.run(None, feeds)
        noise = np.random.default_rng(zlib.crc32(parts[0].encode()))
        audio = dsp.synth(*(tensor[0] for tensor in tensors[:6]), noise)
        ends = np.concatenate([[0.0], np.cumsum(frames.reshape(-1))])
        ends *= len(audio) / dsp.SR / ends[-1]
        times: list[tuple[float, float]] = []
        first = 1
        for word in phonemes:
            sounds = len(word.rstrip(_MARKS)) or len(word)
            times.append((float(ends[first]), float(ends[first + sounds])))
            first += len(word) + 1
        return Speech(np.clip(soxr.resample(audio, dsp.SR, SAMPLE_RATE), -1, 1).astype(np.float32), tuple(times))
