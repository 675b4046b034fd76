"""Temporary files on a disk that is full, and without file descriptors to open them by."""

import errno
import os
import resource
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from audio_files import encode, tone
from bad_servers import silent
from loopback import LoopbackServer
from parakeet_worker.audio.decode import open_reader
from parakeet_worker.audio.fetch.download import DownloadLimits, download
from parakeet_worker.audio.fetch.scratch import DiskBudget, ScratchFile
from parakeet_worker.audio.fetch.source import open_audio
from parakeet_worker.cancellation import CancellationToken, JobCancelledError
from parakeet_worker.errors import Code, JobError

NO_ROOM = "the worker has no room for it on its disk at the moment; send it again"


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 200 kB that temporary files go to."""
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "parakeet-test", tmp_path]
    if subprocess.run(command, capture_output=True, check=False).returncode:  # type: ignore[arg-type]
        pytest.skip("no file system can be mounted here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@contextmanager
def no_descriptors() -> Iterator[ExitStack]:
    """Use up the file descriptors of this process; what is yielded gives them back."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as taken:
        highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, limits[1]))
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        while True:
            try:
                taken.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                assert error.errno == errno.EMFILE
                break
        yield taken


def failure(url: str, limits: DownloadLimits) -> JobError:
    with pytest.raises(JobError) as raised, open_audio(url, limits, CancellationToken()):
        pass
    return raised.value


def fill(url: str, limits: DownloadLimits, scratch: ScratchFile) -> None:
    download(url, limits, CancellationToken(), scratch)


def chunked(body: bytes, size: int) -> Any:
    """Answer with a body whose length is not declared, in pieces."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for begin in range(0, len(body), size):
            handler.wfile.write(body[begin : begin + size])

    return answer


@pytest.mark.usefixtures("private_addresses")
class TestFullDisk:
    # The last of these end a few bytes after the end of the disk.
    @pytest.mark.parametrize("size", [1_000_000, 204_801, 205_000, 210_000])
    def test_the_budget_is_whole_after_20_jobs(self, server: LoopbackServer, small_disk: Any, size: Any) -> None:
        disk = DiskBudget(2_000_000)
        limits = DownloadLimits(2_000_000, 5, disk, backoff_s=0.01)
        server.routes["/a"] = chunked(b"x" * size, 1_000)
        for _ in range(20):
            error = failure(server.url + "/a", limits)
            assert (error.code, error.message) == (Code.WORKER_BUSY, NO_ROOM)
        disk.take(2_000_000)
        disk.give_back(2_000_000)
        with open_audio(server.serve("/good", b"x" * 150_000), limits, CancellationToken()) as file:
            assert len(file.read()) == 150_000
        disk.take(2_000_000)

    def test_a_disk_that_others_fill(self, server: LoopbackServer, small_disk: Any) -> None:
        (small_disk / "full").write_bytes(b"x" * 204_800)
        url = server.serve("/a", b"x" * 1_000)
        assert failure(url, DownloadLimits(2_000_000, 5)).message == NO_ROOM
        (small_disk / "full").unlink()
        with open_audio(url, DownloadLimits(2_000_000, 5), CancellationToken()) as file:
            assert len(file.read()) == 1_000

    def test_no_directory_that_can_be_written_to(self, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
        def find() -> None:
            raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setattr(tempfile, "_get_default_tempdir", find)
        assert failure(server.serve("/a", b"x"), DownloadLimits(2_000_000, 5)).message == NO_ROOM

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
    def test_what_a_disk_may_say(self, number: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Broken:
            def write(self, _: Any) -> None:
                raise OSError(number, os.strerror(number))

            def close(self) -> None:
                raise OSError(number, os.strerror(number))

        disk = DiskBudget(100)
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Broken())
        scratch = ScratchFile(CancellationToken(), disk)
        with pytest.raises(JobError) as raised:
            scratch.write(b"x" * 100)
        assert raised.value.code is Code.WORKER_BUSY
        scratch.close()
        disk.take(100)

    def test_a_header_that_cannot_be_mended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that copies what is written over can be full for that too."""
        wav = bytearray(encode(tone(1.0)))
        wav[40:44] = bytes(4)
        scratch = ScratchFile(CancellationToken())
        scratch.write(wav)  # type: ignore[arg-type]
        file = scratch.open()

        class Full:
            def __getattr__(self, name: Any) -> Any:
                return getattr(file, name)

            def flush(self) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(JobError) as raised, open_reader(Full(), CancellationToken()):  # type: ignore[arg-type]
            pass
        assert (raised.value.code, raised.value.message) == (Code.WORKER_BUSY, NO_ROOM)
        scratch.close()

    def test_a_limit_on_the_size_of_files(self) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        scratch = ScratchFile(CancellationToken())
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
        try:
            with pytest.raises(JobError) as raised:
                scratch.write(b"x" * 2_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            scratch.close()
        assert raised.value.code is Code.WORKER_BUSY


@pytest.mark.usefixtures("private_addresses")
class TestNoDescriptors:
    LIMITS = DownloadLimits(1_000_000, 20, backoff_s=0.1)

    def test_a_file_waits_for_one(self) -> None:
        with no_descriptors() as taken:
            timer = threading.Timer(0.3, taken.close)
            timer.start()
            ScratchFile(CancellationToken()).close()
            timer.join()

    def test_not_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("parakeet_worker.exhaustion.DESCRIPTOR_WAIT_S", 0.2)
        with no_descriptors(), pytest.raises(JobError) as raised:
            ScratchFile(CancellationToken())
        assert raised.value.code is Code.WORKER_BUSY

    def test_nor_for_a_job_that_is_gone(self) -> None:
        cancellation = CancellationToken()
        with no_descriptors() as taken:
            timer = threading.Timer(0.3, cancellation.cancel)
            timer.start()
            with pytest.raises(JobCancelledError):
                ScratchFile(cancellation)
            taken.close()

    @pytest.mark.parametrize("url", ["http://127.0.0.1", "https://127.0.0.1", "http://localhost"])
    def test_a_connection_waits_for_one(self, url: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The server is silent, so that what is measured is this side alone."""
        monkeypatch.setattr("parakeet_worker.audio.fetch.download.STALL_TIMEOUT_S", 1)
        with silent() as address:
            port = address.rpartition(":")[2]
            scratch = ScratchFile(CancellationToken())
            with no_descriptors() as taken:
                threading.Timer(0.5, taken.close).start()
                with pytest.raises(JobError) as raised:
                    fill(f"{url}:{port}/", DownloadLimits(1_000_000, 20), scratch)
            assert raised.value.message == "Failed to download audio: the server sent nothing for 1 seconds"
            scratch.close()

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
    def test_and_says_that_there_is_none(self, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("parakeet_worker.exhaustion.DESCRIPTOR_WAIT_S", 0.2)
        scratch = ScratchFile(CancellationToken())
        with no_descriptors(), pytest.raises(JobError) as raised:
            fill(f"http://{host}:9/", self.LIMITS, scratch)
        assert raised.value.code is Code.WORKER_BUSY
        scratch.close()


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_memory_that_ends_in_a_download(
    ask: Any, server: LoopbackServer, private_addresses: Any, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def write(*_: Any) -> None:
        raise error

    url = server.serve("/a.wav", encode(tone(1.0)))
    with monkeypatch.context() as patch:
        patch.setattr(ScratchFile, "write", write)
        assert ask({"input": {"audio_url": url}})["code"] == "out_of_memory"
    assert ask({"input": {"audio_url": url}})["status"] == "success"
