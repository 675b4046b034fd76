"""NeMo's other architectures: baked, and transcribed alone and in batches as NeMo's own `transcribe()` does."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf, open_dict
from safetensors.torch import load_file

from cpu import CPU
from parakeet_worker.asr.alignment import align, is_silent, visible
from parakeet_worker.bake.convert import BakeError, ModelDescription, bake
from parakeet_worker.model.card import CONFIG, WEIGHTS, Card
from parakeet_worker.nemo.loading import load_model, serving_config
from parakeet_worker.nemo.recognizer import NemoRecognizer
from project import MODEL_DIR, Clip

ABOUT = ModelDescription("other", "Of another architecture.", "MIT", 60.0, {}, can_transcribe=False)

LOCAL = {"encoder.self_attention_model": "rel_pos_local_attn", "encoder.att_context_size": [12, 12]}
# By the name of the card: NeMo's class, and what its configuration has instead of the embedded model's.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "FastConformer-TDT": ("EncDecRNNTBPEModel", LOCAL),
    "FastConformer-RNNT": ("EncDecRNNTBPEModel", {}),
    "FastConformer-CTC": ("EncDecCTCModelBPE", LOCAL),
    "FastConformer-TDT-CTC": ("EncDecHybridRNNTCTCBPEModel", {}),
    "FastConformer-RNNT-CTC": ("EncDecHybridRNNTCTCBPEModel", LOCAL),
}


def write_other(architecture: str, archive: Path) -> Any:
    """Save a model of another architecture, which has what it can of the embedded model's weights.

    The output of a CTC decoder is random.
    """
    from nemo.collections.asr import models

    name, changes = KINDS[architecture]
    config = serving_config(MODEL_DIR)
    OmegaConf.resolve(config)
    ctc = {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": 144, "num_classes": -1}
    if "CTC" in architecture:
        changes = changes | {"aux_ctc": {"decoder": ctc | {"vocabulary": []}, "decoding": {"strategy": "greedy"}}}
    with open_dict(config):
        config.target = f"{models.__name__}.{name}"
        for key in ("self_attention_model", "att_context_size", "use_pytorch_sdpa"):
            config.encoder.pop(key)
        for key, value in changes.items():
            OmegaConf.update(config, key, value)
        if "TDT" not in architecture:
            config.loss = {"loss_name": "default"}
            config.decoding = {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}}
            config.joint.num_extra_outputs = 0
        if "CTCModel" in name:
            config.decoder = config.pop("aux_ctc").decoder
            del config.joint, config.model_defaults
    torch.manual_seed(0)
    model = getattr(models, name)(cfg=config)
    ours, embedded = model.state_dict(), load_file(MODEL_DIR / WEIGHTS)
    fitting = {key: embedded[key][: len(ours[key])] for key in ours.keys() & embedded.keys() if ours[key].ndim}
    for key in ours:
        if key.endswith("decoder_layers.0.bias"):
            ours[key][0] = -100.0  # the unknown piece, which NeMo writes with spaces
    model.load_state_dict(ours | fitting)
    model.save_to(str(archive))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "nemo.collections.asr.models.aed_multitask_models.EncDecMultiTaskModel"),
        ("target", "nemo.collections.asr.models.rnnt_models.EncDecRNNTModel"),
        ("preprocessor.sample_rate", 8000),
        ("encoder._target_", "nemo.collections.asr.modules.ConvASREncoder"),
        ("tokenizer.type", "agg"),
        ("loss.loss_name", "multiblank_rnnt"),
    ],
)
def test_what_is_not_served_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    config = OmegaConf.load(MODEL_DIR / CONFIG)
    OmegaConf.update(config, key, value)
    OmegaConf.save(config, tmp_path / CONFIG)
    (tmp_path / "model_weights.ckpt").touch()
    with tarfile.open(tmp_path / "other.nemo", "w") as archive:
        for name in (CONFIG, "model_weights.ckpt"):
            archive.add(tmp_path / name, name)
    with pytest.raises(
        BakeError, match=f"^the model's {key} is {str(value).rpartition('.')[2]}; only .* can be served"
    ):
        bake(tmp_path / "other.nemo", tmp_path / "out", ABOUT)


@pytest.fixture(scope="module", params=KINDS)
def other(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Card, Any, NemoRecognizer]:
    """The card of another architecture, NeMo's model, and the recognizer that is baked from it."""
    from nemo.collections.asr.models import ASRModel

    archive = tmp_path_factory.mktemp("other") / "other.nemo"
    write_other(request.param, archive)
    card = bake(archive, archive.with_suffix(""), ABOUT)
    restored = ASRModel.restore_from(str(archive), map_location="cpu").eval()
    with open_dict(restored.cfg):
        restored.cfg.validation_ds = {"use_start_end_token": False}  # transcribe() reads it
    return card, restored, NemoRecognizer(load_model(archive.with_suffix(""), CPU.device), CPU)


def test_words_and_times_are_nemos(other: Any, clips: list[Clip], request: Any) -> None:
    card, nemo, recognizer = other
    assert card.architecture == request.node.callspec.params["other"]
    assert card.engine == "nemo"
    assert card.engine_reason.startswith("The plain engine cannot run it: ")
    clips = clips[:8]
    expected = nemo.transcribe([str(clip.path) for clip in clips], batch_size=1, timestamps=True, verbose=False)
    samples = [soundfile.read(clip.path, dtype="float32")[0] for clip in clips]
    together = recognizer.transcribe(samples)
    assert len(recognizer.transcribe([np.zeros(1, np.float32)] * 2)) == 2
    for signal, theirs, batched in zip(samples, expected, together, strict=True):
        (ours,) = recognizer.transcribe([signal])
        assert ours == batched
        assert ours.text == theirs.text
        assert len(ours.tokens) > 5
        for token, entry in zip(ours.tokens, theirs.timestamp["char"], strict=True):
            # NeMo moves the marks that have no sound, as align() does, unless the decoder is RNNT.
            if not is_silent(visible(token.piece)):
                assert token.start == pytest.approx(entry["start"])
                assert token.end == pytest.approx(entry["end"])
        end = 0.0
        for word, entry in zip(align(ours.text, ours.tokens, 60.0).words, theirs.timestamp["word"], strict=True):
            assert word.text == entry["word"]
            # Words of an RNNT decoder that share a frame overlap in NeMo's.
            assert word.start == pytest.approx(max(entry["start"], end))
            end = word.end
            if "RNNT" not in card.architecture or not is_silent(word.text[-1]):
                assert word.end == pytest.approx(max(entry["end"], word.start))
