"""What once broke in service, injected into the worker in its real loop."""

import json
import re
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audio_files import contain, data_url, encode, tone
from loopback import LoopbackServer
from parakeet_worker.job.response import reductions
from parakeet_worker.serverless import job_loop, serve
from parakeet_worker.serverless.job_ids import quoted_id
from parakeet_worker.serverless.poll_response import parse_jobs, prune
from project import ROOT, SPEECH, TEXT, Clip, check_schema
from runpod_platform import Platform, wait_until, worker_process

CLIP = data_url((SPEECH / "clip02.flac").read_bytes())
GOOD = {"input": {"audio_url": CLIP}}


@pytest.fixture
def web() -> Iterator[Any]:
    server = LoopbackServer()
    yield server
    server.close()


def answers(platform: Platform, raw: dict[str, str]) -> dict[str, dict[str, Any]]:
    jobs = platform.submit_raw(raw)
    assert wait_until(lambda: all(job.answers for job in jobs)), platform.log.read_text()[-3000:]
    assert [job.answers for job in jobs] == [1] * len(jobs)
    return {job.id: job.result for job in jobs}


def code_of(job: Any) -> str:
    return job.result["output"].get("code", "ok") if job.answers else "lost"


def nested(depth: int, *, objects: bool) -> str:
    return '{"a":' * depth + "1" + "}" * depth if objects else "[" * depth + "]" * depth


class TestDeepJson:
    @pytest.mark.parametrize("depth", [33, 500, 990, 1_000, 9_000, 500_000])
    @pytest.mark.parametrize("objects", [False, True])
    def test_a_deep_job_costs_no_other(self, live: Platform, depth: Any, objects: Any) -> None:
        deep = nested(depth, objects=objects)
        key = f"{depth}-{objects}"
        results = answers(
            live,
            {
                f"a-{key}": json.dumps(GOOD | {"id": f"a-{key}"}),
                f"deep-{key}": f'{{"input": {{"audio_url": {deep}}}, "id": "deep-{key}"}}',
                f"b-{key}": json.dumps({"id": f"b-{key}", "input": {"action": "model_info"}}),
                f"policy-{key}": f'{{"id": "policy-{key}", "policy": {deep}, "input": {{"action": "model_info"}}}}',
            },
        )
        assert results[f"a-{key}"]["output"]["text"] == TEXT
        assert results[f"deep-{key}"]["error"] == "input is nested too deeply"
        assert results[f"deep-{key}"]["output"]["code"] == "invalid_type"
        check_schema(results[f"b-{key}"]["output"], "model_info")
        check_schema(results[f"policy-{key}"]["output"], "model_info")

    @pytest.mark.parametrize("odd", ["1" + "0" * 10_000, "1e999", "NaN", '"\\ud800"', "[" + "[]," * 1_000_000 + "0]"])
    def test_nor_does_one_that_is_odd(self, live: Platform, odd: Any) -> None:
        key = str(abs(hash(odd)))
        results = answers(
            live,
            {
                f"odd-{key}": f'{{"input": {{"audio_url": {odd}}}, "id": "odd-{key}"}}',
                f"good-{key}": json.dumps(GOOD | {"id": f"good-{key}"}),
            },
        )
        assert results[f"odd-{key}"]["output"]["code"] in ("invalid_type", "invalid_url")
        assert results[f"good-{key}"]["output"]["text"] == TEXT

    def test_brackets_in_strings_are_none(self) -> None:
        inside = json.dumps({"a": '[[[["\\' * 500, "b": [[['"]', "\\"]]]})
        deep = f'[{{"id": "1", "x": {nested(5_000, objects=False)}, "y": {inside}}}, {{"id": "2"}}]'.encode()
        first, second = parse_jobs(deep)
        assert first["y"] == json.loads(inside)
        assert second == {"id": "2"}
        with pytest.raises(ValueError, match="Expecting"):
            parse_jobs(b"[" * 5_000)

    def test_pruning_keeps_what_is_not_too_deep(self) -> None:
        assert (
            prune(b'{"a": [[1], {"b": [2]}, [[3]]], "c": "[[["}', 3) == b'{"a": [[1], {"b": null}, [null]], "c": "[[["}'
        )


