"""The plain model beside NeMo's modules on the same weights: the same features, frames, tokens, times and text."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf

from audio_files import data_url
from cpu import CPU
from parakeet_worker.model.card import CONFIG, Card
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.network import Parakeet
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.model.staging import Staging
from parakeet_worker.nemo.loading import load_model, serving_config
from parakeet_worker.nemo.recognizer import NemoRecognizer
from parakeet_worker.settings import Settings, SettingsError
from parakeet_worker.startup import build_worker
from project import MODEL_DIR, TEXT, Clip


@pytest.fixture(scope="module")
def nemo() -> NemoRecognizer:
    return NemoRecognizer(load_model(MODEL_DIR, CPU.device), CPU)


@pytest.fixture(scope="module")
def recordings(clips: list[Clip]) -> list[np.ndarray]:
    """The clips; joined, cut, quiet and noisy ones; and recordings without speech."""
    draw = np.random.default_rng(1)
    speech = [soundfile.read(clip.path, dtype="float32")[0] for clip in clips]
    joined = [
        np.concatenate([speech[index] for index in draw.integers(len(speech), size=count)]) for count in (2, 3, 9)
    ]
    cut = [speech[index][: int(length * 16_000)] for index, length in enumerate((0.1, 0.3, 0.5, 0.9, 1.3, 1.7))]
    noisy = [0.05 * each + draw.normal(0, 0.001, len(each)).astype(np.float32) for each in speech[:4]]
    silent = [np.zeros(16_000, np.float32), draw.normal(0, 0.1, 40_000).astype(np.float32)]
    return [each.astype(np.float32) for each in [*speech, *joined, *cut, *noisy, *silent]]


def test_hypotheses_are_nemos_alone_and_in_any_batch(
    recognizer: PlainRecognizer, nemo: NemoRecognizer, recordings: list[np.ndarray]
) -> None:
    expected = [nemo.transcribe([recording])[0] for recording in recordings]
    assert sum(len(hypothesis.tokens) for hypothesis in expected) > 500
    assert [recognizer.transcribe([recording])[0] for recording in recordings] == expected
    for size in (7, len(recordings)):
        batches = [recordings[start : start + size] for start in range(0, len(recordings), size)]
        assert [hypothesis for batch in batches for hypothesis in recognizer.transcribe(batch)] == expected


def test_features_and_frames_are_nemos(
    recognizer: PlainRecognizer, nemo: NemoRecognizer, recordings: list[np.ndarray]
) -> None:
    samples, lengths = Staging(CPU.device).pad(recordings[:8])
    with torch.inference_mode():
        expected, expected_lengths = nemo.model.preprocessor(input_signal=samples, length=lengths)
        features, feature_lengths = recognizer.model.features(samples, lengths)
        assert torch.equal(feature_lengths, expected_lengths)
        assert not expected[..., -1].any()  # NeMo's last frame is within no recording
        torch.testing.assert_close(features, expected[..., :-1], rtol=0, atol=1e-3)
        expected, expected_lengths = nemo.model.encoder(audio_signal=expected, length=expected_lengths)
        frames, frame_lengths = recognizer.model.encoder(features, feature_lengths)
    assert torch.equal(frame_lengths, expected_lengths)
    for index, count in enumerate(frame_lengths.tolist()):
        torch.testing.assert_close(frames[index, :count], expected[index, :, :count].T, rtol=0, atol=1e-4)


# What the embedded model has not: biases, a scaled input, more LSTM layers, dropout, another subsampling.
OTHERS = {
    "large": {
        "encoder.use_bias": True,
        "encoder.xscaling": True,
        "encoder.n_layers": 2,
        "decoder.prednet.pred_rnn_layers": 2,
        "joint.jointnet.dropout": 0.2,
        "joint.jointnet.activation": "tanh",
        "decoding.greedy.max_symbols": 3,
    },
    "coarse": {
        "encoder.subsampling_factor": 4,
        "encoder.n_layers": 1,
        "encoder.conv_kernel_size": 5,
        "joint.jointnet.activation": "sigmoid",
        "preprocessor.features": 64,
        "encoder.feat_in": 64,
    },
}


@pytest.fixture(scope="module", params=OTHERS)
def other(request: Any) -> tuple[PlainRecognizer, NemoRecognizer]:
    """Both engines on a model of other sizes with random weights, which emits labels at many frames."""
    from nemo.collections.asr.models import EncDecRNNTBPEModel

    config = serving_config(MODEL_DIR)
    for key, value in OTHERS[request.param].items():
        OmegaConf.update(config, key, value)
    torch.manual_seed(3)
    model = EncDecRNNTBPEModel(cfg=config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            # As in a trained model, they differ from what they begin as.
            if name.endswith(("running_mean", "pos_bias_u", "pos_bias_v", "bias")):
                tensor.normal_(0, 0.1)
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
        model.joint.joint_net[-1].weight.mul_(8)
        model.joint.joint_net[-1].bias[256] += 2
    plain = Parakeet(ModelConfig.from_nemo(OmegaConf.to_container(config, resolve=True)))
    plain.load(model.state_dict(), CPU.device, torch.float32)
    return PlainRecognizer(plain, Ids(), CPU), NemoRecognizer(model, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(("greedy", "most"), [({}, 10), ({"max_symbols": None}, 10), ({"max_symbols": 3}, 3)])
def test_nemos_decoder_has_a_limit_of_labels_at_a_frame(tmp_path: Path, greedy: Any, most: Any) -> None:
    config = OmegaConf.load(MODEL_DIR / CONFIG)
    config.decoding.greedy = greedy
    OmegaConf.save(config, tmp_path / CONFIG)
    assert serving_config(tmp_path).decoding.greedy.max_symbols == most
    steps = {"max_symbols_per_step": 7}
    config.decoding.greedy = steps
    OmegaConf.save(config, tmp_path / CONFIG)
    assert "max_symbols" not in serving_config(tmp_path).decoding.greedy


def test_nemos_decoder_computes_in_float32(clips: list[Clip]) -> None:
    model = load_model(MODEL_DIR, CPU.device, torch.bfloat16)
    found = {name: {each.dtype for each in part.parameters()} for name, part in model.named_children()}
    assert {name for name, dtypes in found.items() if torch.bfloat16 in dtypes} == {"encoder"}
    scores = []
    model.joint.joint_net[-1].register_forward_hook(lambda *given: scores.append(given[2].dtype))
    recognizer = NemoRecognizer(model, CPU)
    assert recognizer.transcribe([soundfile.read(clips[2].path, dtype="float32")[0]])[0].text == TEXT
    assert set(scores) == {torch.float32}


class Ids:
    """Shows ids, since NeMo's text of random tokens is no use."""

    def pieces(self, ids: list[int]) -> list[str]:
        return [str(each) for each in ids]

    def text(self, ids: list[int]) -> str:
        return ""


