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

from imports import PACKAGE, path_of, reachable
from project import MODEL_DIR, ROOT

LINES = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
STEPS = re.sub(r"\\\n *", "", "\n".join(LINES)).splitlines()
LOCKS = {name: (ROOT / name).read_text() for name in ("requirements.txt", "requirements-nemo.txt")}


def step(part: str) -> str:
    """The one step with a text in it, without its instruction and options."""
    [found] = [text for text in STEPS if part in text]
    return re.sub(r"^[A-Z]+ (--\S+ )*", "", found)


@pytest.fixture
def install(tmp_path: Path) -> Any:
    """Run the installation of a lock with a pip that only says what it was asked for."""
    pip = tmp_path / "opt/pip/bin/pip"
    pip.parent.mkdir(parents=True)
    pip.write_text('#!/bin/sh\necho "$@" >> calls\nfor last; do :; done\ntest ! -f "$last" || cp "$last" installed\n')
    pip.chmod(0o755)

    def install(lock: str, torch_cuda: str) -> tuple[list[list[str]], str]:
        (tmp_path / lock).write_text(LOCKS[lock])
        (tmp_path / "calls").unlink(missing_ok=True)
        [script] = [text for text in STEPS if text.startswith("RUN ") and lock in text]
        script = re.split(r"python3 -m venv [^&]*&& (?!python3)", script)[-1].partition(" && rm -rf /opt/pip")[0]
        script = script.replace("/opt/", f"{tmp_path}/opt/")
        subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=os.environ | {"TORCH_CUDA": torch_cuda}, check=True)
        calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
        return [call[2:] for call in calls], (tmp_path / "installed").read_text()

    return install


@pytest.mark.parametrize("lock", LOCKS)
def test_the_packages_are_the_locks(install: Any, lock: Any) -> None:
    [call, *_], requirements = install(lock, "")
    assert call[0] == "install"
    assert "--index-url" not in call
    assert requirements == LOCKS[lock]


@pytest.mark.parametrize("cuda", ["cu126", "cu128"])
def test_torch_for_another_cuda(install: Any, cuda: Any) -> None:
    [first, *_], requirements = install("requirements.txt", cuda)
    lock = LOCKS["requirements.txt"]
    torch = re.search("^torch==[0-9.]+", lock, re.MULTILINE)[0]  # type: ignore[index]
    assert first[-3:] == ["--index-url", f"https://download.pytorch.org/whl/{cuda}", f"{torch}+{cuda}"]
    assert "--no-deps" in first  # the rest is the lock's, from where the lock is from
    assert pins(lock) ^ pins(requirements) == {torch, f"{torch}+{cuda}"}


def pins(lock: str) -> set[str]:
    return {line.split()[0] for line in lock.splitlines() if line and not line.startswith("#")}


def test_what_torch_names_and_does_without_is_left_out(install: Any) -> None:
    *_, uninstall = install("requirements.txt", "")[0]
    assert uninstall == ["uninstall", "--yes", "triton", "cuda-bindings", "cuda-pathfinder"]
    [nemo], _ = install("requirements-nemo.txt", "")
    assert "--no-deps" in nemo  # or torch would bring Triton back


def stages() -> dict[str, list[str]]:
    """The steps of each stage, the first of which says what it is built from; the last is the image."""
    found: dict[str, list[str]] = {}
    for text in STEPS:
        if text.startswith("FROM "):
            steps = found[text.partition(" AS ")[2] or "image"] = []
        if found:
            steps.append(text)
    return found


def test_the_image_has_the_packages_of_its_engine() -> None:
    base = {name: steps[0].split()[1] for name, steps in stages().items()}
    assert "ARG ENGINE=plain" in STEPS[: STEPS.index("FROM ${BASE_IMAGE} AS packages")]
    assert base == {
        "packages": "${BASE_IMAGE}",
        "nemo-packages": "packages",
        "model": "nemo-packages",
        "engine-plain": "packages",
        "engine-nemo": "nemo-packages",
        "image": "engine-${ENGINE:-plain}",
    }
    assert '--engine "${ENGINE}"' in step("parakeet_worker.bake ")


@pytest.mark.parametrize(("name", "steps"), stages().items())
def test_a_stage_declares_the_arguments_that_it_uses(name: Any, steps: Any) -> None:
    """An argument of another stage, or from before the first one, is empty and no error."""
    declared = {re.split("[ =]", text)[1] for text in steps if text.startswith("ARG ")}
    used = {variable for text in steps[1:] for variable in re.findall(r"\$\{([A-Z_0-9]+)", text)}
    assert used <= declared


def test_the_build_context_has_what_is_copied() -> None:
    ignored, *kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored == "*"
    for text in STEPS:
        if text.startswith("COPY ") and "--from" not in text:
            for source in shlex.split(text)[1:-1]:
                assert {f"!{source.split('/')[0]}", f"!{source.split('/')[0]}/"} & set(kept)


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
    """The parts of the code that are there when a module of the model's stage runs."""
    stage = STEPS[STEPS.index("FROM nemo-packages AS model") :]
    before = stage[: next(i for i, text in enumerate(stage) if f"-m parakeet_worker.{module} " in text)]
    return [source for text in before if text.startswith("COPY src/") for source in shlex.split(text)[1:-1]]


MODULES = {"bake.huggingface": ["--to", "x"], "bake": ["--out", "x", "--engine", "plain"]}


@pytest.mark.parametrize(("module", "arguments"), MODULES.items())
def test_the_bake_has_the_code_that_it_needs(tmp_path: Path, module: Any, arguments: Any) -> None:
    for source in copied(module):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    # Without one, Python would prefer the package that is installed, and so all of the code.
    (tmp_path / "src/parakeet_worker/__init__.py").touch()
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
    parts = [ROOT / source for source in copied(module)]
    for name in reachable(f"parakeet_worker.{module}.__main__"):
        assert any(part in (path_of(name), *path_of(name).parents) for part in parts), name


def test_whole_folders_are_copied_and_no_single_files_of_them() -> None:
    sources = [source for text in STEPS if text.startswith("COPY ") for source in shlex.split(text)[1:-1]]
    code = [source for source in sources if source.startswith("src")]
    assert code
    assert all((ROOT / source).is_dir() or path_of(PACKAGE).parent == (ROOT / source).parent for source in code)
