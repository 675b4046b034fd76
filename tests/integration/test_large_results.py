"""Results that are larger than the platform takes, in a bucket of a real S3 server."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import requests
from runpod.serverless.utils import upload_file_to_bucket

from audio_files import data_url
from bad_servers import silent
from parakeet_worker.serverless import worker as worker_module
from parakeet_worker.serverless.bucket import Bucket
from parakeet_worker.serverless.worker import Worker
from project import Clip, check_schema
from runpod_platform import Platform, wait_until, worker_process

if TYPE_CHECKING:
    pass

KEYS = ("access-key-7d1", "secret-key-93e")
NAME = "results"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server with one bucket, by its address."""
    from moto.server import ThreadedMotoServer

    server: ThreadedMotoServer = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client_of(address).create_bucket(Bucket=NAME)
    yield address
    server.stop()


def client_of(address: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=KEYS[0],
        aws_secret_access_key=KEYS[1],
        region_name="us-east-1",
    )


def contents(address: str) -> list[str]:
    return [found["Key"] for found in client_of(address).list_objects_v2(Bucket=NAME).get("Contents", ())]


@pytest.fixture
def job(clips: list[Clip]) -> Any:
    url = data_url(clips[3].path.read_bytes())
    return {"id": "3f2c-e1", "input": {"audio_url": url, "timestamps": True, "confidence": True}}


