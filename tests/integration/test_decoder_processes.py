"""The processes that decode: a file's fault stays its own, the system's is never a file's, and all get their turn."""

import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_files import contain, decode, tone
from decoder_processes import children_of, children_that_run, is_running, wait_for
from parakeet_worker.audio.formats.child_server import NAME_BYTES
from parakeet_worker.audio.formats.children import Children
from parakeet_worker.audio.formats.container import CHILDREN, ContainerError, ContainerFile
from parakeet_worker.audio.formats.slots import DecoderSlots
from parakeet_worker.cancellation import CancellationToken, JobCancelledError
from parakeet_worker.errors import Code, JobError
from project import SPEECH

CLIP = SPEECH / "clip03.flac"


def run(code: str, cancellation: CancellationToken | None = None) -> None:
    """Decode a file with some Python instead of a decoder, which should not succeed."""
    with children_that_run(code) as children, CLIP.open("rb") as file:
        ContainerFile(file, "mov", cancellation or CancellationToken(), children)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        "import os; os.kill(os.getpid(), 11)",
        "print('Traceback')",
        "1 / 0",
        "",
        "import sys; sys.stdout.buffer.write(b'o' + bytes([200]) + bytes(11))",
        "import sys; sys.stdout.buffer.write(b'o' + bytes([3]) + bytes(11) + b'[1]')",
        "import sys; sys.stdout.buffer.write(b'o' + bytes([3]) + bytes(11) + b'xyz')",
        "import sys; sys.stdout.buffer.write(b'o' + b'\\xff' * 12 + bytes(1 << 20))",
    ],
)
def test_a_child_that_dies_of_its_file_is_a_damaged_file(code: Any) -> None:
    with pytest.raises(ContainerError, match="damaged"):
        run(code)


def test_a_child_that_works_for_ever_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parakeet_worker.audio.formats.container.SILENCE_S", 0.2)
    with pytest.raises(ContainerError, match="damaged"):
        run("while True: pass")


def test_a_child_that_works_for_longer_than_its_limit_dies_of_its_file() -> None:
    with pytest.raises(ContainerError, match="damaged"):
        run("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass")


def refusal(code: str) -> JobError:
    with pytest.raises(JobError) as raised:
        run(code)
    return raised.value


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_the_system_ends_is_no_damaged_file(number: Any) -> None:
    assert refusal(f"import os; os.kill(os.getpid(), {int(number)})").code is Code.OUT_OF_MEMORY


def test_a_child_that_gets_no_processor_is_no_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parakeet_worker.audio.formats.container.STALL_S", 0.3)
    assert refusal("import time; time.sleep(60)").code is Code.WORKER_BUSY


def test_a_child_that_cannot_be_started_is_no_damaged_file() -> None:
    with closing(Children(("/nowhere/python",))) as children, pytest.raises(JobError) as raised:
        ContainerFile(io.BytesIO(b"x"), "mov", CancellationToken(), children)
    assert raised.value.code is Code.WORKER_BUSY
    assert raised.value.message == "the worker has no room for the job at the moment; send it again"


def test_a_lack_of_descriptors_is_no_damaged_file() -> None:
    data = contain(tone(0.5), "ipod", "aac", 16_000, "mono")
    decode(data)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(JobError) as raised:
            decode(data)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.code is Code.WORKER_BUSY
    assert decode(data).duration > 0.4


def test_a_server_that_cannot_fork_says_so() -> None:
    server = "import os\ndef no(): raise BlockingIOError(11, 'no')\nos.fork = no\n"
    command = (
        sys.executable,
        "-c",
        server + "from parakeet_worker.audio.formats import child_server; child_server.main()",
    )
    with closing(Children(command)) as children, pytest.raises(JobError) as raised:
        ContainerFile(io.BytesIO(b"x"), "mov", CancellationToken(), children)
    assert raised.value.code is Code.WORKER_BUSY


LONG = contain(np.concatenate([tone(1.0) * scale for scale in np.linspace(0.1, 1, 60)]), "ipod", "aac", 16_000, "mono")


