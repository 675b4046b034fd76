"""Baking: from NeMo's archive, local or from a hub, to the directory that the worker loads."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from archives import write_archive
from cpu import CPU
from loopback import LoopbackServer
from parakeet_worker.bake.command import main as bake_main
from parakeet_worker.bake.huggingface.__main__ import main as download_main
from parakeet_worker.bake.huggingface.pin import PARAKEET_TDT_0_6B_V2, Pin
from parakeet_worker.bake.prove import DifferentModelError, prove
from parakeet_worker.model.card import CARD, Card, parameter_count, sha256
from parakeet_worker.model.self_check import word_agreement
from parakeet_worker.nemo.loading import load_model
from parakeet_worker.nemo.recognizer import NemoRecognizer
from project import MODEL_DIR, TEXT, Clip
from recognizers import Hears

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def nemo_file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("archive") / "small.nemo"
    write_archive(MODEL_DIR, path)
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "parakeet_worker.bake", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_baked_archive_is_nemos_model(nemo_file: Any, tmp_path: Path, clips: list[Clip]) -> None:
    from nemo.collections.asr.models import ASRModel

    done = run(
        str(nemo_file),
        "--out",
        str(tmp_path / "out"),
        "--license",
        "MIT",
        "--max-minutes",
        "3",
        "--precision",
        "float32",
    )
    assert done.returncode == 0, done.stderr
    assert "bake small" in done.stderr  # the progress bar
    baked = load_model(tmp_path / "out", torch.device("cpu"))
    restored = ASRModel.restore_from(str(nemo_file), map_location="cpu")
    theirs, ours = restored.state_dict(), baked.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)

    card = Card.read(tmp_path / "out")
    assert (card.name, card.license, card.max_duration) == ("small", "MIT", 180)
    assert card.parameters == sum(parameter.numel() for parameter in restored.parameters())
    assert card.source == {"name": "small.nemo", "sha256": sha256(nemo_file)}
    embedded = Card.read(MODEL_DIR)
    assert (card.engine, card.engine_reason) == ("plain", embedded.engine_reason)
    assert (card.architecture, card.features) == (embedded.architecture, embedded.features)
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert files == {*card.files, CARD}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_weights_are_baked_in_16_bits_for_a_gpu(nemo_file: Any, tmp_path: Path, clips: list[Clip]) -> None:
    bake_main([str(nemo_file), "--out", str(tmp_path / "out")])
    baked = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for name, tensor in baked.items() if name.startswith("preprocessor.")} == {torch.float32}
    assert {tensor.dtype for name, tensor in baked.items() if name.startswith("encoder.")} == {
        torch.bfloat16,
        torch.int64,
    }
    assert Card.read(tmp_path / "out").check == TEXT
    recognizer = NemoRecognizer(load_model(tmp_path / "out", CPU.device), CPU)
    heard = [hypothesis.text for hypothesis in recognizer.transcribe([soundfile.read(c.path)[0] for c in clips[:8]])]
    assert (
        word_agreement(" ".join(heard), " ".join(clip.text for clip in clips[:8])) > 0.8
    )  # a model this small minds the rounding


def test_a_bake_without_nemo_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['nemo'] = None; runpy.run_module('parakeet_worker.bake', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "bake: NeMo is not installed; install it with: pip install -r requirements-nemo.txt\n"


def test_another_model_is_noticed(nemo_file: Any, tmp_path: Path) -> None:
    directory = shutil.copytree(MODEL_DIR, tmp_path / "model")
    weights = load_file(directory / "model.safetensors")
    weights["encoder.layers.1.norm_out.bias"][3] += 1e-6
    save_file(weights, directory / "model.safetensors")
    files = {name: sha256(directory / name) for name in Card.read(directory).files}
    with pytest.raises(DifferentModelError, match=r"encoder\.layers\.1\.norm_out\.bias is not as NeMo restores it"):
        prove(nemo_file, directory, files, torch.float32)


def test_a_model_that_the_plain_engine_hears_otherwise_is_nemos(
    nemo_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parakeet_worker.bake.prove.load_plain", lambda *_, **__: Hears(""))
    said = "The plain engine differs from NeMo in recording 1 alone: "
    said += "token 1 is the end, NeMo's is '▁The' at 0.32 to 0.40 s."
    with pytest.raises(SystemExit) as raised:
        bake_main([str(nemo_file), "--out", str(tmp_path / "out"), "--engine", "plain"])
    assert raised.value.code == f"bake: small is served by NeMo; build with --build-arg ENGINE=nemo. {said}"
    assert not list(tmp_path.iterdir())

    bake_main([str(nemo_file), "--out", str(tmp_path / "out"), "--engine", "nemo"])
    card = Card.read(tmp_path / "out")
    assert (card.engine, card.engine_reason) == ("nemo", said)
    with pytest.raises(SystemExit, match=r"^bake: small is served by NeMo; build with --build-arg ENGINE=nemo\. The"):
        bake_main([str(tmp_path / "out"), "--out", str(tmp_path / "copy"), "--engine", "plain"])
    bake_main([str(tmp_path / "out"), "--out", str(tmp_path / "copy")])
    bake_main([str(MODEL_DIR), "--out", str(tmp_path / "plain"), "--engine", "plain"])


def test_the_embedded_model_is_as_baked() -> None:
    card = Card.read(MODEL_DIR)
    assert {name: sha256(MODEL_DIR / name) for name in card.files} == card.files
    assert "not for people's speech" in card.description


def test_a_baked_directory_is_checked_and_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bake_main([str(MODEL_DIR), "--out", str(tmp_path / "copy")])
    assert Card.read(tmp_path / "copy") == Card.read(MODEL_DIR)
    with (tmp_path / "copy" / "model_config.yaml").open("a") as config:
        config.write("\n")
    with pytest.raises(SystemExit, match=r"model_config\.yaml is not the file"):
        bake_main([str(tmp_path / "copy"), "--out", str(tmp_path / "again")])
    with pytest.raises(SystemExit, match="has its card"):
        bake_main([str(MODEL_DIR), "--out", str(tmp_path / "again"), "--license", "X"])
    with pytest.raises(SystemExit, match="exists already"):
        bake_main([str(MODEL_DIR), "--out", str(tmp_path / "copy")])


def archive(**files: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "not a .nemo archive"),
        (archive(other__txt=b"x"), "lacks model_config.yaml"),
        (
            archive(model_config__yaml=b"target: other.Model", model_weights__ckpt=b"x"),
            "target is Model; only",
        ),
    ],
)
def test_what_cannot_be_baked(tmp_path: Path, content: Any, said: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "x.nemo"
    source.write_bytes(content)
    with pytest.raises(SystemExit) as raised:
        bake_main([str(source), "--out", str(tmp_path / "out")])
    assert said in str(raised.value.code)
    assert [path.name for path in tmp_path.iterdir()] == ["x.nemo"]
    capsys.readouterr()


def test_a_directory_is_never_overwritten(nemo_file: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="exists already"):
        bake_main([str(nemo_file), "--out", str(tmp_path)])


def test_a_local_file_with_another_checksum(nemo_file: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has the SHA-256"):
        bake_main([str(nemo_file), "--out", str(tmp_path / "out"), "--sha256", "0" * 64])


@pytest.mark.parametrize("minutes", ["0", "-1", "0.59", "nan", "inf"])
def test_nonsensical_minutes(nemo_file: Any, tmp_path: Path, minutes: Any) -> None:
    with pytest.raises(SystemExit, match="--max-minutes"):
        bake_main([str(nemo_file), "--out", str(tmp_path / "out"), f"--max-minutes={minutes}"])


def test_a_hub_model_must_be_pinned(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="needs --revision and --sha256"):
        bake_main(["someone/some-model", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="40 hexadecimal digits"):
        bake_main(["someone/some-model", "--out", str(tmp_path / "out"), "--revision", "main", "--sha256", "0" * 64])


def test_production_is_pinned() -> None:
    assert (
        Pin(
            "nvidia/parakeet-tdt-0.6b-v2",
            "parakeet-tdt-0.6b-v2.nemo",
            PARAKEET_TDT_0_6B_V2.revision,
            PARAKEET_TDT_0_6B_V2.sha256,
        )
        == PARAKEET_TDT_0_6B_V2
    )


@pytest.fixture
def hub(server: LoopbackServer, nemo_file: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A stand-in for the hub, as far as its client asks: the file's metadata, then its bytes."""
    data = nemo_file.read_bytes()
    etag = hashlib.sha256(data).hexdigest()
    server.serve(
        f"/nvidia/parakeet-tdt-0.6b-v2/resolve/{REVISION}/parakeet-tdt-0.6b-v2.nemo",
        data,
        ETag=f'"{etag}"',
        X_Repo_Commit=REVISION,
    )
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    return server


