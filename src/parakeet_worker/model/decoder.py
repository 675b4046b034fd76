"""The greedy TDT decoder (https://arxiv.org/abs/2304.06795). Every stream of a batch advances at its own pace.

B is the batch, T the encoder frames, J the width of the joint network, P and L the width and the layers of the
prediction network, and V the number of labels; label V is the blank.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor, nn

from parakeet_worker.asr.types import NO_OPTIONS, DecodingOptions
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.key_terms import TermAutomaton
from parakeet_worker.model.layers import LSTM, Embedding, Linear
from parakeet_worker.model.term_tables import ON_TRIAL, TermTables

_ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh_, "sigmoid": torch.sigmoid_}

# Steps between two checks of whether all streams have ended. A check makes the host wait for the GPU. A step too many
# changes nothing.
_STEPS_PER_CHECK = 8

# Room on the device for the automata of key terms: 16,000 states with 0.6B. A hundred terms have 300 to 6,000. A batch
# that needs more gets room of its own.
_TERM_BYTES = 168_000_000

# Steps write down integers. A confidence is one as a multiple of this.
_CONFIDENCE_UNIT = 1e-9


class Variant(Enum):
    """What steps do beside finding the best labels. The value is a name for messages."""

    PLAIN = "plain"
    CONFIDENCE = "with confidence"
    TERMS = "with confidence and key terms"

    @classmethod
    def of(cls, options: Sequence[DecodingOptions]) -> "Variant":
        """Return the cheapest variant that serves all streams of a batch."""
        if any(each.terms is not None for each in options):
            return cls.TERMS
        return cls.CONFIDENCE if any(each.has_confidence for each in options) else cls.PLAIN


@dataclass(frozen=True)
class Emission:
    """A label that a stream emitted.

    Attributes:
        label: The label.
        frame: Its encoder frame.
        duration: Its duration in encoder frames.
        confidence: See `Decoder.confidence`; None if the stream's options do not ask for it.
    """

    label: int
    frame: int
    duration: int
    confidence: float | None = None


@dataclass(frozen=True)
class Streams:
    """The streams of a batch as the decoder knows them. Steps update all but `frames` and `end` in place.

    Attributes:
        frames: The encoder frames of all streams, one stream after the other, projected for the joint network, and at
            least one more row, for streams that have ended, (B * T + 1 or more, J).
        end: The position in `frames` behind each stream's last one, (B,) int64.
        position: The position that the next step looks at, (B,) int64. A stream that has ended stays at its end.
        run: Labels that were emitted at that position so far, (B,) int64.
        state: Hidden and cell states of the prediction network, (2L, B, P).
        prediction: Its last output, projected for the joint network, (B, J).
        terms: Where they are in their key terms, if there is room for any.
    """

    frames: Tensor
    end: Tensor
    position: Tensor
    run: Tensor
    state: Tensor
    prediction: Tensor
    terms: "TermStreams | None"

    @property
    def have_ended(self) -> Tensor:
        """Whether all streams have ended, a bool on the device."""
        return (self.position >= self.end).all()


@dataclass(frozen=True)
class TermStreams:
    """Where the streams of a batch are in their key terms.

    Where a term raises a label above the one that the model prefers, the stream is on trial: until the whole term is
    emitted, or the trial fails by a label that does not go on with the term, or by the end of the recording. After that
    the stream is back where the trial began, and emits what the model prefers. So a term changes nothing unless all of
    it is found.

    A label is raised by the weight of its arc, less what the trial has spent: by how much the logits of what was
    emitted were below those that the model preferred.

    Attributes:
        tables: The automata.
        row: The row of the tables that each stream is in, (B,) int64.
        counters: The same memory as `position` and `run` of `Streams`, and `row`: (3, B).
        plane: `ON_TRIAL`, or 0, (B,) int64.
        has_failed: Whether the last step of a block ended a trial in vain, (B,) bool.
        spent: What the trial has spent, in logits, or 0, (B,) float32.
        saved_counters: `counters` before the trial.
        saved_state: The prediction network's state before the trial.
    """

    tables: TermTables
    row: Tensor
    counters: Tensor
    plane: Tensor
    has_failed: Tensor
    spent: Tensor
    saved_counters: Tensor
    saved_state: Tensor


Block = Callable[[], tuple[Tensor, Tensor]]
"""Advances streams by some steps, and returns what `Decoder.block` returns."""


class PredictionNetwork(nn.Module):
    """The parameters of NeMo's `RNNTDecoder`: an LSTM over the labels so far. Label V stands for the start, too."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        lstm = LSTM(config.predictor_width, config.predictor_width, config.predictor_layers)
        embed = Embedding(config.labels + 1, config.predictor_width)
        self.prediction = nn.ModuleDict({"embed": embed, "dec_rnn": nn.ModuleDict({"lstm": lstm})})


