"""Weights to start from: those of a baked model of the same sizes. Its tokenizer may be another one."""

from pathlib import Path

import sentencepiece
import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
from safetensors.torch import load_file

# Tensors with one row for each token. Rows for the blank and for the durations follow, if there are any.
_BY_TOKEN = ("decoder.prediction.embed.weight", "joint.joint_net.1.weight", "joint.joint_net.1.bias")


def start_from(network: EncDecRNNTBPEModel, model: Path, tokenizer: Path) -> int:
    """Copy the weights of a baked model into the network, and return how many tokens both tokenizers have.

    A token that the baked model does not have keeps its random weights.

    Args:
        network: A network of the same sizes; it is changed.
        model: The folder of the baked model.
        tokenizer: The folder of the network's tokenizer.

    Raises:
        RuntimeError: A tensor has another shape, or is missing.
    """
    weights = load_file(model / "model.safetensors")
    old, new = _pieces(model / "tokenizer"), _pieces(tokenizer)
    place = {piece: number for number, piece in enumerate(old)}
    same = [(number, place[piece]) for number, piece in enumerate(new) if piece in place]
    to, come_from = torch.tensor(same).T
    own = network.state_dict()
    for name in _BY_TOKEN:
        rows = own[name].clone()
        rows[len(new) :] = weights[name][len(old) :]
        rows[to] = weights[name][come_from]
        weights[name] = rows
    network.load_state_dict({**{name: own[name] for name in own if name.startswith("preprocessor.")}, **weights})
    return len(same)


def _pieces(tokenizer: Path) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    return [processor.id_to_piece(token) for token in range(processor.get_piece_size())]
