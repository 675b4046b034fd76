"""The worker in the SDK's real loop, against a platform with one job."""

import json
import os
import subprocess
import sys
import time

from audio_files import data_url, encode, tone
from conftest import ROOT, check_schema


def test_a_long_job_tells_its_progress_and_is_answered_once(server):
    audio = data_url(encode(tone(900.0), container="FLAC"))
    jobs = [{"id": "job-1", "input": {"audio_url": audio, "timestamps": True}}]

    def take(handler):
        body = json.dumps(jobs.pop()).encode() if jobs else b""
        handler.send_response(200 if body else 204)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        time.sleep(0.05)

    server.routes["/job-take/worker"] = server.routes["/job-stop/worker"] = take
    environ = {
        "RUNPOD_WEBHOOK_GET_JOB": f"{server.url}/job-take/worker?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{server.url}/job-done/$ID?gpu=none",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "PARAKEET_CONCURRENCY": "1",
        "PARAKEET_CPU_THREADS": "1",
    }
    command = [sys.executable, str(ROOT / "handler.py")]
    with subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(b'"processing_time"' in body for _, body in server.posts):
            time.sleep(0.1)
        process.terminate()
        said = process.communicate(timeout=30)[0]
    posts = [(path, json.loads(body)) for path, body in server.posts]
    assert {path for path, _ in posts} == {"/job-done/job-1"}
    *told, (_, done) = posts
    check_schema(done["output"], "transcribe")
    assert done["output"]["duration"] == 900
    assert told
    for _, update in told:
        assert update["status"] == "IN_PROGRESS"
        assert 0 < update["output"]["seconds_done"] < 900
        assert update["output"]["seconds_total"] == 900
    assert said.count("Answered in") == 1
