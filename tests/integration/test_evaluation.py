"""`make eval` with the bundled model: in its own process, behind a `/runsync`, and as an endpoint."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from evaluate import _Evaluation, _parser, main
from parakeet_client import Pace
from project import MODEL_DIR, ROOT, SPEECH, TEXT, Clip
from results import read_results
from runpod_platform import API_KEY, ENDPOINT, Platform, worker_process
from scoring import normalise
from scripted_platform import API_KEY as SCRIPTED_KEY
from scripted_platform import ENDPOINT as SCRIPTED
from scripted_platform import RUNNING, ScriptedPlatform, done, failed
from targets import StoppedError, open_target

CLIPS = SPEECH / "clips.jsonl"
PACE = Pace(first_poll=0.01, longest_poll=0.1, first_retry=0.01, longest_retry=0.1, requests=3)
COMMAND = [sys.executable, str(ROOT / "evaluation" / "evaluate.py")]
MODEL = {"model": "scripted", "version": "1", "engine": "plain", "device": "cpu", "precision": "float32"}


@dataclass(frozen=True)
class Report:
    """What a run has left."""

    folder: Path
    returncode: int
    stdout: str
    stderr: str = ""

    @property
    def rows(self) -> dict[str, str]:
        """The table, by the names of its rows."""
        lines = self.stdout.partition("\n\n")[0].splitlines()
        return dict(re.split(" {2,}", line, maxsplit=1) for line in lines)

    @property
    def summary(self) -> Any:
        return json.loads((self.folder / "summary.json").read_text())


def environ(**settings: str) -> dict[str, str]:
    path = os.pathsep.join(str(ROOT / folder) for folder in ("src", "clients/python/src"))
    return os.environ | {"PYTHONPATH": path, "PARAKEET_CPU_THREADS": "1"} | settings


def run_here(folder: Path, *arguments: str, **settings: str) -> Report:
    """Run the command with the worker in its process."""
    command = [*COMMAND, *arguments, "--output", str(folder)]
    ended = subprocess.run(
        command, cwd=ROOT, env=environ(**settings), capture_output=True, text=True, timeout=120, check=False
    )
    return Report(folder, ended.returncode, ended.stdout, ended.stderr)


def run_remote(capsys: pytest.CaptureFixture[str], folder: Path, target: str, *arguments: str) -> Report:
    """Run the command in this process, against a worker elsewhere."""
    capsys.readouterr()
    returncode = main(["--target", target, "--output", str(folder), *arguments], PACE)
    said = capsys.readouterr()
    return Report(folder, returncode, said.out, said.err)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The bundled model and clips, in one process."""
    return run_here(tmp_path_factory.mktemp("evaluation") / "here", "--price-per-hour", "0.5")


def test_the_word_error_rate_is_that_of_other_scorers(report: Report) -> None:
    from nemo.collections.asr.metrics.wer import word_error_rate

    assert report.returncode == 0, report.stderr
    outcomes = read_results(report.folder / "results.jsonl")
    references = [normalise(outcome.reference) for outcome in outcomes]
    hypotheses = [normalise(str(outcome.hypothesis)) for outcome in outcomes]
    rate = report.summary["errors"]["rate"]
    assert 0 < rate < 0.2
    assert round(rate, 4) == round(word_error_rate(hypotheses, references), 4)
    errors = sum(distance(one.split(), other.split()) for one, other in zip(references, hypotheses, strict=True))
    assert round(rate, 4) == round(errors / sum(len(each.split()) for each in references), 4)
    assert report.rows["Word error rate"].startswith(f"{rate * 100:.2f} % ")


def distance(reference: list[str], hypothesis: list[str]) -> int:
    """The edit distance, by the textbook."""
    row = list(range(len(hypothesis) + 1))
    for i, one in enumerate(reference, 1):
        before, row = row, [i]
        for j, other in enumerate(hypothesis, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (one != other)))
    return row[-1]