def test_a_model_from_the_hub(hub: Any, nemo_file: Any, tmp_path: Path) -> None:
    done = run("nvidia/parakeet-tdt-0.6b-v2", "--out", str(tmp_path / "out"), "--revision", REVISION,
               "--sha256", sha256(nemo_file))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "parakeet-tdt-0.6b-v2.nemo:" in done.stderr  # the download's progress bar
    card = json.loads((tmp_path / "out" / CARD).read_text())
    assert card["name"] == "nvidia/parakeet-tdt-0.6b-v2"
    assert card["license"] == "CC-BY-4.0"
    assert card["max_duration"] == 24 * 60
    assert card["source"] == {"name": card["name"], "revision": REVISION, "sha256": sha256(nemo_file)}


def test_a_download_is_kept_for_the_bake(hub: Any, nemo_file: Any, tmp_path: Path) -> None:
    pinned = ["--revision", REVISION, "--sha256", sha256(nemo_file)]
    fetch = [sys.executable, "-m", "parakeet_worker.bake.huggingface", "nvidia/parakeet-tdt-0.6b-v2", *pinned]
    done = subprocess.run([*fetch, "--to", tmp_path / "kept"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    hub.close()
    done = run(
        "nvidia/parakeet-tdt-0.6b-v2", "--out", str(tmp_path / "out"), "--downloads", str(tmp_path / "kept"), *pinned
    )
    assert done.returncode == 0, done.stderr
    assert Card.read(tmp_path / "out").source["revision"] == REVISION


FETCH = """
import sys
from parakeet_worker.bake.huggingface import __main__ as command, download as hub
hub._FIRST_WAIT_S = 0.05
command.main(sys.argv[1:])
"""


def fetch(nemo_file: Any, directory: Any, **environ: str) -> subprocess.CompletedProcess[str]:
    """Download the fixture's model as the Dockerfile does, with short waits."""
    pinned = ["--revision", REVISION, "--sha256", sha256(nemo_file), "--to", str(directory)]
    command = [sys.executable, "-c", FETCH, "nvidia/parakeet-tdt-0.6b-v2", *pinned]
    env = os.environ | environ
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def busy(hub: Any, *refusals: int | str, method: str = "HEAD", **headers: str | Callable[[], str]) -> list[float]:
    """Have the hub refuse its first requests in these ways, and return when each request came, in seconds."""
    (path, serve), came = next(iter(hub.routes.items())), []
    left = list(refusals)

    def answer(handler: Any) -> None:
        came.append(time.monotonic())
        if handler.command != method or not left:
            serve(handler)
        elif (status := left.pop(0)) == "reset":
            handler.connection.close()
        else:
            handler.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                handler.send_header(name.replace("_", "-"), value if isinstance(value, str) else value())
            handler.end_headers()

    hub.routes[path] = answer
    return came


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_busy_hub_is_asked_again(hub: Any, nemo_file: Any, tmp_path: Path, method: Any) -> None:
    came = busy(hub, 429, 500, 503, 408, "reset", method=method)
    done = fetch(nemo_file, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(came) > 6
    assert sha256(tmp_path / "parakeet-tdt-0.6b-v2.nemo") == sha256(nemo_file)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "2"},
        {"Retry_After": lambda: formatdate(time.time() + 4, usegmt=True)},
        {"RateLimit": '"resolvers";r=0;t=1'},
    ],
)
def test_a_busy_hub_is_asked_when_it_says(hub: Any, nemo_file: Any, tmp_path: Path, headers: Any) -> None:
    came = busy(hub, 429, **headers)
    done = fetch(nemo_file, tmp_path)
    assert done.returncode == 0, done.stderr
    assert came[1] - came[0] > 1.9
    assert "too many requests from this address; with an HF_TOKEN it allows more; trying again in" in done.stderr