class TestIds:
    @pytest.mark.parametrize(
        "job_id", ["a?b", "a#b", "a%2fb", "../x", "..", "a/b", "a b", "ü", "a\nERROR  | x", "\x1b[31m"]
    )
    def test_an_answer_goes_to_its_own_address(self, live: Platform, job_id: Any) -> None:
        decoy = {"a": '{"id": "a", "input": {}}', "x": '{"id": "x", "input": {}}'}
        before = {name: live.jobs[name].answers if name in live.jobs else 0 for name in decoy}
        job = json.dumps({"id": job_id, "batchId": f"{job_id}\n\x1b", "input": {"action": "model_info"}})
        result = answers(live, {job_id: job})[job_id]
        check_schema(result["output"], "model_info")
        assert {name: live.jobs[name].answers if name in live.jobs else 0 for name in decoy} == before
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", live.log.read_text())
        assert all(re.match(r"(INFO|WARN|ERROR) *\||---| ", line) for line in live.log.read_text().splitlines())

    def test_a_number_is_answered(self, live: Platform) -> None:
        result = answers(live, {"123": '{"id": 123, "input": {"action": "model_info"}}'})["123"]
        check_schema(result["output"], "model_info")

    def test_what_cannot_be_answered_is_reported(self, live: Platform) -> None:
        said = "A job without an id was handed out"
        count = live.log.read_text().count(said)
        odd = ['{"input": {}}', '{"id": null}', '{"id": ""}', '{"id": [1]}', '{"id": true}', "7", "null", '"job"', "[]"]
        live.submit_raw({f"none-{number}": raw for number, raw in enumerate(odd)})
        assert wait_until(lambda: live.log.read_text().count(said) == count + len(odd))

    def test_a_lone_surrogate_is_offered_at_its_own_address(self, live: Platform) -> None:
        result = answers(live, {"%ED%A0%80": '{"id": "\\ud800", "input": {"action": "model_info"}}'})["%ED%A0%80"]
        check_schema(result["output"], "model_info")
        assert "%ED%A0%80 | model_info ok" in live.log.read_text()

    def test_different_ids_stay_different(self) -> None:
        ids = ["a/b", "a%2Fb", "a%2fb", ".", "..", "%2E", "a", "A", "1e3"]
        assert len({quoted_id(job_id) for job_id in ids}) == len(ids)
        assert quoted_id("sync-7c1f0a_2-e1") == "sync-7c1f0a_2-e1"
        assert quoted_id("..") == "%2E%2E"
        assert [quoted_id(odd) for odd in (None, "", True, 1.5, [], {})] == [None] * 6  # type: ignore[var-annotated]


class TestRefusedResults:
    @pytest.mark.parametrize("status", [400, 405, 409, 410, 422])
    def test_a_failure_comes_in_its_place(self, live: Platform, status: Any) -> None:
        live.faults["job-done"].append(status)
        (job,) = live.submit(GOOD)
        assert wait_until(lambda: job.answers)
        assert job.result["output"]["code"] == "result_refused"
        check_schema(job.result["output"] | {"error": job.result["error"]}, "")
        assert re.fullmatch(rf"RunPod refused the result of \d+ bytes: {status} .*", job.result["error"])

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_what_may_pass_is_tried_again(self, live: Platform, status: Any) -> None:
        live.faults["job-done"].extend([status] * 3)
        (job,) = live.submit(GOOD)
        assert wait_until(lambda: job.answers)
        assert job.result["output"]["text"] == TEXT

    def test_a_failure_that_is_refused_too_is_given_up(self, live: Platform) -> None:
        live.faults["job-done"].extend([400, 422])
        (job,) = live.submit(GOOD)
        assert wait_until(lambda: re.search(rf"ERROR *\| {job.id} \| RunPod refused the result", live.log.read_text()))
        (other,) = live.submit(GOOD)
        assert wait_until(lambda: other.answers)
        assert not job.answers

    @pytest.mark.parametrize("kept", [["word", "segment"], ["segment"], [], None])
    def test_one_that_is_too_large_comes_smaller(self, live: Platform, kept: Any) -> None:
        request = {"input": {"audio_url": CLIP, "timestamps": True}}
        (whole,) = live.submit(request)
        assert wait_until(lambda: whole.answers)
        sizes = [len(json.dumps({"output": smaller})) for smaller in reductions(whole.result["output"])]
        live.most_bytes = sizes[-1] - 5 if kept is None else sizes[2 - len(kept)] + 5
        try:
            (job,) = live.submit(request)
            assert wait_until(lambda: job.answers)
        finally:
            live.most_bytes = 30_000_000
        output = job.result["output"]
        if kept is None:
            assert output["code"] == "result_refused"
            assert re.fullmatch(r"RunPod refused the result of \d+ bytes: 413 .*", job.result["error"])
        else:
            check_schema(output, "transcribe")
            assert list(output["timestamps"]) == kept
            assert output["text"] == TEXT