class JointNetwork(nn.Module):
    """The parameters of NeMo's `RNNTJoint`: logits of V labels, of the blank and of the durations."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enc = Linear(config.width, config.joint_width)
        self.pred = Linear(config.predictor_width, config.joint_width)
        # The activation has no parameters, but counts in their names; so does the dropout, where there was one.
        before = [nn.Identity() for _ in range(1 + config.joint_has_dropout)]
        self.joint_net = nn.Sequential(*before, Linear(config.joint_width, config.labels + 1 + len(config.durations)))

    @property
    def out(self) -> nn.Linear:
        """The last layer."""
        out = self.joint_net[-1]
        assert isinstance(out, nn.Linear)  # noqa: S101 - set above
        return out


class Decoder:
    """The search over both networks. It computes in float32: in 16 bits the best two labels are often equal.

    Args:
        prediction: The prediction network, loaded, in float32.
        joint: The joint network, loaded, in float32.
        config: The model's sizes.
    """

    def __init__(self, prediction: PredictionNetwork, joint: JointNetwork, config: ModelConfig) -> None:
        parameters = dict(prediction.prediction.named_parameters())
        self._enc, self._pred, self._out = joint.enc, joint.pred, joint.out
        self._activation = _ACTIVATIONS[config.joint_activation]
        self._blank, self._layers, self._max_symbols = config.labels, config.predictor_layers, config.max_symbols
        self._durations = torch.tensor(config.durations, device=joint.enc.weight.device)
        lstm = {name.removeprefix("dec_rnn.lstm."): tensor for name, tensor in parameters.items()}
        layers = range(config.predictor_layers)
        self._input = [_sigmoids_first(lstm[f"weight_ih_l{i}"]).t() for i in layers]  # (P, 4P)
        self._hidden = [_sigmoids_first(lstm[f"weight_hh_l{i}"]).t() for i in layers]
        self._bias = [_sigmoids_first(lstm[f"bias_ih_l{i}"] + lstm[f"bias_hh_l{i}"]) for i in layers]
        # The first layer's product with its input, for each label.
        self._table = torch.addmm(self._bias[0], parameters["embed.weight"], self._input[0])  # (V + 1, 4P)
        start = torch.full((1,), self._blank, device=self._table.device)
        self._initial_state = self._predict(start, self._table.new_zeros(2 * len(layers), 1, config.predictor_width))
        self._initial_prediction = self._project(self._initial_state)

    @torch.inference_mode()
    def decode(self, encoded: Tensor, lengths: Tensor, options: Sequence[DecodingOptions] = ()) -> list[list[Emission]]:
        """Find the best labels of each recording.

        Args:
            encoded: Encoder frames, (B, T, D).
            lengths: Their number, (B,) int64.
            options: The options of each recording; empty for none.

        Returns:
            What each stream emitted, in order.
        """
        b, t, _ = encoded.shape
        streams = self.streams(b, self.frames(b * t), self._room(options))
        has_confidence = any(each.has_confidence for each in options)
        block = partial(self.block, streams, Variant.of(options), has_confidence=has_confidence)
        return self.search(encoded, lengths, options, streams, block)

    @torch.inference_mode()
    def search(
        self, encoded: Tensor, lengths: Tensor, options: Sequence[DecodingOptions], streams: Streams, block: Block
    ) -> list[list[Emission]]:
        """Find the best labels of each recording by blocks of steps; see `decode`.

        Args:
            encoded: Encoder frames, (B, T, D).
            lengths: Their number, (B,) int64.
            options: The options of each recording; empty for none.
            streams: At least B streams, with room for the frames and the key terms.
            block: Advances them, as the method `block` does with the variant of the options.
        """
        b, t, _ = encoded.shape
        self.begin(streams, encoded, lengths)
        if streams.terms is not None and Variant.of(options) is Variant.TERMS:
            terms = streams.terms
            for tensor in (terms.row, terms.plane, terms.has_failed, terms.spent):
                tensor.zero_()
            terms.row[:b] = terms.tables.place(automata(options))
        records, have_ended = [], False
        while not have_ended:
            record, ended = block()
            records.append(record)
            have_ended = bool(ended)
        return self.emissions(torch.cat(records), streams, t, options or [NO_OPTIONS] * b)

    def frames(self, count: int) -> Tensor:
        """Return room for the encoder frames of streams, and a row of zeros: (count + 1, J)."""
        return self._table.new_zeros(count + 1, self._enc.out_features)

    @cached_property
    def tables(self) -> TermTables:
        """Room for the automata of key terms of all but the largest batches."""
        rows = TermTables.rows_for_bytes(_TERM_BYTES, self._blank)
        return TermTables(rows, self._blank, self._table.device)

    def has_room(self, options: Sequence[DecodingOptions]) -> bool:
        """Return whether `tables` has room for the key terms of a batch."""
        return TermTables.rows_of(automata(options)) <= len(self.tables.scores)

    def _room(self, options: Sequence[DecodingOptions]) -> TermTables | None:
        """Return tables with room for the key terms of a batch, if it has any."""
        if Variant.of(options) is not Variant.TERMS:
            return None
        if self.has_room(options):
            return self.tables
        return TermTables(TermTables.rows_of(automata(options)), self._blank, self._table.device)

    def streams(self, count: int, frames: Tensor, tables: TermTables | None = None) -> Streams:
        """Return room for the streams of a batch, over `frames` and perhaps `tables`; `begin` fills it."""
        end, position, run, row, plane = numbers = torch.zeros(5, count, dtype=torch.int64, device=frames.device)
        state = frames.new_zeros(self._initial_state.shape[0], count, self._initial_state.shape[2])
        terms = None
        if tables is not None:
            counters = numbers[1:4]
            has_failed = torch.zeros(count, dtype=torch.bool, device=frames.device)
            spent = frames.new_zeros(count)
            terms = TermStreams(tables, row, counters, plane, has_failed, spent, counters.clone(), state.clone())
        return Streams(frames, end, position, run, state, frames.new_zeros(count, frames.shape[1]), terms)

    def begin(self, streams: Streams, encoded: Tensor, lengths: Tensor) -> None:
        """Give a batch to the first streams; see `search`. The others have ended, at position 0."""
        b, t, d = encoded.shape
        frames = streams.frames[: b * t]
        torch.addmm(self._enc.bias, encoded.reshape(b * t, d).float(), self._enc.weight.t(), out=frames)
        for tensor in (streams.end, streams.position, streams.run):
            tensor.zero_()
        torch.arange(0, b * t, t, out=streams.position[:b])
        torch.add(streams.position[:b], lengths, out=streams.end[:b])
        streams.state.copy_(self._initial_state.expand_as(streams.state))
        streams.prediction.copy_(self._initial_prediction.expand_as(streams.prediction))

    def block(
        self, streams: Streams, variant: Variant = Variant.PLAIN, *, has_confidence: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Advance every stream by some steps.

        Args:
            streams: The streams.
            variant: What the steps do.
            has_confidence: Whether the confidence is wanted, where the variant has it; else it is 0.

        Returns:
            What the steps returned, (steps, 3, B), and whether all streams have ended. Other variants than the plain
            one add the confidence of each step's label, in billionths: (steps, 4, B). That with key terms adds whether
            the streams are on trial, and whether a trial has failed: (steps, 6, B).
        """
        records, logits, trials = [], [], []
        for record, step_logits, *trial in self._steps(streams, variant):
            records.append(record)
            if variant is not Variant.PLAIN and has_confidence:
                logits.append(step_logits)
            trials += trial
        record = torch.stack(records)
        if variant is not Variant.PLAIN:
            confidence = torch.zeros_like(record[:, 0])
            if logits:
                confidence = self.confidence(torch.stack(logits), record[:, 0]).div_(_CONFIDENCE_UNIT).long()
            extras = torch.stack(trials).view(len(records), -1, record.shape[2]) if trials else record[:, :0]
            record = torch.cat((record, confidence[:, None], extras), 1)
        return record, streams.have_ended

    def _steps(self, streams: Streams, variant: Variant) -> Iterator[tuple[Tensor, ...]]:
        """Do the steps of a block, and yield what each returns."""
        if variant is not Variant.TERMS:
            for _ in range(_STEPS_PER_CHECK):
                yield self.step(streams)
            return
        assert streams.terms is not None  # noqa: S101 - the caller made room for them
        has_failed = streams.terms.has_failed
        for _ in range(_STEPS_PER_CHECK):
            *results, has_failed = self.step_with_terms(streams, has_failed)
            yield *results, has_failed
        streams.terms.has_failed.copy_(has_failed)

    def step(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Advance every stream by one joint step, and by one prediction step if it emitted a label.

        Returns:
            The best label, its duration and its position for each stream, (3, B) int64. The label may be the blank, and
            the position the stream's end, if it has ended. And the model's logits of the labels and the blank,
            (B, V + 1).
        """
        logits, durations = self._logits(streams)
        label = logits.argmax(-1)
        record = self._advance(streams, label, label == self._blank, durations)
        streams.prediction.copy_(self._project(streams.state))
        return record, logits

    def step_with_terms(self, streams: Streams, has_failed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Do what `step` does, with key terms. Streams without any do exactly the same.

        Args:
            streams: The streams.
            has_failed: Whether the last step ended a trial of each stream in vain, (B,) bool.

        Returns:
            What `step` returns. Whether the streams are on trial now, and whether this step ended a trial in vain,
            each (B,) bool.
        """
        terms = streams.terms
        assert terms is not None  # noqa: S101 - the caller made room for them
        logits, durations = self._logits(streams)
        # On a CPU `max` takes half the time of `argmax`. Both return the first one of equal values.
        preferred, best = logits.max(-1)
        raised, wanted = terms.tables.scores.index_select(0, terms.row).add_(logits).max(-1)
        label = torch.where((raised - terms.spent > preferred) > has_failed, wanted, best)
        plane = torch.maximum(terms.plane, label != best)
        target = terms.tables.targets[plane, terms.row, label].long()

        was_on_trial = terms.plane > 0
        torch.where(was_on_trial, terms.saved_counters, terms.counters, out=terms.saved_counters)
        torch.where(was_on_trial[:, None], terms.saved_state, streams.state, out=terms.saved_state)
        record = self._advance(streams, label, label == self._blank, durations)
        torch.abs(target, out=terms.row)
        # The end of the recording ends a trial, too.
        has_failed = target < (streams.position < streams.end) * (terms.tables.failed + 1)
        is_on_trial = (target < 0) > has_failed
        torch.mul(is_on_trial, ON_TRIAL, out=terms.plane)
        terms.spent.add_(preferred).sub_(logits.gather(-1, label[:, None])[:, 0]).mul_(is_on_trial)
        torch.where(has_failed, terms.saved_counters, terms.counters, out=terms.counters)
        torch.where(has_failed[:, None], terms.saved_state, streams.state, out=streams.state)
        streams.prediction.copy_(self._project(streams.state))
        return record, logits, is_on_trial, has_failed

    def _logits(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Return the logits of the labels and the blank, (B, V + 1), and those of the durations."""
        frames = streams.frames.index_select(0, streams.position)
        joint = self._activation(frames.add_(streams.prediction))  # (B, J)
        logits = torch.addmm(self._out.bias, joint, self._out.weight.t())
        return logits[:, : self._blank + 1], logits[:, self._blank + 1 :]

    def _advance(self, streams: Streams, label: Tensor, is_blank: Tensor, durations: Tensor) -> Tensor:
        """Advance streams by labels, (B,) int64, whose durations have logits.

        Returns:
            See `step`.
        """
        position, run = streams.position, streams.run
        duration = self._durations.index_select(0, durations.argmax(-1))
        record = torch.stack((label, duration, position))

        # A blank and the last label that a frame may have advance by one frame at least.
        run.add_(1)
        advance = torch.maximum(duration, is_blank | (run >= self._max_symbols))
        run.mul_(advance == 0)
        torch.minimum(position.add_(advance), streams.end, out=position)

        state = self._predict(label, streams.state)
        torch.where(is_blank[:, None], streams.state, state, out=streams.state)
        return record

    def confidence(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the confidence in labels, from 0 to 1: their probability, scaled so that a guess has none.

        It is NeMo's measure `max_prob`, https://arxiv.org/abs/2212.08703: (p (V + 1) - 1) / V. p is the probability
        that the model itself gives to the label, without key terms. So it is the largest one, unless a term has raised
        another label.

        Args:
            logits: The model's logits of the labels and the blank, (..., V + 1).
            label: The labels, (...) int64.
        """
        probability = logits.log_softmax(-1).gather(-1, label[..., None])[..., 0].exp_()
        return probability.mul_(self._blank + 1).sub_(1).div_(self._blank).clamp_(0, 1)

    def _predict(self, label: Tensor, state: Tensor) -> Tensor:
        """Return the state of the prediction network after labels, (B,) int64, from that before them, (2L, B, P)."""
        states: list[Tensor] = []
        for layer in range(self._layers):
            hidden, cell = state[2 * layer], state[2 * layer + 1]
            x = (
                self._table.index_select(0, label)
                if layer == 0
                else torch.addmm(self._bias[layer], states[-2], self._input[layer])
            )
            gates = x.addmm_(hidden, self._hidden[layer])
            input_gate, forget_gate, output_gate = gates[:, : 3 * cell.shape[1]].sigmoid().chunk(3, -1)
            cell = torch.addcmul(forget_gate * cell, input_gate, gates[:, 3 * cell.shape[1] :].tanh())
            states += [output_gate * cell.tanh(), cell]
        return torch.stack(states)

    def _project(self, state: Tensor) -> Tensor:
        """Return the last layer's hidden state of a state, (2L, B, P), projected for the joint network, (B, J)."""
        return torch.addmm(self._pred.bias, state[-2], self._pred.weight.t())

    def emissions(
        self, record: Tensor, streams: Streams, frames: int, options: Sequence[DecodingOptions]
    ) -> list[list[Emission]]:
        """Return what the first streams emitted.

        Args:
            record: What the blocks returned, (steps, 3, 4 or 6, B).
            streams: The streams.
            frames: T.
            options: The options of the first ones.
        """
        label, duration, position, *extras = record.unbind(1)  # (steps, B)
        is_emitted = (label != self._blank) & (position < streams.end)
        if len(extras) > 1:
            is_emitted &= _is_kept(*extras[1:])
        starts = torch.arange(0, streams.end.shape[0] * frames, frames, device=position.device)
        fields = torch.stack((label, position - starts, duration, *extras[:1], is_emitted)).permute(2, 1, 0).tolist()
        if not extras:
            return [
                [Emission(*values) for *values, is_emitted in stream if is_emitted] for stream in fields[: len(options)]
            ]
        return [
            [
                Emission(label, frame, duration, confidence * _CONFIDENCE_UNIT if each.has_confidence else None)
                for label, frame, duration, confidence, is_emitted in stream
                if is_emitted
            ]
            for stream, each in zip(fields, options, strict=False)
        ]


def _is_kept(is_on_trial: Tensor, has_failed: Tensor) -> Tensor:
    """Return whether steps are not part of a trial that failed; all are (steps, B)."""
    # How a step's trial went is known where, from that step on, the stream is not on trial for the first time.
    steps = torch.arange(len(is_on_trial), device=is_on_trial.device)[:, None]
    ends = torch.where(is_on_trial > 0, len(is_on_trial) - 1, steps).flip(0).cummin(0).values.flip(0)
    return has_failed.gather(0, ends) == 0


def automata(options: Iterable[DecodingOptions]) -> list[TermAutomaton | None]:
    """Return the automaton of each stream's key terms, or None."""
    terms = [each.terms for each in options]
    # Nobody else's are given to this engine.
    assert all(each is None or isinstance(each, TermAutomaton) for each in terms)  # noqa: S101
    return cast("list[TermAutomaton | None]", terms)


def _sigmoids_first(gates: Tensor) -> Tensor:
    """Reorder an LSTM's gates from torch's input, forget, cell, output to input, forget, output, cell: (4P, ...)."""
    input_gate, forget_gate, cell, output_gate = gates.chunk(4)
    return torch.cat((input_gate, forget_gate, output_gate, cell))
