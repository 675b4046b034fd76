"""The sizes of a FastConformer-TDT model, from NeMo's configuration, and whether the plain engine can run it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parakeet_worker.asr.types import SAMPLE_RATE

Values = Mapping[str, Any]

_CLASS = "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel"

# What the plain engine implements where NeMo 3.0 offers a choice: by key, NeMo's default and the values that it runs.
_SERVED: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "preprocessor.sample_rate": (SAMPLE_RATE, (SAMPLE_RATE,)),
    "preprocessor.normalize": ("per_feature", ("per_feature",)),
    "preprocessor.log": (True, (True,)),
    "preprocessor.log_zero_guard_type": ("add", ("add",)),
    "preprocessor.mag_power": (2.0, (2.0,)),
    "preprocessor.frame_splicing": (1, (1,)),
    "preprocessor.exact_pad": (False, (False,)),
    "preprocessor.pad_value": (0, (0,)),
    "encoder.feat_out": (-1, (-1,)),
    "encoder.subsampling": ("striding", ("dw_striding",)),
    "encoder.subsampling_factor": (4, (2, 4, 8, 16)),
    "encoder.causal_downsampling": (False, (False,)),
    "encoder.reduction": (None, (None,)),
    "encoder.self_attention_model": ("rel_pos", ("rel_pos",)),
    "encoder.att_context_size": (None, (None, [-1, -1], [[-1, -1]])),
    "encoder.untie_biases": (True, (True,)),
    "encoder.conv_norm_type": ("batch_norm", ("batch_norm",)),
    "encoder.conv_context_size": (None, (None,)),
    "decoder.normalization_mode": (None, (None,)),
    "decoder.blank_as_pad": (True, (True,)),
    "decoder.prednet.t_max": (None, (None,)),
    "decoder.prednet.rnn_hidden_size": (-1, (-1,)),
    "joint.jointnet.activation": (None, ("relu", "tanh", "sigmoid")),
}

# The modules of the model, and NeMo's classes for them.
_TARGETS = {
    "preprocessor": "AudioToMelSpectrogramPreprocessor",
    "encoder": "ConformerEncoder",
    "decoder": "RNNTDecoder",
    "joint": "RNNTJoint",
}


MAX_SYMBOLS = 10
"""Most labels that are taken at one encoder frame, where the configuration has no number of its own. It is NeMo's."""