def test_a_child_that_is_killed_is_started_once_more_and_nothing_is_lost() -> None:
    expected = decode(LONG).samples
    wait_for(lambda: children_of(CHILDREN) == [])
    with closing(ContainerFile(io.BytesIO(LONG), "mov", CancellationToken())) as sound:
        blocks = sound.blocks()
        samples = [next(blocks) for _ in range(3)]
        (pid,) = children_of(CHILDREN)
        os.kill(pid, signal.SIGKILL)
        samples += blocks
        np.testing.assert_array_equal(np.concatenate(samples), expected)
        assert sound.decoded_seconds == pytest.approx(60, abs=0.2)


def test_a_server_that_is_killed_is_started_once_more() -> None:
    decode(LONG)
    assert CHILDREN._server
    CHILDREN._server.kill()
    assert decode(LONG).duration > 59
    wait_for(lambda: children_of(CHILDREN) == [])
    with closing(ContainerFile(io.BytesIO(LONG), "mov", CancellationToken())) as sound:
        blocks = sound.blocks()
        next(blocks)
        (pid,) = children_of(CHILDREN)
        CHILDREN._server.kill()
        assert sum(map(len, blocks)) > 58 * 16_000
    wait_for(lambda: not is_running(pid))


def test_a_cancelled_job_ends_its_child() -> None:
    cancellation = CancellationToken()
    threading.Timer(0.3, cancellation.cancel).start()
    started = time.monotonic()
    with pytest.raises(JobCancelledError):
        run("import time; time.sleep(60)", cancellation)
    assert time.monotonic() - started < 5


