"""Bake a model directory from a `.nemo` file, or from a pinned file of the Hugging Face hub.

python -m parakeet_worker.bake nvidia/parakeet-tdt-0.6b-v2 --out models/parakeet-tdt-0.6b-v2
python -m parakeet_worker.bake my-finetune.nemo --out models/my-finetune
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path

import torch

from parakeet_worker.bake.convert import BakeError, ModelDescription, bake, copy_baked
from parakeet_worker.bake.huggingface.download import download
from parakeet_worker.bake.huggingface.pin import PARAKEET_TDT_0_6B_V2, HubError, find_pin, is_local
from parakeet_worker.model.card import CARD, MAX_DURATION, WINDOWS, Card, sha256


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m parakeet_worker.bake", description="Make a model directory that the worker can load."
    )
    parser.add_argument(
        "source",
        help=f"a .nemo file, a baked directory, or a Hugging Face model such as {PARAKEET_TDT_0_6B_V2.name}",
    )
    parser.add_argument("--out", type=Path, required=True, help="the directory to make")
    parser.add_argument("--revision", help="commit of the Hugging Face model (40 digits); known for the default model")
    parser.add_argument("--sha256", help="checksum of the .nemo file; known for the default model")
    parser.add_argument("--file", help="the .nemo file in the Hugging Face model (default: <name>.nemo)")
    parser.add_argument("--downloads", type=Path, help="where to keep what is downloaded, for the next bake")
    parser.add_argument("--name", help="the model's name (default: from the source)")
    parser.add_argument("--description", default="", help="what it is for")
    parser.add_argument("--license", default=None, help="licence of the weights")
    parser.add_argument(
        "--max-minutes", type=float, help="longest audio that the model takes in one pass (default: 24)"
    )
    parser.add_argument(
        "--precision",
        choices=["bfloat16", "float16", "float32"],
        help="of the weights (default: bfloat16, as a GPU uses them; float32 is for a CPU)",
    )
    parser.add_argument(
        "--engine", choices=["plain", "nemo"], help="of the image that the model is for: stop if it cannot serve it"
    )
    options = parser.parse_args(arguments)
    try:
        card = _bake_source(options)
    except (BakeError, HubError) as error:
        sys.exit(f"bake: {error}")
    print(f"{options.out}: {card.name}, {card.parameters:,} parameters, {CARD} written; {card.engine} engine")  # noqa: T201 - a command line


def _bake_source(options: argparse.Namespace) -> Card:
    _, longest, overlap = WINDOWS
    least = (longest + 2 * overlap) / 60
    if options.max_minutes is not None and not least <= options.max_minutes < math.inf:
        raise BakeError(f"--max-minutes must be a number from {least:g} on: windows of long recordings have as much")
    if (Path(options.source) / CARD).is_file():
        if any((options.name, options.description, options.license, options.max_minutes, options.precision)):
            raise BakeError(f"{options.source} is baked already and has its card; it is copied as it is")
        return copy_baked(Path(options.source), options.out, options.engine)
    with tempfile.TemporaryDirectory(prefix="hub-") as scratch:
        nemo_file, source = _source(options, Path(scratch))
        is_default = source["name"] == PARAKEET_TDT_0_6B_V2.name
        about = ModelDescription(
            name=options.name or source["name"].removesuffix(".nemo"),
            description=options.description,
            license=options.license or ("CC-BY-4.0" if is_default else "unspecified"),
            max_duration=options.max_minutes * 60 if options.max_minutes else MAX_DURATION,
            source=source,
        )
        precision = getattr(torch, options.precision or "bfloat16")
        return bake(nemo_file, options.out, about, precision, image_engine=options.engine)


def _source(options: argparse.Namespace, scratch: Path) -> tuple[Path, dict[str, str]]:
    """Return the path of the .nemo file, downloaded to `scratch` if need be, and the card's `source`."""
    if is_local(options.source):
        local = Path(options.source)
        if not local.is_file():
            raise BakeError(f"{local} is not a file")
        found = sha256(local)
        if options.sha256 not in (None, found):
            raise BakeError(f"{local.name} has the SHA-256 {found}, not {options.sha256}")
        return local, {"name": local.name, "sha256": found}
    pin = find_pin(options.source, options.revision, options.sha256, options.file)
    file = download(pin, options.downloads or scratch)
    return file, {"name": pin.name, "revision": pin.revision, "sha256": pin.sha256}