class UnsupportedModelError(Exception):
    """The plain engine cannot run a model. The message gives the reason."""


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a FastConformer-TDT model.

    Attributes:
        mels: Mel bins of the features.
        fft: Samples of a Fourier transform.
        window: Samples of its window.
        hop: Samples between two mel frames.
        preemphasis: Share of a sample that is subtracted from the next one.
        log_guard: What is added to the energy of a mel bin before its logarithm.
        layers: Conformer layers.
        width: Channels of the encoder.
        heads: Attention heads.
        feed_forward: Channels within a feed-forward module.
        kernel: Encoder frames that a depthwise convolution sees.
        subsampling: Mel frames of an encoder frame, a power of two.
        subsampling_channels: Channels of the subsampling's convolutions.
        has_bias: Whether the linear layers and convolutions of the conformer layers have biases.
        input_scale: Factor of the first conformer layer's input.
        labels: Number of labels; the blank is the next one.
        predictor_width: Channels of the prediction network.
        predictor_layers: LSTM layers of the prediction network.
        joint_width: Channels of the joint network.
        joint_activation: Its activation: `relu`, `tanh` or `sigmoid`.
        joint_has_dropout: Whether it was trained with dropout, which changes the names of its parameters.
        durations: The durations that it predicts, in encoder frames.
        max_symbols: Most labels at one encoder frame.
    """

    mels: int
    fft: int
    window: int
    hop: int
    preemphasis: float
    log_guard: float
    layers: int
    width: int
    heads: int
    feed_forward: int
    kernel: int
    subsampling: int
    subsampling_channels: int
    has_bias: bool
    input_scale: float
    labels: int
    predictor_width: int
    predictor_layers: int
    joint_width: int
    joint_activation: str
    joint_has_dropout: bool
    durations: tuple[int, ...]
    max_symbols: int

    @property
    def frame_seconds(self) -> float:
        """Length of an encoder frame, in seconds."""
        return self.hop * self.subsampling / SAMPLE_RATE

    @property
    def aligned_samples(self) -> int:
        """Samples of eight encoder frames: on a GPU, attention copies a bias whose rows are not a multiple of eight."""
        return 8 * self.subsampling * self.hop

    @classmethod
    def from_nemo(cls, config: Values) -> "ModelConfig":
        """Read the sizes from NeMo's configuration of a model.

        Raises:
            UnsupportedModelError: The plain engine cannot run the model.
        """
        if config.get("target") != _CLASS:
            raise UnsupportedModelError(f"the model is a {str(config.get('target')).rpartition('.')[2]}")
        try:
            return cls._from_known(config)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnsupportedModelError(f"the configuration lacks or misuses {error}") from error

    @classmethod
    def _from_known(cls, config: Values) -> "ModelConfig":
        for part, name in _TARGETS.items():
            found = config[part]["_target_"].rpartition(".")[2]
            if found != name:
                raise UnsupportedModelError(f"its {part} is a {found}")
        for key, (default, served) in _SERVED.items():
            value = _look_up(config, key, default)
            if value not in served:
                raise UnsupportedModelError(f"{key} is {value!r}")
        features, encoder, decoder, joint = (config[part] for part in _TARGETS)
        decoding = config.get("decoding") or {}
        durations = decoding.get("durations") or config.get("model_defaults", {}).get("tdt_durations")
        if not durations or joint.get("num_extra_outputs") != len(durations):
            raise UnsupportedModelError("it predicts no durations")
        width = encoder["d_model"]
        channels = encoder.get("subsampling_conv_channels", -1)
        window = features.get("n_window_size") or int(features.get("window_size", 0.02) * SAMPLE_RATE)
        greedy = decoding.get("greedy") or {}
        return cls(
            mels=features.get("features", 64),
            fft=features.get("n_fft") or 1 << (window - 1).bit_length(),
            window=window,
            hop=features.get("n_window_stride") or int(features.get("window_stride", 0.01) * SAMPLE_RATE),
            preemphasis=features.get("preemph", 0.97) or 0.0,
            log_guard=float(features.get("log_zero_guard_value", 2**-24)),
            layers=encoder["n_layers"],
            width=width,
            heads=encoder.get("n_heads", 4),
            feed_forward=width * encoder.get("ff_expansion_factor", 4),
            kernel=encoder.get("conv_kernel_size", 31),
            subsampling=encoder.get("subsampling_factor", 4),
            subsampling_channels=width if channels == -1 else channels,
            has_bias=encoder.get("use_bias", True),
            input_scale=width**0.5 if encoder.get("xscaling", True) else 1.0,
            labels=decoder["vocab_size"],
            predictor_width=decoder["prednet"]["pred_hidden"],
            predictor_layers=decoder["prednet"]["pred_rnn_layers"],
            joint_width=joint["jointnet"]["joint_hidden"],
            joint_activation=joint["jointnet"]["activation"],
            joint_has_dropout=bool(joint["jointnet"].get("dropout")),
            durations=tuple(durations),
            max_symbols=greedy.get("max_symbols") or greedy.get("max_symbols_per_step") or MAX_SYMBOLS,
        )


def _look_up(config: Values, key: str, default: Any) -> Any:  # noqa: ANN401 - a value of any type
    """Return the value of a dotted key, or the default if it is left out."""
    *parts, last = key.split(".")
    for part in parts:
        config = config[part]
    return config.get(last, default)
