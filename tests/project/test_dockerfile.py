"""The Dockerfile's steps, as far as they can be run without building an image. `make image-test` builds one."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imports import path_of, reachable
from project import MODEL_DIR, ROOT

LINES = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
STEPS = re.sub(r"\\\n *", "", "\n".join(LINES)).splitlines()
LOCK = (ROOT / "requirements.txt").read_text()


def step(part: str) -> str:
    """The one step with a text in it, without its instruction and options."""
    [found] = [text for text in STEPS if part in text]
    return re.sub(r"^[A-Z]+ (--\S+ )*", "", found)


@pytest.fixture
def install(tmp_path: Path) -> Any:
    """Run the installation of the packages with a pip that only says what it was asked for."""
    pip = tmp_path / "opt/pip/bin/pip"
    pip.parent.mkdir(parents=True)
    pip.write_text('#!/bin/sh\necho "$@" >> calls\nfor last; do :; done\ntest ! -f "$last" || cp "$last" installed\n')
    pip.chmod(0o755)
    (tmp_path / "requirements.txt").write_text(LOCK)
    script = step("pip/bin/pip").partition("--without-pip /opt/venv && ")[2].partition(" && rm -rf /opt/pip")[0]
    script = script.replace("/opt/", f"{tmp_path}/opt/")

    def install(torch_cuda: str) -> tuple[list[list[str]], str]:
        subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=os.environ | {"TORCH_CUDA": torch_cuda}, check=True)
        calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
        return [call[call.index("install") + 1 :] for call in calls], (tmp_path / "installed").read_text()

    return install


def test_the_packages_are_the_locks(install: Any) -> None:
    [call], requirements = install("")
    assert "--index-url" not in call
    assert requirements == LOCK


@pytest.mark.parametrize("cuda", ["cu126", "cu128"])
def test_torch_for_another_cuda(install: Any, cuda: Any) -> None:
    [first, _], requirements = install(cuda)
    torch = re.search("^torch==[0-9.]+", LOCK, re.MULTILINE)[0]  # type: ignore[index]
    assert first[-3:] == ["--index-url", f"https://download.pytorch.org/whl/{cuda}", f"{torch}+{cuda}"]
    assert "--no-deps" in first  # the rest is the lock's, from where the lock is from
    changed = set(LOCK.splitlines()) ^ set(requirements.splitlines())
    assert {re.split("[ ;]", line)[0] for line in changed} == {
        torch,
        f"{torch}+{cuda}",
        re.search("^cuda-bindings==[0-9.]+", LOCK, re.MULTILINE)[0],  # type: ignore[index]
    }
    assert f"\n{torch}+{cuda} " in requirements


@pytest.mark.parametrize(("secret", "token"), [(None, ""), ("hf_secret\n", "hf_secret")])
def test_the_token_is_the_downloads_alone(tmp_path: Path, secret: Any, token: Any) -> None:
    (tmp_path / "python").write_text('#!/bin/sh\necho "$HF_TOKEN|$*"\n')
    (tmp_path / "python").chmod(0o755)
    if secret:
        (tmp_path / "HF_TOKEN").write_text(secret)
    [mount] = [text for text in STEPS if "--mount" in text]
    assert mount.startswith("RUN --mount=type=secret,id=HF_TOKEN,required=false ")
    script = step("bake.huggingface").replace("/run/secrets", str(tmp_path))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MODEL": "a/b"}
    said = subprocess.run(["sh", "-ec", script], env=env, capture_output=True, text=True, check=True)
    assert said.stdout == f"{token}|-m parakeet_worker.bake.huggingface a/b --to /downloads\n"
    assert not said.stderr
    assert not [text for text in STEPS if re.match("(ARG|ENV) .*TOKEN", text)]


def copied(module: str) -> list[str]:
    """The folders that are there when a module of the model's stage runs."""
    stage = STEPS[STEPS.index("FROM packages AS model") :]
    before = stage[: next(i for i, text in enumerate(stage) if f"-m parakeet_worker.{module} " in text)]
    return [source for text in before if text.startswith("COPY src/") for source in shlex.split(text)[1:-1]]


MODULES = {"bake.huggingface": ["--to", "x"], "bake": ["--out", "x"]}


@pytest.mark.parametrize(("module", "arguments"), MODULES.items())
def test_the_bake_has_the_code_that_it_needs(tmp_path: Path, module: Any, arguments: Any) -> None:
    for source in copied(module):
        shutil.copytree(ROOT / source, tmp_path / source, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", f"parakeet_worker.{module}", str(MODEL_DIR), *arguments],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_the_bake_imports_is_copied(module: Any) -> None:
    """Imports inside functions are not made above, where a baked model is copied rather than baked."""
    folders = [ROOT / source for source in copied(module)]
    for name in reachable(f"parakeet_worker.{module}.__main__"):
        assert any(folder in path_of(name).parents for folder in folders), name


def test_folders_are_copied_and_no_single_files_of_them() -> None:
    sources = [source for text in STEPS if text.startswith("COPY ") for source in shlex.split(text)[1:-1]]
    code = [source for source in sources if source.startswith("src")]
    assert code
    assert all((ROOT / source).is_dir() for source in code)
