"""A checkpoint that was not baked: a `.nemo` file as the model, and a model that a name stands for."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from archives import write_archive
from cpu import CPU
from parakeet_worker.model.card import Card
from parakeet_worker.model.config import UnsupportedModelError
from parakeet_worker.model.files import DamagedModelError
from parakeet_worker.model.nemo_file import NemoFile, open_nemo_file
from parakeet_worker.model.prepare import prepare
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.model.self_check import SelfCheckError, transcribe_clip
from parakeet_worker.settings import Settings, SettingsError
from parakeet_worker.stage_timer import StageTimer
from parakeet_worker.startup import build_worker
from project import MODEL_DIR, TEXT, Clip
from recognizers import Hears


@pytest.fixture(scope="module")
def nemo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "small.nemo"
    write_archive(MODEL_DIR, path)
    return path


def test_it_is_served_as_the_baked_model(nemo_file: Path, recognizer: PlainRecognizer, clips: list[Clip]) -> None:
    card, source = open_nemo_file(nemo_file)
    baked = Card.read(MODEL_DIR)
    assert (card.name, card.engine, card.parameters, card.features) == (
        "small", "plain", baked.parameters, baked.features,
    )  # fmt: skip
    found = prepare(source, card, CPU, cpu_threads=1, stage=StageTimer().stage)
    samples = [soundfile.read(clip.path, dtype="float32")[0] for clip in clips[:5]]
    assert found.transcribe(samples) == recognizer.transcribe(samples)


def test_a_worker_tells_what_it_gives_for_the_clip(nemo_file: Path) -> None:
    environ = os.environ | {"PARAKEET_MODEL": str(nemo_file), "PARAKEET_CPU_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "parakeet_worker"], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    said = f"nothing was compared with NeMo. The bundled clip gives: {TEXT!r}"
    assert said in done.stdout + done.stderr


def test_a_model_that_hears_nothing_is_refused() -> None:
    with pytest.raises(SelfCheckError, match="no words"):
        transcribe_clip(Hears(""))


def rewrite(nemo_file: Path, out: Path, change: Any) -> Path:
    """Write the archive anew with the members that `change` returns for each name and content; None leaves it out."""
    with tarfile.open(nemo_file) as given, tarfile.open(out, "w") as written:
        for member in filter(tarfile.TarInfo.isfile, given):
            content = change(member.name.removeprefix("./"), given.extractfile(member).read())  # type: ignore[union-attr]
            if content is not None:
                member.size = len(content)
                written.addfile(member, io.BytesIO(content))
    return out


@pytest.mark.parametrize("name", ["model_config.yaml", "model_weights.ckpt", "tokenizer.model"])
def test_what_is_missing_is_named(nemo_file: Path, tmp_path: Path, name: str) -> None:
    path = rewrite(nemo_file, tmp_path / "x.nemo", lambda found, data: None if found.endswith(name) else data)

    def use() -> None:
        card, source = open_nemo_file(path)
        prepare(source, card, CPU, cpu_threads=1, stage=StageTimer().stage)

    with pytest.raises(DamagedModelError, match=rf"{name} in x\.nemo is missing or damaged"):
        use()


def test_a_checkpoint_cannot_run_code(nemo_file: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "owned"),))

    evil = io.BytesIO()
    torch.save({"weight": Evil()}, evil)
    path = rewrite(nemo_file, tmp_path / "x.nemo", lambda name, data: evil.getvalue() if "ckpt" in name else data)
    with pytest.raises(DamagedModelError):
        NemoFile(path).weights()
    assert not (tmp_path / "owned").exists()


def test_what_the_plain_engine_cannot_run_is_refused(nemo_file: Path, tmp_path: Path) -> None:
    def local(name: str, data: bytes) -> bytes:
        return data.replace(b"model: rel_pos", b"model: rel_pos_local_attn") if name.endswith("yaml") else data

    path = rewrite(nemo_file, tmp_path / "x.nemo", local)
    with pytest.raises(UnsupportedModelError, match="rel_pos_local_attn"):
        open_nemo_file(path)
    with pytest.raises(SettingsError, match=r"^PARAKEET_MODEL is a \.nemo file that the plain engine cannot run: enc"):
        build_worker(Settings.from_env({"PARAKEET_MODEL": str(path)}))
    with pytest.raises(SettingsError, match="bake it first"):
        build_worker(Settings.from_env({"PARAKEET_MODEL": str(nemo_file), "PARAKEET_ENGINE": "nemo"}))


def test_a_name_is_looked_up_and_never_downloaded(
    nemo_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parakeet_worker.settings._VOLUME", tmp_path)
    monkeypatch.setattr("parakeet_worker.settings._MODEL_CACHE", tmp_path / "cache")

    def found() -> Path:
        return Settings.from_env({"PARAKEET_MODEL": "owner/small"}).model

    with pytest.raises(SettingsError, match=r"^PARAKEET_MODEL must be the directory of a baked model"):
        found()
    shutil.copytree(MODEL_DIR, tmp_path / "owner" / "small")
    assert found() == tmp_path / "owner" / "small"
    for age, revision in enumerate(("old", "new")):
        snapshot = tmp_path / "cache" / "models--owner--small" / "snapshots" / revision
        snapshot.mkdir(parents=True)
        shutil.copy(nemo_file, tmp_path / "cache" / "0123abc")
        (snapshot / "small.nemo").symlink_to(tmp_path / "cache" / "0123abc")
        os.utime(snapshot, (1_000_000 + age, 1_000_000 + age))
    assert found() == snapshot / "small.nemo"