def test_the_figures_of_a_run(report: Report, clips: list[Clip]) -> None:
    summary = report.summary
    assert (summary["utterances"], summary["failed"]) == (len(clips), 0)
    assert summary["model"]["model"] == json.loads((MODEL_DIR / "card.json").read_text())["name"]
    timing = summary["timing"]
    assert 0.9 * timing["words"] < timing["matched"] <= timing["words"] == sum(len(clip.words) for clip in clips)
    assert 0 < timing["start_median_ms"] < 80
    assert timing["start_median_ms"] <= timing["start_p95_ms"] < 400
    cost = summary["cost"]
    assert cost["audio_seconds"] == pytest.approx(sum(clip.duration for clip in clips), abs=0.1)
    # One worker cannot be busy for longer than the run took.
    assert 0 < cost["worker_seconds"] <= cost["wall_seconds"] + 0.01
    assert cost["dollars_per_1000_hours"] == pytest.approx(0.5 * 1000 / cost["rtfx"])
    assert "Cost of 1,000 hours of audio" in report.rows


def test_the_page_shows_what_was_misheard(report: Report) -> None:
    page = (report.folder / "page.html").read_text()
    wrong = [
        outcome
        for outcome in read_results(report.folder / "results.jsonl")
        if normalise(outcome.reference) != normalise(str(outcome.hypothesis))
    ]
    assert wrong
    assert all(outcome.id in page for outcome in wrong)


def test_the_example_of_the_documentation(report: Report) -> None:
    text = (ROOT / "docs" / "accuracy.md").read_text()
    shown = Report(report.folder, 0, text.partition("<!-- eval -->\n```text\n")[2].partition("```")[0]).rows
    assert shown.keys() == report.rows.keys() - {"Cost", "Cost of 1,000 hours of audio"}
    measured_there = {"Wall clock", "RTFx by wall clock", "Worker time", "RTFx by worker time", "Model"}
    assert {name: value for name, value in shown.items() if name not in measured_there}.items() <= report.rows.items()


def test_a_run_goes_on_where_it_stopped(report: Report, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    (tmp_path / "run.json").write_bytes((report.folder / "run.json").read_bytes())
    before = (report.folder / "results.jsonl").read_bytes().splitlines(keepends=True)
    # Another depth than that of the folder they were written to.
    moved = [line.replace(b'"audio": "../../', b'"audio": "../') for line in before]
    record = json.loads((tmp_path / "run.json").read_text())
    record["recordings"] = Path(os.path.relpath(CLIPS, tmp_path)).as_posix()
    (tmp_path / "run.json").write_text(json.dumps(record))
    kept = b"".join(moved[:25])
    results.write_bytes(kept + moved[25][:50])
    again = run_here(tmp_path)
    assert again.returncode == 0, again.stderr
    assert results.read_bytes().startswith(kept)
    assert len(results.read_bytes().splitlines()) == len(before)
    assert again.summary["errors"] == report.summary["errors"]
    # Nothing is left to do: not even the model is loaded.
    done_already = run_here(tmp_path, "--limit", "10", "--no-page", PARAKEET_DEVICE="cuda")
    assert done_already.returncode == 0, done_already.stderr
    assert done_already.rows["Utterances"] == "10"
    assert "Nothing was sent: these are the results of earlier runs." in done_already.stdout
    assert "Nothing was sent" not in report.stdout + again.stdout


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ((str(CLIPS), "--set", "ami"), {}, "not allowed with argument"),
        (("none.jsonl",), {}, "none.jsonl cannot be read: No such file or directory"),
        (("--set", "none"), {}, "there is no set 'none': name one of librispeech-clean, "),
        (("--limit", "0"), {}, "it must be a number from 1 on"),
        ((), {"PARAKEET_MODEL": "none"}, "PARAKEET_MODEL must be the directory of a baked model"),
        (("--target", "an id"), {"RUNPOD_API_KEY": "key"}, "endpoint_id must be the id of an endpoint"),
        (("--target", "abc"), {"RUNPOD_API_KEY": ""}, "or set RUNPOD_API_KEY"),
        (("--target", "abc"), {"RUNPOD_API_KEY": "a key"}, "the RunPod API key has spaces or other characters"),
        (("--target", "https://api.runpod.ai/v2/abc"), {}, "give the id, not an address"),
        (("--target", "localhost:8000"), {}, "the URL of a server begins with http:// or https://"),
        (("--target", "http://localhost:8000/?token=1"), {}, "give the URL of a server without what follows ? or #"),
        (("--compare", "none", "none"), {}, "No such file"),
    ],
)
def test_a_wrong_command_gets_a_sentence(tmp_path: Path, arguments: Any, settings: Any, said: str) -> None:
    ended = run_here(tmp_path, *arguments, **settings)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_manifests_of_one_name_have_folders_of_their_own() -> None:
    folders = set()
    for arguments in ([], ["tests/speech/long/clips.jsonl"], ["clips.jsonl", "--target", "http://me:pw@localhost:80"]):
        run = _Evaluation(_parser().parse_args(arguments), PACE)
        assert run._folder.parent == ROOT / "evaluation" / "output"
        folders.add(run._folder.name)
    assert folders == {"clips-here", "tests-speech-long-clips-here", "clips-http-localhost-80"}


