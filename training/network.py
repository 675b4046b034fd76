"""The network that is trained: of the class of Parakeet-TDT-0.6B-v2, and configured like it, but small."""

import io
import string
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from nemo.collections.asr.models import EncDecRNNTBPEModel
from omegaconf import OmegaConf, open_dict

VOCABULARY = 256
DURATIONS = [0, 1, 2, 3, 4]
MEL_BINS = 80
_WIDTH = 144  # of the encoder; Parakeet has 1,024
_LAYERS = 8  # of the encoder; Parakeet has 24
_HEADS = 4
_SUBSAMPLING_CHANNELS = 32
_PREDICTION = _JOINT = 256


def write_tokenizer(sentences: Iterable[str], folder: Path) -> None:
    """Train a byte pair encoding of 256 tokens, and write it as NeMo reads it. The files contain no paths."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        character_coverage=1.0,
        # Characters that may be in no sentence, but in key terms or names.
        required_chars=string.ascii_letters + string.digits + "-',.?!",
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [processor.id_to_piece(token) for token in range(VOCABULARY)]
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")


def new_network(tokenizer: Path) -> EncDecRNNTBPEModel:
    """Return the network with random weights.

    Args:
        tokenizer: The folder of the tokenizer.
    """
    network = EncDecRNNTBPEModel(cfg=OmegaConf.create(_configuration(tokenizer)))
    with open_dict(network.cfg):
        # transcribe() asks for this entry, but a network that is made with it looks for files.
        network.cfg.validation_ds = {"use_start_end_token": False}
    return network


def _configuration(tokenizer: Path) -> dict[str, object]:
    modules = "nemo.collections.asr.modules"
    return {
        "sample_rate": 16_000,
        "compute_eval_loss": False,
        "log_prediction": False,
        "rnnt_reduction": "mean_volume",
        "skip_nan_grad": False,
        "model_defaults": {
            "enc_hidden": _WIDTH,
            "pred_hidden": _PREDICTION,
            "joint_hidden": _JOINT,
            "tdt_durations": DURATIONS,
            "num_tdt_durations": len(DURATIONS),
        },
        "train_ds": None,
        "validation_ds": None,
        "test_ds": None,
        "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
        "preprocessor": {
            "_target_": f"{modules}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16_000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": MEL_BINS,
            "n_fft": 512,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "encoder": {
            "_target_": f"{modules}.ConformerEncoder",
            "feat_in": MEL_BINS,
            "feat_out": -1,
            "n_layers": _LAYERS,
            "d_model": _WIDTH,
            "use_bias": False,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": _SUBSAMPLING_CHANNELS,
            "causal_downsampling": False,
            "ff_expansion_factor": 4,
            "self_attention_model": "rel_pos",
            "n_heads": _HEADS,
            "att_context_size": [-1, -1],
            "att_context_style": "regular",
            "xscaling": False,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 9,
            "conv_norm_type": "batch_norm",
            "conv_context_size": None,
            # Dropout halves the speed on a CPU, and this network never sees the same recording twice.
            "dropout": 0.0,
            "dropout_pre_encoder": 0.0,
            "dropout_emb": 0.0,
            "dropout_att": 0.0,
        },
        "decoder": {
            "_target_": f"{modules}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": _PREDICTION, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0},
        },
        "joint": {
            "_target_": f"{modules}.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "fused_batch_size": 4,
            "num_extra_outputs": len(DURATIONS),
            "jointnet": {"joint_hidden": _JOINT, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {
            "strategy": "greedy_batch",
            "model_type": "tdt",
            "durations": DURATIONS,
            "greedy": {"max_symbols": 10},
        },
        "loss": {
            "loss_name": "tdt",
            "tdt_kwargs": {"fastemit_lambda": 0.0, "durations": DURATIONS, "sigma": 0.02, "omega": 0.1},
        },
    }
