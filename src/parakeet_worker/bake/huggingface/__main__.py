"""Download a `.nemo` file from the Hugging Face hub ahead of its bake, for an image whose download is its own layer.

python -m parakeet_worker.bake.huggingface nvidia/parakeet-tdt-0.6b-v2 --to downloads
"""

import argparse
import sys
from pathlib import Path

from parakeet_worker.bake.huggingface.download import download
from parakeet_worker.bake.huggingface.pin import HubError, find_pin, is_local


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m parakeet_worker.bake.huggingface", description="Download a .nemo file."
    )
    parser.add_argument("source", help="a Hugging Face model; of a path here there is nothing to download")
    parser.add_argument("--to", type=Path, required=True, help="the directory for it")
    parser.add_argument("--revision", help="commit of the model (40 digits); known for the default model")
    parser.add_argument("--sha256", help="checksum of the file; known for the default model")
    options = parser.parse_args(arguments)
    if is_local(options.source):
        return
    try:
        download(find_pin(options.source, options.revision, options.sha256), options.to)
    except HubError as error:
        sys.exit(f"hub: {error}")


if __name__ == "__main__":
    main()