def test_a_build_does_not_wait_for_hours(hub: Any, nemo_file: Any, tmp_path: Path) -> None:
    came = busy(hub, *[429] * 9, Retry_After="3600")
    done = fetch(nemo_file, tmp_path)
    assert done.returncode == 1
    assert "with an HF_TOKEN it allows more; the next would be in 3600 s" in done.stderr
    assert len(came) == 1


@pytest.mark.parametrize(("status", "method"), [(401, "HEAD"), (403, "HEAD"), (404, "HEAD"), (403, "GET")])
def test_a_refusal_is_final(hub: Any, nemo_file: Any, tmp_path: Path, status: Any, method: Any) -> None:
    came = busy(hub, *[status] * 9, method=method)
    done = fetch(nemo_file, tmp_path)
    assert done.returncode == 1
    assert f"could not be downloaded: the hub answers {status}" in done.stderr
    assert ("HF_TOKEN must be a token" in done.stderr) == (status in (401, 403))
    assert "http://" not in done.stderr
    assert len(came) == (1 if method == "HEAD" else 2)


def test_what_is_no_hub(hub: Any, nemo_file: Any, tmp_path: Path) -> None:
    hub.serve(next(iter(hub.routes)), b"a page")
    done = fetch(nemo_file, tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("the answer is not a Hugging Face hub's: it lacks the commit or the ETag\n")


@pytest.mark.parametrize(("token", "sent"), [("", None), ("hf_secret\n", "Bearer hf_secret")])
def test_a_token_goes_to_the_hub_alone(hub: Any, nemo_file: Any, tmp_path: Path, token: Any, sent: Any) -> None:
    path = next(iter(hub.routes))
    hub.serve("/signed", nemo_file.read_bytes())
    elsewhere = hub.url.replace("127.0.0.1", "localhost") + "/signed?Signature=abc"
    etag = {"X_Linked_Etag": f'"{sha256(nemo_file)}"', "X_Linked_Size": str(nemo_file.stat().st_size)}
    hub.serve(path, b"", status=302, Location=elsewhere, X_Repo_Commit=REVISION, **etag)
    done = fetch(nemo_file, tmp_path, HF_TOKEN=token)
    assert done.returncode == 0, done.stderr
    assert {asked: headers.get("authorization") for asked, headers in hub.requests} == {
        path: sent,
        "/signed?Signature=abc": None,
    }
    assert "hf_secret" not in done.stderr + "".join(f.read_text() for f in (tmp_path / ".cache").rglob("*.metadata"))

    hub.serve("/signed", b"", status=403)
    done = fetch(nemo_file, tmp_path / "again", HF_TOKEN=token)
    assert done.returncode == 1
    assert "Signature" not in done.stderr


def test_a_path_is_not_downloaded(tmp_path: Path) -> None:
    download_main([str(MODEL_DIR), "--to", str(tmp_path / "kept")])
    assert not (tmp_path / "kept").exists()


def test_a_hub_that_sends_another_file(hub: Any, tmp_path: Path) -> None:
    done = run("nvidia/parakeet-tdt-0.6b-v2", "--out", str(tmp_path / "out"), "--revision", REVISION,
               "--sha256", "0" * 64)  # fmt: skip
    assert done.returncode == 1
    assert "it is not the pinned file" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_pinned_default_asks_the_hub_for_its_commit(hub: Any, tmp_path: Path) -> None:
    done = run("nvidia/parakeet-tdt-0.6b-v2", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "could not be downloaded" in done.stderr
    pin = PARAKEET_TDT_0_6B_V2
    assert hub.requests[0][0] == f"/{pin.name}/resolve/{pin.revision}/{pin.file}"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (4_819_478, "4.8M"),
        (617_800_000, "600M"),
        (1_100_000_000, "1.1B"),
        (114_000_000, "110M"),
        (999_999_999, "1B"),
        (999_999, "1M"),
        (32_000, "32K"),
        (7, "0.007K"),
    ],
)
def test_parameter_counts_as_model_names_say_them(count: Any, said: Any) -> None:
    assert parameter_count(count) == said