def test_results_of_something_else_are_not_added_to(report: Report, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"audio": str(SPEECH / "clip00.flac"), "text": "Rounded.", "id": "clip00.flac"}))
    ended = run_here(report.folder, str(other))
    assert (ended.returncode, "results with other recordings: use --restart" in ended.stderr) == (2, True)
    copy = tmp_path / "model"
    copy.mkdir()
    for path in MODEL_DIR.iterdir():
        (copy / path.name).symlink_to(path)
    (copy / "card.json").unlink()
    (copy / "card.json").write_text((MODEL_DIR / "card.json").read_text() + "\n")
    ended = run_here(report.folder, PARAKEET_MODEL=str(copy))
    assert (ended.returncode, "results with other weights" in ended.stderr) == (2, True)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of `make serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "handler.py", "--rp_serve_api", "--rp_api_port", str(port)]
    address = f"http://localhost:{port}"
    with subprocess.Popen(command, cwd=ROOT, env=environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                requests.get(address, timeout=5)
                break
            except requests.RequestException:
                time.sleep(0.2)
        yield address
        it.kill()


def texts(report: Report) -> dict[str, str | None]:
    return {outcome.id: outcome.hypothesis for outcome in read_results(report.folder / "results.jsonl")}


def test_a_server_gives_the_same(report: Report, server: str, tmp_path: Path, capsys: Any) -> None:
    found = run_remote(capsys, tmp_path / "server", server.replace("//", "//me:password@"))
    assert found.returncode == 0, found.stderr
    assert not any("password" in path.read_text() for path in found.folder.iterdir())
    assert texts(found) == texts(report)
    assert found.summary["timing"] == report.summary["timing"]
    assert 0 < found.summary["cost"]["worker_seconds"] <= found.summary["cost"]["wall_seconds"] + 0.01
    assert main(["--compare", str(report.folder), str(found.folder)]) == 0
    said = capsys.readouterr().out
    assert "no difference beyond chance" in said
    assert re.search(r"^Difference +\+0\.00 points", said, re.MULTILINE)


def test_what_fails_is_counted_and_listed(server: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "broken.flac").write_bytes((SPEECH / "clip00.flac").read_bytes()[:3000])
    records = [
        {"audio": str(SPEECH / "clip02.flac"), "text": TEXT, "id": "good"},
        {"audio": "broken.flac", "text": "Rounded like a tongue."},
    ]
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    for target in (server, "here"):
        folder = tmp_path / f"on {target[:4]}"
        if target == "here":
            found = run_here(folder, str(manifest))
        else:
            found = run_remote(capsys, folder, target, str(manifest))
        assert found.returncode == 1
        # The SDK's server does not pass codes on.
        code = "corrupt_audio" if target == "here" else "failed"
        assert found.rows["Failed"] == f"1 ({code}: 1)"
        assert f"broken.flac: {code}: the audio is " in found.stdout
        assert found.rows["Word errors"] == f"0 substituted, 4 missing, 0 added, of {len(TEXT.split()) + 4} words"
        assert found.rows["Word error rate without the failed"] == "0.00 %"


def test_a_server_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    ended = run_remote(capsys, tmp_path, "http://127.0.0.1:9")
    assert ended.returncode == 2
    assert "there is no worker at http://127.0.0.1:9/runsync: No answer after 2 attempts" in ended.stderr


def test_what_no_worker_had_costs_no_worker_time() -> None:
    with open_target("http://127.0.0.1:9", PACE) as target:
        answer = target.transcribe(str(SPEECH / "clip00.flac"))
        assert answer.error
        assert (answer.error.code, answer.transcript, answer.executions) == ("unreachable", None, ())
        target.stop()
        with pytest.raises(StoppedError):
            target.transcribe(str(SPEECH / "clip00.flac"))


def test_an_endpoint_gives_the_same(
    report: Report, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform()
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", platform.url + "/v2")
    monkeypatch.setenv("RUNPOD_API_KEY", API_KEY)
    with worker_process(platform, tmp_path / "log"):
        found = run_remote(capsys, tmp_path / "endpoint", ENDPOINT, "--price-per-hour", "1.1")
    platform.close()
    assert found.returncode == 0, found.stderr
    assert texts(found) == texts(report)
    assert found.rows["Worker time"].endswith("s, workers without names, taken for one")
    # The platform's clock is not this one's: on a busy machine its times of a job end a little after the answer came.
    assert 0 < found.summary["cost"]["worker_seconds"] <= 1.1 * found.summary["cost"]["wall_seconds"]
    assert not any(API_KEY in path.read_text() for path in found.folder.iterdir())


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    platform = ScriptedPlatform()
    monkeypatch.setenv("RUNPOD_ENDPOINT_BASE_URL", platform.url)
    monkeypatch.setenv("RUNPOD_API_KEY", SCRIPTED_KEY)
    # The job without audio is that of model_info.
    platform.fates[""] = deque([[done("", **MODEL)] for _ in range(9)])
    yield platform
    platform.close()


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A manifest of recordings that the scripted platform takes."""
    lines = []
    for name in ("boats", "sail", "past"):
        (tmp_path / f"{name}.flac").write_text(name)
        lines.append(json.dumps({"audio": f"{name}.flac", "text": name, "words": [], "duration": 2.5}))
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    return tmp_path / "mine.jsonl"


def test_what_is_done_is_not_sent_again(
    scripted: ScriptedPlatform, recordings: Path, tmp_path: Path, capsys: Any
) -> None:
    scripted.fates["sail"].append([failed("corrupt_audio", "it is damaged")])
    scripted.fates["past"].append([failed("worker_busy")])
    first = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert (first.returncode, first.rows["Failed"]) == (1, "1 (corrupt_audio: 1)")
    assert sorted(scripted.sent()) == ["", "boats", "past", "past", "sail"]
    again = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert (again.returncode, again.rows) == (1, first.rows)
    assert len(scripted.jobs) == 5
    retried = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page", "--retry-failed")
    assert (retried.returncode, retried.rows["Failed"], retried.rows["Word error rate"][:6]) == (0, "0", "0.00 %")
    assert scripted.sent()[5:] == ["", "sail"]
    # A recording that has changed is another one.
    (tmp_path / "boats.flac").write_text("ships")
    changed = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert scripted.sent()[7:] == ["", "ships"]
    assert changed.rows["Word errors"] == "1 substituted, 0 missing, 0 added, of 3 words"
    # So is another file, though it is older, under the same id.
    (tmp_path / "old.flac").write_text("boats")
    os.utime(tmp_path / "old.flac", (0, 0))
    manifest = recordings.read_text()
    recordings.write_text(manifest.replace('boats.flac"', 'old.flac", "id": "boats.flac"', 1))
    moved = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert scripted.sent()[9:] == ["", "boats"]
    assert moved.rows["Word error rate"][:6] == "0.00 %"
    recordings.write_text(manifest)
    run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert scripted.sent()[11:] == ["", "ships"]
    # A reference that was corrected is scored anew, and nothing is sent for it.
    recordings.write_text(recordings.read_text().replace('"text": "boats"', '"text": "ships"'))
    corrected = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page", "--limit", "1")
    assert corrected.rows["Word error rate"][:6] == "0.00 %"
    # A comparison sees the correction, too.
    other = run_remote(capsys, tmp_path / "other", SCRIPTED, str(recordings), "--no-page")
    assert main(["--compare", str(tmp_path / "out"), str(other.folder)]) == 0
    assert re.search(r"^Difference +\+0\.00 points", capsys.readouterr().out, re.MULTILINE)
    run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page", "--restart")
    assert len(scripted.sent()) == 13 + 4 + 4
    # An older file in a recording's place is another recording.
    (tmp_path / "boats.flac").write_text("boats")
    os.utime(tmp_path / "boats.flac", (0, 0))
    run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert scripted.sent()[21:] == ["", "boats"]


def test_attempts_that_were_repeated_cost(
    scripted: ScriptedPlatform, recordings: Path, tmp_path: Path, capsys: Any
) -> None:
    took = {"delayTime": 0, "executionTime": 60_000, "workerId": "w"}
    scripted.fates["sail"].append([failed("corrupt_audio") | took])
    for name in ("boats", "sail", "past"):
        scripted.fates[name].append([done(name) | took | {"workerId": name}])
    run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    retried = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page", "--retry-failed")
    assert (retried.returncode, retried.summary["cost"]["workers"]) == (0, 4)
    assert retried.summary["cost"]["worker_seconds"] == pytest.approx(240, abs=5)


def test_results_that_were_out_of_reach_are_sent_again(
    scripted: ScriptedPlatform, recordings: Path, tmp_path: Path, capsys: Any
) -> None:
    first = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    results = first.folder / "results.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    failure = {"code": "result_unavailable", "message": "The result cannot be fetched from the bucket."}
    lines[0] = json.dumps(json.loads(lines[0]) | {"hypothesis": None, "error": failure}) + "\n"
    results.write_text("".join(lines))
    again = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert (again.returncode, len(scripted.sent())) == (0, 4 + 2)


def test_a_restart_deletes_nothing_until_the_target_answers(
    scripted: ScriptedPlatform, recordings: Path, tmp_path: Path, capsys: Any
) -> None:
    first = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    scripted.faults["run"].append(401)
    assert run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page", "--restart").returncode == 2
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before
    scripted.fates[""].appendleft([done("", **MODEL | {"precision": "float16"})])
    restarted = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page", "--restart")
    assert (restarted.returncode, restarted.summary["model"]["precision"]) == (0, "float16")
    assert len((restarted.folder / "results.jsonl").read_bytes().splitlines()) == 3
    (tmp_path / "boats.flac").touch()
    ended = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert (ended.returncode, "the folder has results with other precision" in ended.stderr) == (2, True)


def test_times_of_an_endpoints_workers(
    scripted: ScriptedPlatform, recordings: Path, tmp_path: Path, capsys: Any
) -> None:
    for name, worker in (("boats", "w1"), ("sail", "w1"), ("past", "w2")):
        state = done(name) | {"delayTime": 0, "executionTime": 60_000, "workerId": worker}
        scripted.fates[name].append([state])
    found = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    # Two of them at the same time on one worker.
    assert found.summary["cost"]["worker_seconds"] == pytest.approx(120, abs=5)
    assert found.summary["cost"]["workers"] == 2
    # The platform told of these jobs only when they had ended.
    executions = [each for outcome in read_results(found.folder / "results.jsonl") for each in outcome.executions]
    assert len(executions) == 3
    assert all(each.end <= time.time() for each in executions)


@pytest.mark.parametrize(
    ("status", "said"), [(401, "RunPod does not take the API key"), (404, "RunPod knows no such endpoint")]
)
def test_an_endpoint_that_takes_nothing(
    scripted: ScriptedPlatform, recordings: Path, tmp_path: Path, capsys: Any, status: int, said: str
) -> None:
    scripted.faults["run"].append(status)
    ended = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings))
    assert (ended.returncode, said in ended.stderr) == (2, True)
    scripted.fates[""].appendleft([done("", **MODEL | {"version": "2"})])
    assert run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page").returncode == 0
    (tmp_path / "boats.flac").touch()
    ended = run_remote(capsys, tmp_path / "out", SCRIPTED, str(recordings), "--no-page")
    assert (ended.returncode, "the folder has results with other version" in ended.stderr) == (2, True)


def test_ctrl_c(scripted: ScriptedPlatform, recordings: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("sail", "past"):
        scripted.fates[name].append([RUNNING])
    out = tmp_path / "out"
    command = [*COMMAND, str(recordings), "--target", SCRIPTED, "--output", str(out), "--no-page"]
    # A shell lets what it runs in the background ignore Ctrl+C, and the tests may run there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, env=environ(), stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            scripted.wait_for_jobs(4)
            deadline = time.monotonic() + 20
            while not (out / "results.jsonl").read_bytes():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Stopped. The same command, without --restart, goes on where it was." in said
    assert "Traceback" not in said
    assert sorted(job.source for job in scripted.jobs.values() if job.is_cancelled) == ["past", "sail"]
    assert run_remote(capsys, out, SCRIPTED, str(recordings), "--no-page").returncode == 0
    assert sorted(scripted.sent()[4:]) == ["", "past", "sail"]
