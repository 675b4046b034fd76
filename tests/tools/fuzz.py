"""Mutations of good files of every format: each must give samples or an answer for the caller, soon, and leave nothing.

    make fuzz
    python tests/tools/fuzz.py --count 20000 --seed 7

A part of it runs with the tests.
"""

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from audio_files import contain, encode, tone
from parakeet_worker.audio.decode import open_reader
from parakeet_worker.cancellation import CancellationToken
from parakeet_worker.errors import JobError

LONGEST_S = 10.0


def good_files() -> dict[str, bytes]:
    """A second of sound in every format."""
    samples = tone(1.0)
    return {
        "wav": encode(samples),
        "wav float": encode(samples, subtype="FLOAT"),
        "wav a-law": encode(samples, subtype="ALAW"),
        "wav adpcm": encode(samples, subtype="IMA_ADPCM"),
        "rf64": encode(samples, container="RF64"),
        "flac": encode(samples, container="FLAC"),
        "aiff": encode(samples, container="AIFF"),
        "caf": encode(samples, container="CAF"),
        "caf alac": encode(samples, container="CAF", subtype="ALAC_16"),
        "mp3": encode(samples, container="MP3"),
        "vorbis": encode(samples, container="OGG", subtype="VORBIS"),
        "opus": encode(samples, container="OGG", subtype="OPUS"),
        "m4a": contain(samples, "ipod", "aac", 16_000, "mono"),
        "mp4": contain(samples, "mp4", "aac", 44_100, movflags="frag_keyframe+empty_moov"),
        "alac": contain(samples, "ipod", "alac", 44_100),
        "webm": contain(samples, "webm", "libopus"),
        "aac": contain(samples, "adts", "aac", 16_000, "mono"),
        "amr": contain(samples, "amr", "libopencore_amrnb", 8_000, "mono"),
        "wma": contain(samples, "asf", "wmav2", 44_100),
        "avi": contain(samples, "avi", "libmp3lame", 44_100),
        "ts": contain(samples, "mpegts", "aac"),
    }


def flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 30)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def flip_header(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 6)):
        data[draw.randrange(min(len(data), 120))] = draw.randrange(256)


def cut_short(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def cut_out(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    del data[start : start + draw.randint(1, 2_000)]


def zero(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.randint(1, 500))
    data[start:end] = bytes(end - start)


def huge_numbers(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(max(1, len(data) - 8))
    data[start : start + 4] = draw.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)])


def repeat(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    piece = data[start : start + draw.randint(1, 1_000)]
    place = draw.randrange(len(data))
    data[place:place] = piece * draw.randint(1, 4)


def junk_first(data: bytearray, draw: random.Random) -> None:
    data[0:0] = draw.randbytes(draw.randint(1, 300))


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip, flip_header, cut_short, cut_out, zero, huge_numbers, repeat, junk_first,
)  # fmt: skip


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Draw mutated files: one to three mutations of a good one, or the start of one joined to the end of another."""
    draw = random.Random(seed)
    files = good_files()
    names = list(files)
    for index in range(count):
        name = names[index % len(names)]
        data = bytearray(files[name])
        if draw.random() < 0.1:
            other = files[draw.choice(names)]
            data[draw.randrange(len(data)) :] = other[draw.randrange(len(other)) :]
        for _ in range(draw.randint(1, 3)):
            if data:
                draw.choice(MUTATIONS)(data, draw)
        yield name, bytes(data)


def decode(data: bytes) -> tuple[str, float]:
    """Decode a file to its end; return what came of it, and the seconds that it took.

    Raises:
        Exception: Something that no caller should ever see.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as file:
        file.write(data)
        try:
            with open_reader(file, CancellationToken()) as sound:
                samples = sum(len(block) for block in sound.blocks())
            outcome = "decoded" if samples or sound.decoded_seconds else "nothing"
        except JobError as error:
            outcome = error.code.value
    return outcome, time.monotonic() - started


@contextmanager
def printed() -> Iterator[bytearray]:
    """Collect what is written to the standard error, by libraries too."""
    said = bytearray()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said += file.read()


def main() -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(description="Decode mutated audio files.")
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    longest = (0.0, "")
    memory: list[int] = []
    for index, (name, data) in enumerate(mutants(options.count, options.seed)):
        try:
            with printed() as said:
                outcome, seconds = decode(data)
        except Exception as error:  # noqa: BLE001 - what is looked for
            Path("fuzz-failure.bin").write_bytes(data)
            sys.exit(f"mutant {index} of {name}, kept in fuzz-failure.bin: {error!r}")
        if said:
            Path("fuzz-failure.bin").write_bytes(data)
            sys.exit(
                f"mutant {index} of {name}, kept in fuzz-failure.bin, was written of: {said.decode(errors='replace')}"
            )
        outcomes[outcome] += 1
        longest = max(longest, (seconds, f"mutant {index} of {name}"))
        if index % max(1, options.count // 10) == 0:
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
            print(f"{index}: {dict(outcomes)}, {memory[-1]} MB", flush=True)
    print(f"{options.count} mutants: {dict(outcomes)}")
    print(f"longest: {longest[0]:.1f} s, {longest[1]}; memory {memory[1]} to {memory[-1]} MB; ", end="")
    print(f"{len(list(Path('/proc/self/fd').iterdir()))} files open")
    if longest[0] > LONGEST_S:
        sys.exit("too long")


if __name__ == "__main__":
    main()
