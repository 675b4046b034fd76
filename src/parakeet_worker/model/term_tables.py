"""The automata of key terms on the device: a row of scores and of next states for each state.

V is the number of labels; label V is the blank. R is the number of rows.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parakeet_worker.model.key_terms import TermAutomaton

OUTSIDE = 0
"""The row of streams without key terms: it adds nothing, and leads to itself."""

ON_TRIAL = 2
"""The plane of the targets for streams on trial."""


class TermTables:
    """The rows of the automata of the latest batches. They stay where they are, since CUDA graphs read them.

    A row takes 10 bytes for each label. It is filled on the device from the few arcs of its automaton.

    Args:
        rows: R: the states of all automata that there is room for, and one more.
        labels: V.
        device: The device.

    Attributes:
        scores: The weights of the labels, (R, V + 1) float32. Labels without one, and the blank, have minus infinity.
        targets: The row that each label and the blank lead to from each row, (3, R, V + 1), int16 if that is enough: if
            the label is the one that the model prefers; if terms have raised it above that; and if the stream is on
            trial, see `decoder.TermStreams`. It is negative if the stream is on trial from then on, and `failed` if the
            trial fails. The blank leaves the row.
        failed: The smallest number of that type that has an absolute value.
    """

    def __init__(self, rows: int, labels: int, device: torch.device) -> None:
        self.scores = torch.empty(rows, labels + 1, device=device)
        limits = torch.iinfo(torch.int16 if rows <= torch.iinfo(torch.int16).max else torch.int32)
        self.failed = limits.min + 1
        self.targets = torch.empty(3, rows, labels + 1, dtype=getattr(torch, limits.dtype), device=device)
        self.scores[OUTSIDE] = -torch.inf
        self.targets[:, OUTSIDE] = OUTSIDE
        self._device = device
        self._places: dict[TermAutomaton, int] = {}
        self._end = OUTSIDE + 1  # of the rows that are filled

    @staticmethod
    def rows_for_bytes(size: int, labels: int) -> int:
        """Return how many rows take so many bytes, with 16-bit targets."""
        return min(size // (10 * (labels + 1)), torch.iinfo(torch.int16).max)

    @staticmethod
    def rows_of(automata: Iterable[TermAutomaton | None]) -> int:
        """Return the number of rows that the automata of a batch need, with the one outside of all terms."""
        return OUTSIDE + 1 + sum(len(automaton) for automaton in set(automata) if automaton is not None)

    def place(self, automata: Sequence[TermAutomaton | None]) -> Tensor:
        """Fill rows with the automata of a batch, as far as they are not there yet.

        If there is too little room beside them, all that earlier batches have placed is dropped.

        Args:
            automata: The automaton of each stream, or None. There are rows enough for them.

        Returns:
            The row of each stream's state 0, or `OUTSIDE`, int64 on the device.
        """
        missing = [automaton for automaton in set(automata) if automaton and automaton not in self._places]
        if self._end + sum(map(len, missing)) > len(self.scores):
            self._places, self._end = {}, OUTSIDE + 1
            missing = [automaton for automaton in set(automata) if automaton]
        for automaton in missing:
            self._fill(automaton, self._end)
            self._places[automaton] = self._end
            self._end += len(automaton)
        rows = [OUTSIDE if automaton is None else self._places[automaton] for automaton in automata]
        return self._send(np.array(rows, np.int64))

    def _fill(self, automaton: TermAutomaton, first: int) -> None:
        """Fill the rows of an automaton, from row `first` on."""
        last = first + len(automaton)
        leads = automaton.targets + first
        raised = np.where(automaton.ends[automaton.targets], leads, -leads)  # at its end a term is no more on trial
        on_trial = np.where(automaton.continues, raised, self.failed)
        planes = np.stack((leads, raised, on_trial)).astype(np.int64)
        # What labels without arcs do.
        is_outside = automaton.states == 0
        begins = automaton.labels[is_outside]
        scores = np.full(self.scores.shape[1], -np.inf, np.float32)
        scores[begins] = automaton.weights[is_outside]
        targets = np.full((3, 1, len(scores)), first, np.int64)
        targets[:2, 0, begins] = planes[:2, is_outside]
        targets[2] = self.failed

        arcs = tuple(self._send(np.stack((automaton.states, automaton.labels)).astype(np.int64)))
        self.scores[first:last] = self._send(scores)
        self.scores[first:last][arcs] = self._send(automaton.weights)
        self.targets[:, first:last] = self._send(targets)
        rows = torch.arange(first, last, device=self._device)
        self.targets[:, first:last, -1] = torch.stack((rows, rows, -rows)).to(self.targets.dtype)
        self.targets[:, first:last][:, *arcs] = self._send(planes).to(self.targets.dtype)

    def _send(self, values: NDArray[np.generic]) -> Tensor:
        """Return values on the device, which the host does not wait for."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor
