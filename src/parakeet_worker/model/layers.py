"""Layers whose parameters get no initial values: a checkpoint's take their place.

Random numbers for 0.6 billion parameters take ten seconds. torch's `meta` device would do without them too, but it
imports 800 modules of torch's compiler, which take longer than everything else that the plain engine imports.
"""

from torch import nn


class _Uninitialised:
    def reset_parameters(self) -> None:
        """Leave the parameters as they are."""


class Linear(_Uninitialised, nn.Linear):
    """A linear layer."""


class Conv1d(_Uninitialised, nn.Conv1d):
    """A convolution over time."""


class Conv2d(_Uninitialised, nn.Conv2d):
    """A convolution over time and frequency."""


class Embedding(_Uninitialised, nn.Embedding):
    """A table of vectors."""


class LSTM(_Uninitialised, nn.LSTM):
    """An LSTM."""
