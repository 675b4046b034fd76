"""How fast audio files are decoded to 16 kHz mono, per format, beside `soundfile` and the `ffmpeg` program.

    python benchmarks/decoding.py --minutes 10

- *worker*: `open_reader`, block by block; containers in a process of their own, which is started for each.
- *soundfile*: `soundfile.read` of the whole file and soxr, where libsndfile reads the format.
- *ffmpeg*: `ffmpeg -i FILE -ac 1 -ar 16000 -f f32le`, where it is installed.

Prints a table, and writes it to `benchmarks/results/`.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr

from bench import HERE, device_name
from clips import write_recordings
from parakeet_worker.audio.decode import open_reader
from parakeet_worker.cancellation import CancellationToken

sys.path.append(str(HERE.parent / "tests" / "tools"))
from audio_files import contain, reencode  # the tests make files of every format too

RATE = 48_000


def make_files(samples: np.ndarray, wav: bytes) -> dict[str, bytes]:
    """Give 16 kHz mono samples, and the same as a WAV file, the form of each format: 48 kHz stereo."""
    return {
        "WAV": reencode(wav, RATE, 2, "WAV", "PCM_16"),
        "FLAC": reencode(wav, RATE, 2, "FLAC", "PCM_16"),
        "MP3": contain(samples, "mp3", "libmp3lame"),
        "Ogg Vorbis": reencode(wav, RATE, 2, "OGG", "VORBIS"),
        "Ogg Opus": contain(samples, "ogg", "libopus"),
        "M4A": contain(samples, "ipod", "aac"),
        "WebM": contain(samples, "webm", "libopus"),
    }


def worker(path: Path) -> int:
    """Decode as the worker does; return the number of samples."""
    with path.open("rb") as file, open_reader(file, CancellationToken()) as sound:
        return sum(len(block) for block in sound.blocks())


def plain_soundfile(path: Path) -> int:
    """Decode the whole file with libsndfile."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return len(soxr.resample(samples.mean(axis=1), rate, 16_000, quality="HQ"))


def ffmpeg(path: Path) -> int:
    """Decode with the program."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    return len(subprocess.run(command, capture_output=True, check=True).stdout) // 4  # noqa: S603


def seconds(decode: Callable[[Path], int], path: Path, rounds: int) -> float | None:
    """Return the median time of decoding a file, or None where it cannot be."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        try:
            decode(path)
        except soundfile.LibsndfileError:
            return None
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(description="Measure the decoding of audio files.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ways = {"worker": worker, "soundfile": plain_soundfile} | ({"ffmpeg": ffmpeg} if shutil.which("ffmpeg") else {})
    what = f"{options.minutes:g} minutes of 48 kHz stereo to 16 kHz mono on {device_name('cpu')}"
    lines = [
        f"{what}: seconds of audio per second, median of {options.rounds}",
        "",
        f"{'':12}" + "".join(f"{way:>12}" for way in ways),
    ]
    with tempfile.TemporaryDirectory() as directory:
        (recording,) = write_recordings([options.minutes * 60], Path(directory), seed=0)
        samples = soundfile.read(recording.path, dtype="float32")[0]
        for name, data in make_files(samples, recording.path.read_bytes()).items():
            path = Path(directory) / "file"
            path.write_bytes(data)
            times = [seconds(way, path, options.rounds) for way in ways.values()]
            speeds = [f"{recording.seconds / time:12,.0f}" if time else f"{'-':>12}" for time in times]
            lines.append(f"{name:12}" + "".join(speeds))
            print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print("\n" + text)
    (HERE / "results" / "decoding.txt").write_text(text)


if __name__ == "__main__":
    main()
