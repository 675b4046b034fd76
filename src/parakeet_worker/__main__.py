"""Transcribe one recording, without RunPod's SDK around it.

python -m parakeet_worker                  # the bundled clip
python -m parakeet_worker recording.mp3
python -m parakeet_worker https://example.com/recording.mp3

The log comes first, then the transcript in a line of its own, then the worker's answer as JSON.
"""

import argparse
import asyncio
import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

from parakeet_worker.serverless import log
from parakeet_worker.serverless.local import bundled_job
from parakeet_worker.settings import Settings, SettingsError, is_log_json
from parakeet_worker.startup import build_worker

_URL = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


def main() -> None:
    """Transcribe what the command line names.

    Raises:
        SystemExit: It could not be transcribed; the message says why.
    """
    parser = argparse.ArgumentParser(prog="python -m parakeet_worker", description="Transcribe one recording.")
    parser.add_argument("audio", nargs="?", help="a file or a URL; without it, the bundled clip is transcribed")
    audio = parser.parse_args().audio
    log.install(as_json=is_log_json())
    try:
        settings = Settings.from_env()
        job: dict[str, Any] = {"id": "local"} | bundled_job()
        if audio is not None:
            job["input"]["audio_url"] = _audio_url(audio, settings.max_file_bytes)
        answer = _answer(job, settings)
    except (SettingsError, OSError) as error:
        raise SystemExit(f"parakeet-worker: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if answer["status"] == "error":
        raise SystemExit(f"parakeet-worker: {answer['error']}")
    # Past the log, which would shorten URLs and make a JSON string of it.
    sys.stdout.buffer.write(f"\n{answer['text']}\n\n{_indented(answer)}\n".encode())
    sys.stdout.buffer.flush()


def _answer(job: dict[str, Any], settings: Settings) -> dict[str, Any]:
    worker = build_worker(settings)
    try:
        from parakeet_worker.serverless.logger import choose_log_level

        choose_log_level()
        return asyncio.run(worker.answer(job))
    finally:
        # A thread that is still loading must not outlive the interpreter.
        worker.close()


def _audio_url(audio: str, max_bytes: int) -> str:
    """Return a URL as it is, or the `data:` URL of a file.

    Raises:
        OSError: The file cannot be read, or is too large.
    """
    if _URL.match(audio):
        return audio
    try:
        with Path(audio).expanduser().open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(f"{audio!r} cannot be read: {getattr(error, 'strerror', error)}") from error
    if len(data) > max_bytes:
        from parakeet_worker.audio.fetch.download import too_large

        raise OSError(str(too_large(max_bytes)))
    return f"data:;base64,{base64.b64encode(data).decode()}"


def _indented(value: object, margin: str = "") -> str:
    """Return JSON in which an object without lists or objects in it takes one line, as a word with its times does."""
    inner = margin + "  "
    match value:
        case list() if value:
            lines = [f"{inner}{_indented(item, inner)}" for item in value]
            begin, end = "[]"
        case dict() if not margin or any(isinstance(item, list | dict) for item in value.values()):
            lines = [f"{inner}{json.dumps(key)}: {_indented(item, inner)}" for key, item in value.items()]
            begin, end = "{}"
        case _:
            return json.dumps(value, ensure_ascii=False)
    return "\n".join([begin, ",\n".join(lines), margin + end])


if __name__ == "__main__":
    main()