@pytest.fixture
def answer(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What a worker with a bucket answers where the platform takes results of 1,300 bytes."""

    def answer(job: Any, bucket: Bucket | None, max_bytes: int = 1_300) -> dict[str, Any]:
        monkeypatch.setattr(worker_module, "_MAX_ASYNC_BYTES", max_bytes)
        # The upper bound by which most results are not measured at all.
        monkeypatch.setattr("parakeet_worker.job.response._MOST_BYTES_A_CHARACTER", max_bytes)
        given = asyncio.run(Worker(worker.actions, store=bucket.store if bucket else None).answer(job))
        check_schema(given, "transcribe")
        return given

    return answer


def lasting(envelope: dict[str, Any]) -> dict[str, Any]:
    """What is the same each time."""
    varying = {"processing_time", "timestamp", "created_at"}
    return {name: value for name, value in envelope.items() if name not in varying}


def test_the_whole_is_where_the_answer_says(s3: str, job: Any, answer: Any) -> None:
    whole = answer(job, None, max_bytes=1_000_000)
    cut = answer(job, None)
    assert "result_url" not in cut
    found = answer(job, Bucket(s3, *KEYS, NAME))
    assert found["notice"].endswith("; the whole result is at result_url")
    assert found["timestamps"].keys() == {"segment"}
    for name in ("text", "duration", "confidence"):
        assert found[name] == cut[name] == whole[name]
    response = requests.get(found["result_url"], timeout=10)
    assert response.headers["Content-Type"] == "application/json"
    check_schema(response.json(), "transcribe")
    assert lasting(response.json()) == lasting(whole)
    assert response.json()["processing_time"] == found["processing_time"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there a file needs a name")
def test_no_name_of_a_file_holds_the_result(
    s3: str, job: Any, answer: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[Path] = []

    def upload(name: str, path: str, *given: Any, **options: Any) -> Any:
        named.extend(scratch.iterdir())
        return upload_file_to_bucket(name, path, *given, **options)

    monkeypatch.setattr("parakeet_worker.serverless.bucket.upload_file_to_bucket", upload)
    assert answer(job, Bucket(s3, *KEYS, NAME))["result_url"]
    assert named == []


def test_the_address_cannot_be_guessed_and_nothing_is_written_over(s3: str, job: Any, answer: Any) -> None:
    before = contents(s3)
    urls = [answer(job, Bucket(s3, *KEYS, NAME))["result_url"] for _ in range(2)]
    new = [key for key in contents(s3) if key not in before]
    assert len(set(new)) == len(set(urls)) == 2
    for key in new:
        folder, _, name = key.partition("/")
        assert folder == job["id"]
        assert len(name) == len(f"{'0' * 32}.json")


def test_what_fits_is_not_stored(s3: str, job: Any, answer: Any) -> None:
    before = contents(s3)
    assert not {"notice", "result_url"} & answer(job, Bucket(s3, *KEYS, NAME), 1_000_000).keys()
    assert contents(s3) == before


def test_many_at_once(s3: str) -> None:
    bucket = Bucket(s3, *KEYS, NAME)
    envelopes = [{"status": "success", "text": f"{number} " * 20_000} for number in range(4)]

    async def together() -> list[str | None]:
        return await asyncio.gather(*(bucket.store("same", envelope) for envelope in envelopes))

    for url, envelope in zip(asyncio.run(together()), envelopes, strict=True):
        assert url is not None
        assert requests.get(url, timeout=10).json() == envelope


def test_any_id_makes_a_name(s3: str) -> None:
    for job_id in ("a/../b c\n", None):
        url = asyncio.run(Bucket(s3, *KEYS, NAME).store(job_id, {"status": "success"}))
        assert url is not None
        assert requests.get(url, timeout=10).json() == {"status": "success"}


def test_a_bucket_that_is_not_there(
    s3: str, job: Any, answer: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is that of a worker without a bucket, and the operator reads why, without addresses and keys."""
    monkeypatch.chdir(tmp_path)
    cut = answer(job, None)
    capsys.readouterr()
    assert lasting(answer(job, Bucket(s3, *KEYS, "elsewhere"))) == lasting(cut)
    log = "".join(capsys.readouterr())
    (line,) = [line for line in log.splitlines() if line.startswith("ERROR")]
    assert line.startswith("ERROR  | 3f2c-e1 | The whole result could not be put into the bucket: S3UploadFailedError")
    assert "NoSuchBucket" in line
    assert not [secret for secret in (*KEYS, s3, "elsewhere") if secret in log]
    assert not list(tmp_path.iterdir())


def test_a_storage_that_is_silent_holds_up_no_other_job(capsys: pytest.CaptureFixture[str]) -> None:
    async def store(address: str) -> str | None:
        bucket = Bucket(f"http://{address}", *KEYS, NAME, timeout_s=0.8)
        upload = asyncio.create_task(bucket.store("1", {"status": "success"}))
        other = asyncio.create_task(asyncio.sleep(0.05))
        done, _ = await asyncio.wait({upload, other}, return_when=asyncio.FIRST_COMPLETED)
        assert done == {other}
        return await upload

    began = time.monotonic()
    with silent() as address:
        url = asyncio.run(store(address))
    assert url is None
    assert time.monotonic() - began < 4
    assert "The whole result could not be put into the bucket: it took longer than 0.8 s." in capsys.readouterr().out


def test_without_boto3_nothing_is_written_to_the_disk(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The SDK would put the result into a directory, and return its path as an address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert asyncio.run(Bucket(s3, *KEYS, NAME).store("1", {"status": "success"})) is None
    assert "could not be put into the bucket: ModuleNotFoundError." in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_start_does_not_wait_for_boto3() -> None:
    code = """
import sys
from parakeet_worker.serverless.sdk import import_sdk
import_sdk()
from parakeet_worker.serverless.bucket import Bucket
Bucket("http://127.0.0.1:1", "a", "b")
assert not {"boto3", "botocore"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_platform_refuses_is_stored(s3: str, platform: Platform, tmp_path: Path, job: Any) -> None:
    """A real worker, by its environment variables, whose results fit its own limits and not the platform's."""
    variables = ("BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY", "BUCKET_NAME")
    environ: dict[str, Any] = dict(zip(variables, (s3, *KEYS, NAME), strict=True))
    log = tmp_path / "log"
    platform.most_bytes = 1_300
    with worker_process(platform, log, **environ):
        first, second = platform.submit({"input": job["input"]}, {"input": job["input"]})
        assert wait_until(lambda: first.answers and second.answers), log.read_text()
    for done in (first, second):
        output = done.result["output"]
        check_schema(output, "transcribe")
        assert output["notice"].endswith("; the whole result is at result_url")
        assert len(json.dumps(output)) < 1_300
        whole = requests.get(output["result_url"], timeout=10).json()
        check_schema(whole, "transcribe")
        assert whole["timestamps"].keys() == {"word", "segment", "char"}
        assert whole["text"] == output["text"]
    assert not [secret for secret in (*KEYS, "X-Amz-Signature") if secret in log.read_text()]
