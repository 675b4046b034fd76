"""From a checkpoint of the training to a `.nemo` file, which the bake reads."""

from pathlib import Path

import torch

from training.network import new_network


def export(checkpoint: Path, tokenizer: Path, file: Path) -> None:
    """Write the network of a checkpoint as a `.nemo` file.

    Args:
        checkpoint: What `Training.save` has written.
        tokenizer: The folder of its tokenizer.
        file: Where the `.nemo` file is written.
    """
    network = new_network(tokenizer)
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["network"])
    network.eval()
    network.save_to(str(file))
