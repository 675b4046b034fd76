"""The help of the command line, without loading anything else."""

import sys

from parakeet_worker.serverless.sdk import import_sdk

HELP_OPTIONS = frozenset({"-h", "--h", "--he", "--hel", "--help"})
"""What argparse takes for `--help`."""

_EPILOG = """Without options, handler.py serves the RunPod endpoint that it is started for, or runs the job of
test_input.json where there is none. Environment variables set up the worker, PARAKEET_...: see docs/operate.md."""


def is_help_wanted() -> bool:
    """Return whether the command line asks for help."""
    return bool(HELP_OPTIONS.intersection(sys.argv[1:]))


def print_help() -> None:
    """Make the SDK print its help and exit.

    Raises:
        SystemExit: Always.
    """
    import_sdk()
    from runpod.serverless import parser

    parser.epilog = _EPILOG
    parser.parse_known_args()