def changed_handler(folder: Path, change: str) -> Path:
    """Write a script that runs a line of Python, and then is `handler.py`."""
    script = folder / "changed.py"
    script.write_text(
        f"import runpy, sys\n{change}\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"if __name__ == '__main__':\n    runpy.run_path({str(ROOT / 'handler.py')!r}, run_name='__main__')\n"
    )
    return script


def handles_sigterm(pid: int) -> bool:
    """Whether a process has its own handler of SIGTERM; where nothing tells, whether it had time for it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        time.sleep(0.5)
        return True
    caught = re.search(r"SigCgt:\s+([0-9a-f]+)", status)
    assert caught
    return bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


class TestStopping:
    @pytest.mark.parametrize("concurrency", [8, 2])
    def test_a_stalled_download_is_given_back(
        self, platform: Platform, tmp_path: Path, web: Any, concurrency: Any
    ) -> None:
        asked, released = threading.Event(), threading.Event()

        def stall(handler: Any) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
            asked.set()
            released.wait(60)

        web.routes["/stall"] = stall
        assert job_loop._STOPPING_S + serve._CLOSING_S < 10  # when a container is killed
        change = "from parakeet_worker.serverless import job_loop; job_loop._STOPPING_S = 2.0"
        script, log = changed_handler(tmp_path, change), tmp_path / "log"
        with worker_process(platform, log, script=script, PARAKEET_CONCURRENCY=str(concurrency)) as process:
            good, stalled, *others = platform.submit(GOOD, *[{"input": {"audio_url": web.url + "/stall"}}] * 2)
            assert asked.wait(30)
            assert wait_until(lambda: good.answers and others[0].handed_out)
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            assert process.wait(20) == 0
            assert time.monotonic() - started < 10
        released.set()
        assert (good.answers, good.status) == (1, "COMPLETED")
        for job in (stalled, *others):
            assert job.answers == 1
            assert job.result["output"]["code"] == "worker_busy"
            assert job.result["error"] == "the worker is being stopped; send it again"

    @pytest.mark.parametrize("wait", [0.1, 0.3, 0.6, 1.0, 1.5])
    def test_a_stop_while_it_starts_ends_with_0(self, platform: Platform, tmp_path: Path, wait: Any) -> None:
        with worker_process(platform, tmp_path / "log") as process:
            # Before its first lines are run, nothing can be done about the signal.
            assert wait_until(lambda: handles_sigterm(process.pid))
            time.sleep(wait)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert not (tmp_path / "log").read_text().count("Traceback")


class TestExhaustion:
    @pytest.mark.parametrize("files", [64, 36])
    def test_few_open_files(self, platform: Platform, tmp_path: Path, web: Any, files: Any, clips: list[Clip]) -> None:
        urls = [web.serve(f"/{clip.path.name}", clip.path.read_bytes()) for clip in clips]
        change = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))"
        script, log = changed_handler(tmp_path, change), tmp_path / "log"
        with worker_process(platform, log, script=script, PARAKEET_CONCURRENCY="64"):
            jobs = platform.submit(*[{"input": {"audio_url": url}} for url in urls])
            assert wait_until(lambda: all(job.answers for job in jobs), 60)
        assert Counter(job.status for job in jobs) == {"COMPLETED": len(jobs)}
        assert re.search(
            r"WARN   \| The limit on open files is enough for \d jobs at a time, not 64\.", log.read_text()
        )

    @pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux limits other processes")
    def test_memory_that_ends(self, platform: Platform, tmp_path: Path, web: Any) -> None:
        speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in sorted(SPEECH.glob("*.flac"))])
        long = web.serve("/long.flac", encode(np.resize(speech, 3_600 * 16_000), container="FLAC"))
        with worker_process(platform, tmp_path / "log") as process:
            warm = platform.submit(*[GOOD] * 8)
            assert wait_until(lambda: all(job.answers for job in warm))
            taken = re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            resource.prlimit(process.pid, resource.RLIMIT_AS, (int(taken[1]) * 1024 + 60_000_000,) * 2)  # type: ignore[index]
            for _ in range(4):
                if process.poll() is None:
                    jobs = platform.submit({"input": {"audio_url": long}}, *[GOOD] * 3)
                    # A thread that ends for lack of memory has the worker replaced, and its job given back.
                    assert wait_until(lambda: jobs[0].answers or process.poll() is not None)  # noqa: B023
            for _ in range(3):
                if process.poll() is None:
                    jobs = platform.submit({"input": {"audio_url": long}})
                    assert wait_until(lambda: jobs[0].answers or process.poll() is not None)  # noqa: B023
            assert process.wait(20) == 0
        ended = Counter(code_of(job) for job in platform.jobs.values() if job.handed_out)
        assert ended.keys() <= {"ok", "out_of_memory", "worker_busy"}
        assert ended["out_of_memory"] >= 1


def test_a_million_unknown_fields_hold_up_nobody(live: Platform) -> None:
    many = json.dumps({"id": "many", "input": {f"{number:07d}": 0 for number in range(1_000_000)}})
    result = answers(live, {"many": many})["many"]
    assert result["output"]["code"] == "unknown_field"
    assert result["error"].startswith('unknown fields "0000000", "0000001", "0000002" and 999997 more')
    taken = re.search(r"many \| unknown_field .*: ([\d.]+) s", live.log.read_text())
    assert float(taken[1]) < 1  # type: ignore[index]


class TestTheSdksOwnLoop:
    def test_it_can_be_chosen(self, platform: Platform, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with worker_process(platform, log, "--rp_log_level", "DEBUG", PARAKEET_LOOP="sdk"):
            long = {"input": {"audio_url": data_url(encode(tone(400.0, 8_000), 8_000, container="FLAC"))}}
            job, other = platform.submit(GOOD, long)
            assert wait_until(lambda: job.answers and other.answers, 60)
        assert job.result["output"]["text"] == TEXT
        assert other.updates
        assert "RunPod's own loop takes the jobs: PARAKEET_LOOP is sdk." in log.read_text()
        assert TEXT not in log.read_text()

    @pytest.mark.parametrize(
        "change",
        [
            "import runpod.serverless.modules.rp_scale as m; m.JobScaler = type('Other', (m.JobScaler,), {})",
            "import runpod.serverless.modules.rp_job as m; del m._job_stop_url",
        ],
        ids=["other class", "missing name"],
    )
    def test_it_takes_over_where_the_sdk_is_not_as_it_was(
        self, platform: Platform, tmp_path: Path, change: Any
    ) -> None:
        script = tmp_path / "changed.py"
        script.write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport runpod.serverless\n{change}\n"
            "from handler import handler, settings, worker\nfrom parakeet_worker.startup import start\n"
            "if __name__ == '__main__':\n    start(handler, settings, worker)\n"
        )
        log = tmp_path / "log"
        with worker_process(platform, log, script=script):
            (job,) = platform.submit(GOOD)
            assert wait_until(lambda: job.answers)
        assert job.result["output"]["text"] == TEXT
        assert "WARN   | RunPod's own loop takes the jobs: " in log.read_text()


def test_a_short_container_leaves_one_line_in_the_log(live: Platform) -> None:
    """What torch says of an array that cannot be written to is no line of the worker's."""
    (warm,) = live.submit(GOOD)
    assert wait_until(lambda: warm.answers)
    time.sleep(0.1)
    before = len(live.log.read_text().splitlines())
    samples = soundfile.read(SPEECH / "clip02.flac", dtype="float32")[0][:12_000]
    (job,) = live.submit({"input": {"audio_url": data_url(contain(samples, "mp3", "libmp3lame"))}})
    assert wait_until(lambda: job.answers)
    assert code_of(job) == "ok"
    time.sleep(0.1)
    assert len(live.log.read_text().splitlines()) == before + 1
