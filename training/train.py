"""The training: the network learns what a transducer should say at each encoder frame, as the word times tell it."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from training.labels import Steps, Tokenizer, steps
from training.network import MEL_BINS, VOCABULARY
from training.optimizer import Optimizer
from training.recordings import Composer, lengths
from training.sounds import Samples
from training.voice import SAMPLE_RATE

BLANK = VOCABULARY

# What is drawn: one more number of the seed. It is not 0, as NumPy takes a seed for the same with zeros behind it.
_LENGTH, _RECORDING, _MASK = 1, 2, 3


@dataclass(frozen=True)
class Schedule:
    """How long and how fast the network learns.

    Attributes:
        batches: How many batches the training has.
        batch_seconds: Seconds of audio in a batch, over all processes.
        learning_rate: The highest rate. The rate rises to it during the first `warmup` batches. A cosine brings it down
            to a fiftieth.
        warmup: How many batches the rise takes.
        masked_after: From this batch on, parts of the features are masked.
        first_voice_batches: How many batches have the first voice alone. One voice is learnt sooner than several.
        seed: Equal seeds give equal recordings.
        saved_every: How many batches lie between two checkpoints.
    """

    batches: int
    batch_seconds: float = 96.0
    learning_rate: float = 2e-3
    warmup: int = 200
    masked_after: int = 800
    first_voice_batches: int = 3_000
    seed: int = 1
    saved_every: int = 250

    def rate(self, batch: int) -> float:
        """Return the learning rate of a batch."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, batch / self.batches)))
        return self.learning_rate * min(1, (batch + 1) / self.warmup) * (0.98 * cosine + 0.02)