def test_children_end_with_the_worker() -> None:
    code = """
import sys, time
from test_decoder_processes import *
sound = ContainerFile(io.BytesIO(LONG), "mov", CancellationToken())
print(*children_of(CHILDREN), CHILDREN.server_pid, flush=True)
time.sleep(60)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout
        pids = list(map(int, worker.stdout.readline().split()))
        worker.kill()
    assert len(pids) == 2
    wait_for(lambda: not any(map(is_running, pids)))


def test_the_name_of_a_demuxer_fits_into_a_request() -> None:
    from parakeet_worker.audio.formats import sniff

    kinds = [kind for kind in vars(sniff).values() if isinstance(kind, sniff.AudioFormat)]
    assert max(len(kind.demuxer) for kind in kinds if kind.demuxer) < NAME_BYTES


def test_64_at_once_beside_busy_processes_are_all_decoded() -> None:
    data = contain(tone(0.5), "ipod", "aac", 16_000, "mono")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        with ThreadPoolExecutor(64) as threads:
            assert {round(audio.duration, 1) for audio in threads.map(decode, [data] * 64)} == {0.6}
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_long_one_that_waits_for_the_model_does_not_keep_a_short_one_waiting() -> None:
    children = Children()
    children.slots = DecoderSlots(1)
    short = contain(tone(0.5), "ipod", "aac", 16_000, "mono")
    with closing(children), closing(ContainerFile(io.BytesIO(LONG), "mov", CancellationToken(), children)) as sound:
        blocks = sound.blocks()
        count = len(next(blocks))
        started = time.monotonic()
        with closing(ContainerFile(io.BytesIO(short), "mov", CancellationToken(), children)) as other:
            assert sum(map(len, other.blocks())) > 7_000
        assert time.monotonic() - started < 30
        assert count + sum(map(len, blocks)) > 59 * 16_000


def in_thread(slots: DecoderSlots, name: str, order: list[str], cancellation: CancellationToken) -> threading.Thread:
    def work() -> None:
        try:
            slots.acquire(name, cancellation)
            order.append(name)
        except JobCancelledError:
            order.append(f"not {name}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_turns_are_limited_and_a_cancelled_job_leaves_the_queue() -> None:
    slots, order, cancellation = DecoderSlots(1), [], CancellationToken()  # type: ignore[var-annotated]
    slots.acquire("a", cancellation)
    gone = CancellationToken()
    threads = [in_thread(slots, "b", order, gone)]
    wait_for(lambda: slots.waiting == ["b"])
    threads.append(in_thread(slots, "c", order, cancellation))
    wait_for(lambda: slots.waiting == ["b", "c"])
    assert order == []
    gone.cancel()
    wait_for(lambda: order == ["not b"])
    slots.release("a")
    wait_for(lambda: order == ["not b", "c"])
    for thread in threads:
        thread.join()


def test_a_long_turn_goes_to_another_and_who_is_new_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parakeet_worker.audio.formats.slots._SLICE_S", 60.0)
    slots, order, cancellation = DecoderSlots(1), [], CancellationToken()  # type: ignore[var-annotated]
    slots.acquire("long", cancellation)
    new = in_thread(slots, "new", order, cancellation)
    wait_for(lambda: slots.waiting == ["new"])
    slots.acquire("long", cancellation)  # its turn has just begun
    assert order == []
    monkeypatch.setattr("parakeet_worker.audio.formats.slots._SLICE_S", 0.0)  # now it has lasted too long
    again = in_thread(slots, "long", order, cancellation)
    wait_for(lambda: order == ["new"])
    newer = in_thread(slots, "newer", order, cancellation)
    wait_for(lambda: slots.waiting == ["newer", "long"])
    slots.release("new")
    wait_for(lambda: order == ["new", "newer"])
    slots.release("newer")
    wait_for(lambda: order == ["new", "newer", "long"])
    for thread in (new, again, newer):
        thread.join()


def test_a_reader_that_is_away_loses_its_turn() -> None:
    slots, order, cancellation = DecoderSlots(1), [], CancellationToken()  # type: ignore[var-annotated]
    slots.acquire("away", cancellation)
    slots.pause("away")
    in_thread(slots, "other", order, cancellation).join()
    assert order == ["other"]
    back = in_thread(slots, "away", order, cancellation)
    time.sleep(0.05)
    assert order == ["other"]
    slots.release("other")
    back.join()
    assert order == ["other", "away"]


ATTEMPTS = """
import ctypes, os, resource, signal, socket, threading
from parakeet_worker.audio.formats import sandbox
box = sandbox.enter(1_000)
assert box.is_memory_ours
for attempt in (
    lambda: open("/etc/hostname"),
    lambda: os.open("/tmp/parakeet-file", os.O_CREAT | os.O_WRONLY),
    lambda: os.unlink("/tmp/parakeet-file"),
    lambda: os.rename("/tmp/parakeet-file", "/tmp/parakeet-other"),
    lambda: os.listdir("/"),
    lambda: socket.socket(),
    lambda: socket.socketpair(),
    lambda: os.fork(),
    lambda: os.execv("/bin/true", ["true"]),
    lambda: os.kill(os.getppid(), 0),
    lambda: os.kill(1, signal.SIGTERM),
    lambda: threading.Thread(target=print).start(),
    lambda: os.setuid(0),
    lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10)),
    lambda: bytearray(2 << 30),
):
    try:
        attempt()
        print("DONE")
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no seccomp")
def test_a_child_has_no_rights() -> None:
    """In a process that the server of children has forked, with no descriptor but the file and the pipe."""
    with children_that_run(ATTEMPTS) as children:
        child = children.start("mov", CLIP.open("rb"))
        with os.fdopen(child.output, "rb", closefd=False) as output:
            said = output.read().decode().split()
        child.close()
    # os.kill and its like are refused by the filter; a thread cannot begin; memory ends.
    assert said == ["PermissionError"] * 11 + ["RuntimeError"] + ["PermissionError", "ValueError", "MemoryError"], said


def test_a_child_inherits_nothing_but_its_file_and_its_pipe() -> None:
    code = """
import os
from pathlib import Path
# The last of those listed was open for listing them.
print(*sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())[:-1], *os.environ)
"""
    with children_that_run(code) as children:
        child = children.start("mov", CLIP.open("rb"))
        with os.fdopen(child.output, "rb", closefd=False) as output:
            said = output.read().decode().split()
        child.close()
    assert [word for word in said if word.isdigit()] == ["0", "1", "2"]
    assert {word for word in said if not word.isdigit()} <= {
        "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_CTYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS",
    }  # fmt: skip
