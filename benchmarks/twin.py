"""A twin of Parakeet-TDT-0.6B-v2: its configuration and 617.8 M random parameters, to measure its cost without it.

Random layers wash the signal out: every frame comes out nearly the same, and the decoder emits a token at each or at
none, which costs what no speech costs. So the output of the subsampling is centred and scaled by what speech gives
there, and the bias of the blank set so that about 3.5 tokens come out of a second of it.
"""

import itertools
import shutil
from pathlib import Path

import soundfile
import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
from omegaconf import open_dict
from sentencepiece import sentencepiece_model_pb2

from clips import traffic_lengths, write_recordings
from parakeet_worker.bake.convert import ModelDescription, bake
from parakeet_worker.nemo.loading import serving_config
from parakeet_worker.settings import Settings

_VOCABULARY = 1024
_TOKENS_PER_SECOND = 3.5

# Standard deviation of the subsampling's output, beside which what the layers add is small.
_SIGNAL = 3.0


def make_twin(directory: Path) -> tuple[Path, Path]:
    """Make the twin in `directory`, where it is not there already.

    Returns:
        The archive that NeMo restores, and the directory that the worker loads.
    """
    archive, baked = directory / "twin.nemo", directory / "twin"
    if not (baked / "card.json").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        model = _build(directory / "tokenizer")
        _calibrate(model, directory)
        model.save_to(str(archive))
        about = ModelDescription(
            "parakeet-tdt-0.6b-v2-twin",
            "Random weights, to measure speed with.",
            "MIT",
            1440.0,
            {},
            can_transcribe=False,
        )
        bake(archive, baked, about)
    return archive, baked


def _build(tokenizer: Path) -> EncDecRNNTBPEModel:
    """Build the model: the embedded one's configuration with the sizes of 0.6B v2."""
    embedded = Settings.from_env({}).model
    config = serving_config(embedded)
    pieces = _write_tokenizer(embedded / "tokenizer", tokenizer)
    with open_dict(config):
        config.tokenizer = {"type": "bpe", "dir": str(tokenizer)}
        config.model_defaults.update(enc_hidden=1024, pred_hidden=640, joint_hidden=640)
        config.preprocessor.features = 128
        config.encoder.update(feat_in=128, n_layers=24, d_model=1024, n_heads=8, subsampling_conv_channels=256)
        config.encoder.use_pytorch_sdpa = False  # as NVIDIA's own configuration has it
        config.decoder.vocab_size = config.joint.num_classes = _VOCABULARY
        config.decoder.prednet.update(pred_hidden=640, pred_rnn_layers=2)
        config.joint.jointnet.update(joint_hidden=640, encoder_hidden=1024, pred_hidden=640)
        config.joint.vocabulary = config.labels = pieces
    torch.manual_seed(0)
    return EncDecRNNTBPEModel(cfg=config).eval()


def _write_tokenizer(source: Path, out: Path) -> list[str]:
    """Write the embedded model's tokenizer with made-up pieces added, and return all pieces."""
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at run time
    model.ParseFromString((source / "tokenizer.model").read_bytes())
    score = min(piece.score for piece in model.pieces)
    known = {piece.piece for piece in model.pieces}
    made_up = ("▁" * (i % 2) + "".join(t) for i, t in enumerate(itertools.product("abcdefghijklmnop", repeat=3)))
    for text in itertools.islice((t for t in made_up if t not in known), _VOCABULARY - len(known)):
        score -= 1
        model.pieces.add(piece=text, score=score)
    pieces = [piece.piece for piece in model.pieces]
    out.mkdir()
    (out / "tokenizer.model").write_bytes(model.SerializeToString())
    (out / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (out / "tokenizer.vocab").write_text("".join(f"{piece}\t{-i}\n" for i, piece in enumerate(pieces)))
    return pieces


@torch.inference_mode()
def _calibrate(model: EncDecRNNTBPEModel, directory: Path) -> None:
    """Keep the signal alive through the encoder, and set the blank's bias by bisection."""
    recordings = write_recordings(traffic_lengths(4, seed=1), directory, seed=1)
    features = []
    for recording in recordings:
        samples = torch.from_numpy(soundfile.read(recording.path, dtype="float32")[0])[None]
        features.append(model.preprocessor(input_signal=samples, length=torch.tensor([samples.shape[1]])))
        recording.path.unlink()
    subsampled = torch.cat([model.encoder.pre_encode(x=x.transpose(1, 2), lengths=n)[0] for x, n in features], dim=1)
    mean, deviation = subsampled.mean((0, 1)), subsampled.std((0, 1))  # (channels,)
    out = model.encoder.pre_encode.out
    out.weight.mul_((_SIGNAL / deviation)[:, None])
    out.bias.sub_(mean).mul_(_SIGNAL / deviation)

    encoded = [model.encoder(audio_signal=x, length=n) for x, n in features]
    seconds = sum(recording.seconds for recording in recordings)
    bias = model.joint.joint_net[-1].bias
    low, high = -1.0, 5.0
    for _ in range(14):
        bias[_VOCABULARY] = (low + high) / 2
        tokens = sum(
            len(hypothesis.y_sequence)
            for frames, lengths in encoded
            for hypothesis in model.decoding.rnnt_decoder_predictions_tensor(frames, lengths, return_hypotheses=True)
        )
        low, high = ((low + high) / 2, high) if tokens / seconds > _TOKENS_PER_SECOND else (low, (low + high) / 2)
        if abs(tokens / seconds - _TOKENS_PER_SECOND) < 0.3:
            return
    raise RuntimeError(f"no bias gives {_TOKENS_PER_SECOND} tokens per second")