@dataclass(frozen=True)
class Team:
    """The processes that train together, each on its share of every batch.

    Attributes:
        size: How many processes there are.
        place: Which of them this one is, from 0 on.
    """

    size: int = 1
    place: int = 0

    def average(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace the gradients by their mean over all processes, whose shares may differ by one recording."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(together)
        together /= self.size
        for gradient, part in zip(gradients, together.split([item.numel() for item in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


@dataclass(frozen=True)
class Batch:
    """Recordings of nearly equal length, and the decisions for each."""

    samples: tuple[Samples, ...]
    steps: tuple[Steps, ...]

    @property
    def seconds(self) -> float:
        """How long the recordings are together."""
        return sum(len(samples) for samples in self.samples) / SAMPLE_RATE


class Batches(Dataset[Batch]):
    """The share that a process has of each batch. The recordings of a batch depend on its number and the seed alone."""

    def __init__(self, composer: Composer, tokenizer: Tokenizer, schedule: Schedule, team: Team) -> None:
        """Keep what batches are made of."""
        self._composer = composer
        self._tokenizer = tokenizer
        self._schedule = schedule
        self._team = team

    def __getitem__(self, number: int) -> Batch:
        """Return this process's share of a batch."""
        schedule, team = self._schedule, self._team
        seconds = lengths(np.random.default_rng([schedule.seed, number, _LENGTH]))
        count = max(team.size, round(schedule.batch_seconds / seconds))
        alone = number < schedule.first_voice_batches
        recordings = [
            self._composer.compose(seconds, np.random.default_rng([schedule.seed, number, _RECORDING, place]), alone)
            for place in range(team.place, count, team.size)
        ]
        return Batch(
            tuple(recording.samples for recording in recordings),
            tuple(steps(recording, self._tokenizer, BLANK) for recording in recordings),
        )


class Training:
    """A run that can be interrupted: it goes on from its last checkpoint."""

    def __init__(
        self, network: EncDecRNNTBPEModel, schedule: Schedule, checkpoint: Path, device: torch.device, team: Team
    ) -> None:
        """Take the network, and the state of the checkpoint where there is one.

        Args:
            network: What is trained, in place.
            schedule: How long and how fast it learns.
            checkpoint: The file that is read now if it exists, and written from time to time.
            device: Where the network computes.
            team: The processes that train together; `torch.distributed` is ready where there are several.
        """
        self.network = network.to(device)
        self._schedule = schedule
        self._checkpoint = checkpoint
        self._device = device
        self._team = team
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._optimizer = Optimizer(network)
        self._batch = 0
        if checkpoint.exists():
            state = torch.load(checkpoint, map_location=device, weights_only=True)
            network.load_state_dict(state["network"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._batch = state["batch"]

    def run(self, batches: Batches, processes: int, report: Callable[[str], None]) -> None:
        """Train with the batches of the schedule that are left, and save the last state.

        Args:
            batches: This process's share of each batch.
            processes: How many processes make recordings; with 0 this one does.
            report: Is called with a line of progress every 100 batches.
        """
        total = self._schedule.batches
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=range(self._batch, total),
            num_workers=processes,
            prefetch_factor=8 if processes else None,
        )
        self.network.train()
        started, heard, loss, first = time.monotonic(), 0.0, 0.0, self._batch
        for batch in loader:
            value = self._learn(batch)
            heard += batch.seconds * self._team.size
            loss = value if not loss else 0.98 * loss + 0.02 * value
            if self._batch % 100 == 0:
                seconds = time.monotonic() - started
                left = seconds / (self._batch - first) * (total - self._batch) / 60
                report(
                    f"batch {self._batch} of {total}: loss {loss:.3f}, {heard / seconds:.0f} times real time, "
                    f"{left:.0f} min left"
                )
            if self._batch % self._schedule.saved_every == 0:
                self.save()
        self.save()

    def _learn(self, batch: Batch) -> float:
        # The features have random dither: with this, a run that goes on hears what one without a stop would hear.
        torch.manual_seed(self._batch * self._team.size + self._team.place)
        loss = self._loss(batch)
        self._optimizer.zero_grad()
        loss.backward()
        self._team.average(self._parameters)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step(self._schedule.rate(self._batch))
        self._batch += 1
        return loss.item()

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Return the cross-entropy of the labels and half that of the durations, over all decisions of a share."""
        network, device = self.network, self._device
        counts = torch.tensor([len(samples) for samples in batch.samples], device=device)
        signal = _padded([torch.from_numpy(samples) for samples in batch.samples]).to(device)
        with torch.no_grad():
            features, feature_counts = network.preprocessor(input_signal=signal, length=counts)
            if self._batch >= self._schedule.masked_after:
                _mask(
                    features,
                    feature_counts.tolist(),
                    np.random.default_rng([self._schedule.seed, self._batch, _MASK, self._team.place]),
                )
        encoded, _ = network.encoder(audio_signal=features, length=feature_counts)
        tokens = [torch.from_numpy(steps.tokens) for steps in batch.steps]
        predicted, _, _ = network.decoder(
            targets=_padded(tokens).to(device), target_length=torch.tensor([len(part) for part in tokens])
        )
        joint = network.joint
        frames = joint.enc(encoded.transpose(1, 2))
        histories = joint.pred(predicted.transpose(1, 2))

        sizes = torch.tensor([len(steps.frame) for steps in batch.steps])
        row = torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(device)
        frame, said, label, duration = (
            torch.from_numpy(np.concatenate([getattr(steps, name) for steps in batch.steps])).to(device)
            for name in ("frame", "said", "label", "duration")
        )
        logits = joint.joint_net(frames[row, frame] + histories[row, said])
        return functional.cross_entropy(logits[:, : BLANK + 1], label, label_smoothing=0.02) + 0.5 * (
            functional.cross_entropy(logits[:, BLANK + 1 :], duration)
        )

    def save(self) -> None:
        """Write the checkpoint. If this is interrupted, the last one stays as it was.

        Only the first process of a team writes: the others have the same weights.
        """
        if self._team.place:
            return
        partial = self._checkpoint.with_suffix(".partial")
        state = {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "batch": self._batch,
        }
        torch.save(state, partial)
        partial.replace(self._checkpoint)


def _padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)


def _mask(features: torch.Tensor, counts: Sequence[int], draw: np.random.Generator) -> None:
    """Set parts of the features to zero, in place: SpecAugment (Park et al. 2019) with small masks.

    Each recording loses two bands of up to 10 mel bins, and up to 5 percent of its frames in a row, 50 at most.

    Args:
        features: Shape [recordings, mel bins, frames].
        counts: How many frames each recording has.
        draw: The random numbers that the masks depend on.
    """
    for number, count in enumerate(counts):
        for _ in range(2):
            width = int(draw.integers(0, 11))
            first = int(draw.integers(0, MEL_BINS - width))
            features[number, first : first + width] = 0
        width = int(draw.integers(0, min(50, count // 20) + 1))
        first = int(draw.integers(0, max(1, count - width)))
        features[number, :, first : first + width] = 0
