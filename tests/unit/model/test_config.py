"""Which models the plain engine can run, by NeMo's configuration."""

import copy
from typing import Any

import pytest

from parakeet_worker.model.config import ModelConfig, UnsupportedModelError
from parakeet_worker.model.files import parse_config
from project import MODEL_DIR


@pytest.fixture
def config() -> Any:
    return copy.deepcopy(parse_config((MODEL_DIR / "model_config.yaml").read_bytes()))


def test_the_embedded_model(config: Any) -> None:
    found = ModelConfig.from_nemo(config)
    assert (found.mels, found.fft, found.window, found.hop) == (80, 512, 400, 160)
    assert (found.layers, found.width, found.heads, found.feed_forward, found.kernel) == (8, 144, 4, 576, 9)
    assert (found.subsampling, found.subsampling_channels, found.has_bias, found.input_scale) == (8, 32, False, 1.0)
    assert (found.labels, found.predictor_width, found.predictor_layers, found.joint_width) == (256, 256, 1, 256)
    assert (found.durations, found.max_symbols, found.frame_seconds) == ((0, 1, 2, 3, 4), 10, 0.08)


def test_what_is_left_out_has_nemos_default(config: Any) -> None:
    for part, key in (("preprocessor", "window_stride"), ("encoder", "use_bias"), ("encoder", "xscaling")):
        del config[part][key]
    del config["decoding"]["greedy"]
    found = ModelConfig.from_nemo(config)
    assert (found.hop, found.has_bias, found.input_scale, found.max_symbols) == (160, True, 12.0, 10)


@pytest.mark.parametrize(
    ("part", "key", "value", "reason"),
    [
        (
            "",
            "target",
            "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE",
            "the model is a EncDecCTCModelBPE",
        ),
        (
            "encoder",
            "self_attention_model",
            "rel_pos_local_attn",
            "encoder.self_attention_model is 'rel_pos_local_attn'",
        ),
        ("encoder", "att_context_size", [128, 128], "encoder.att_context_size is [128, 128]"),
        ("encoder", "causal_downsampling", True, "encoder.causal_downsampling is True"),
        ("encoder", "conv_norm_type", "layer_norm", "encoder.conv_norm_type is 'layer_norm'"),
        ("encoder", "untie_biases", False, "encoder.untie_biases is False"),
        ("encoder", "_target_", "nemo.SqueezeformerEncoder", "its encoder is a SqueezeformerEncoder"),
        ("preprocessor", "normalize", "NA", "preprocessor.normalize is 'NA'"),
        ("preprocessor", "sample_rate", 8_000, "preprocessor.sample_rate is 8000"),
        ("decoder", "_target_", "nemo.StatelessTransducerDecoder", "its decoder is a StatelessTransducerDecoder"),
        ("joint", "num_extra_outputs", 0, "it predicts no durations"),
    ],
)
def test_what_the_plain_engine_does_not_know(config: Any, part: Any, key: Any, value: Any, reason: Any) -> None:
    (config[part] if part else config)[key] = value
    with pytest.raises(UnsupportedModelError) as refused:
        ModelConfig.from_nemo(config)
    assert str(refused.value) == reason


def test_a_number_in_words_is_not_known_to_the_plain_engine(config: Any) -> None:
    config["preprocessor"]["log_zero_guard_value"] = "tiny"
    with pytest.raises(UnsupportedModelError, match="tiny"):
        ModelConfig.from_nemo(config)


@pytest.mark.parametrize(("part", "key"), [("encoder", "d_model"), ("decoder", "prednet"), ("joint", "jointnet")])
def test_what_a_configuration_must_have(config: Any, part: Any, key: Any) -> None:
    del config[part][key]
    with pytest.raises(UnsupportedModelError, match=key):
        ModelConfig.from_nemo(config)
