"""RunPod's logger: its level, and lines that have fields."""

import os
import sys
from functools import cache

import runpod
from runpod import RunPodLogger
from runpod.serverless.modules.rp_logger import LOG_LEVELS

from parakeet_worker.serverless.help import HELP_OPTIONS
from parakeet_worker.serverless.log import LogLine, json_line, printable

_log = RunPodLogger()


def is_logged(level: str) -> bool:
    """Return whether lines of a level are written: `DEBUG`, `INFO`, `WARN` or `ERROR`."""
    level_now: str = _log.level
    return level_now != "NOTSET" and bool(LOG_LEVELS.index(level_now) <= LOG_LEVELS.index(level))


def warn(message: str) -> None:
    """Write a warning."""
    _log.warn(message)


def write_line(line: LogLine, level: str, job_id: str | None = None, *, as_json: bool) -> None:
    """Write a line that has fields, if its level is logged.

    Args:
        line: The line.
        level: Its level.
        job_id: Id of the job that it is about.
        as_json: Whether to write a JSON object with its fields, rather than its text.
    """
    if not as_json:
        _log.log(printable(str(line)), level, job_id)
    elif is_logged(level):
        # The SDK's logger would write the object as a string.
        print(json_line(str(line), level, job_id, line.fields()), flush=True)  # noqa: T201


@cache
def choose_log_level() -> None:
    """Set the level to INFO, rather than the SDK's DEBUG, unless the environment or `--rp_log_level` sets another.

    Once: the SDK reads and removes its arguments when it starts, which is too late for what is logged before.
    """
    # With an option for help, argparse would print it and exit.
    options, _ = runpod.serverless.parser.parse_known_args([word for word in sys.argv[1:] if word not in HELP_OPTIONS])
    if options.rp_log_level and options.rp_log_level.upper() in LOG_LEVELS:
        _log.level = options.rp_log_level.upper()
    elif not os.environ.keys() & {"RUNPOD_LOG_LEVEL", "RUNPOD_DEBUG_LEVEL"}:
        _log.level = "INFO"