def test_models_of_other_sizes_give_nemos_tokens(
    other: tuple[PlainRecognizer, NemoRecognizer], recordings: list[np.ndarray]
) -> None:
    plain, nemo = other
    decoding = nemo.model.decoding
    expected = []
    for recording in recordings[:10]:
        with torch.inference_mode():
            features = nemo.model.preprocessor(
                input_signal=torch.from_numpy(recording)[None], length=torch.tensor([len(recording)])
            )
            encoded = nemo.model.encoder(audio_signal=features[0], length=features[1])
            (found,) = decoding.rnnt_decoder_predictions_tensor(*encoded, return_hypotheses=True)
        ends = (found.timestamp + found.token_duration).tolist()
        expected.append(list(zip(map(str, found.y_sequence.tolist()), found.timestamp.tolist(), ends, strict=True)))
    assert sum(map(len, expected)) > 100
    frame = plain.model.config.frame_seconds

    def shown(hypothesis: Any) -> list[tuple[str, int, int]]:
        return [(token.piece, round(token.start / frame), round(token.end / frame)) for token in hypothesis.tokens]

    assert [shown(plain.transcribe([recording])[0]) for recording in recordings[:10]] == expected
    assert [shown(hypothesis) for hypothesis in plain.transcribe(recordings[:10])] == expected


@pytest.mark.parametrize(
    ("engine", "kind"), [("auto", PlainRecognizer), ("plain", PlainRecognizer), ("nemo", NemoRecognizer)]
)
def test_the_engine_can_be_forced(engine: str, kind: type, clips: list[Clip]) -> None:
    worker = build_worker(Settings.from_env({"PARAKEET_ENGINE": engine, "PARAKEET_CPU_THREADS": "1"}))
    answer = asyncio.run(worker.answer({"input": {"audio_url": data_url(clips[2].path.read_bytes())}}))
    worker.close()
    assert answer["text"] == TEXT
    assert isinstance(worker.actions.model.recognizer, kind)  # type: ignore[attr-defined]


def test_an_engine_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parakeet_worker.startup.find_spec", lambda _: None)
    with pytest.raises(
        SettingsError, match=r"^NeMo is not installed, and PARAKEET_ENGINE is nemo; build the image with"
    ):
        build_worker(Settings.from_env({"PARAKEET_ENGINE": "nemo"}))
    shutil.copytree(MODEL_DIR, tmp_path / "model")
    replace(Card.read(MODEL_DIR), engine="nemo", engine_reason="It is an RNNT model.").write(tmp_path / "model")
    with pytest.raises(SettingsError, match=r"PARAKEET_MODEL needs it: It is an RNNT model; build the image with"):
        build_worker(Settings.from_env({"PARAKEET_MODEL": str(tmp_path / "model")}))
