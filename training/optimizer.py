"""How the weights follow the gradients: Muon for most matrices, AdamW for everything else."""

from typing import Any

import torch
from torch import nn

# Muon is for matrices whose rows and columns are features. Those of the tokens and of the LSTM's four gates are not
# such. The position biases of the attention are no matrices either, but have two dimensions, and are learnt with it.
_JOINT = ("joint.enc.weight", "joint.pred.weight")
_DECAY = 1e-3


class Optimizer:
    """Two optimisers with one learning rate.

    Muon (Jordan et al. 2024, in PyTorch since 2.9) makes all directions of a matrix's step equally long. Its steps are
    scaled to the size of AdamW's, so both take the same learning rate.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take the trainable parameters of a network of NeMo's transducers."""
        named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
        matrices = [
            parameter
            for name, parameter in named
            if parameter.ndim == 2 and (name.startswith("encoder.") or name in _JOINT)
        ]
        chosen = {id(parameter) for parameter in matrices}
        rest = [parameter for _, parameter in named if id(parameter) not in chosen]
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(matrices, weight_decay=_DECAY, adjust_lr_fn="match_rms_adamw"),
            "adamw": torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=_DECAY, fused=True),
        }

    def step(self, rate: float) -> None:
        """Change the parameters by their gradients at a learning rate."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts.values():
            part.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same network."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
