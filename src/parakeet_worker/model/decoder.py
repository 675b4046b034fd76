"""The greedy TDT decoder (https://arxiv.org/abs/2304.06795). Every stream of a batch advances at its own pace.

B is the batch, T the encoder frames, J the width of the joint network, P and L the width and the layers of the
prediction network, and V the number of labels; label V is the blank.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.layers import LSTM, Embedding, Linear

_ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh_, "sigmoid": torch.sigmoid_}

# Steps between two checks of whether all streams have ended. A check makes the host wait for the GPU. A step too many
# changes nothing.
_STEPS_PER_CHECK = 8


@dataclass(frozen=True)
class Emission:
    """A label that a stream emitted, its encoder frame, and its duration in encoder frames."""

    label: int
    frame: int
    duration: int


@dataclass(frozen=True)
class Streams:
    """The streams of a batch as the decoder knows them. Steps update the last four tensors in place.

    Attributes:
        frames: The encoder frames of all streams, one stream after the other, projected for the joint network, and at
            least one more row, for streams that have ended, (B * T + 1 or more, J).
        end: The position in `frames` behind each stream's last one, (B,) int64.
        position: The position that the next step looks at, (B,) int64. A stream that has ended stays at its end.
        run: Labels that were emitted at that position so far, (B,) int64.
        state: Hidden and cell states of the prediction network, (2L, B, P).
        prediction: Its last output, projected for the joint network, (B, J).
    """

    frames: Tensor
    end: Tensor
    position: Tensor
    run: Tensor
    state: Tensor
    prediction: Tensor

    @property
    def have_ended(self) -> Tensor:
        """Whether all streams have ended, a bool on the device."""
        return (self.position >= self.end).all()


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
    def decode(self, encoded: Tensor, lengths: Tensor) -> list[list[Emission]]:
        """Find the best labels of each recording.

        Args:
            encoded: Encoder frames, (B, T, D).
            lengths: Their number, (B,) int64.

        Returns:
            What each stream emitted, in order.
        """
        b, t, _ = encoded.shape
        streams = self.streams(b, self.frames(b * t))
        return self.search(encoded, lengths, streams, lambda: self.block(streams))

    @torch.inference_mode()
    def search(self, encoded: Tensor, lengths: Tensor, streams: Streams, block: Block) -> list[list[Emission]]:
        """Find the best labels of each recording by blocks of steps; see `decode`.

        Args:
            encoded: Encoder frames, (B, T, D).
            lengths: Their number, (B,) int64.
            streams: At least B streams, with room for the frames.
            block: Advances them, as the method `block` does.
        """
        b, t, _ = encoded.shape
        self.begin(streams, encoded, lengths)
        records, have_ended = [], False
        while not have_ended:
            record, ended = block()
            records.append(record)
            have_ended = bool(ended)
        return self.emissions(torch.cat(records), streams, t)[:b]

    def frames(self, count: int) -> Tensor:
        """Return room for the encoder frames of streams, and a row of zeros: (count + 1, J)."""
        return self._table.new_zeros(count + 1, self._enc.out_features)

    def streams(self, count: int, frames: Tensor) -> Streams:
        """Return room for the streams of a batch, over `frames`; `begin` fills it."""
        end, position, run = torch.zeros(3, count, dtype=torch.int64, device=frames.device)
        state = frames.new_zeros(self._initial_state.shape[0], count, self._initial_state.shape[2])
        return Streams(frames, end, position, run, state, frames.new_zeros(count, frames.shape[1]))

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

    def block(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Advance every stream by some steps. Return what they returned, (steps, 3, B), and whether all have ended."""
        record = torch.stack([self.step(streams) for _ in range(_STEPS_PER_CHECK)])
        return record, streams.have_ended

    def step(self, streams: Streams) -> Tensor:
        """Advance every stream by one joint step, and by one prediction step if it emitted a label.

        Returns:
            The best label, its duration and its position for each stream, (3, B) int64. The label may be the blank, and
            the position the stream's end, if it has ended.
        """
        position, run = streams.position, streams.run
        joint = self._activation(streams.frames.index_select(0, position).add_(streams.prediction))  # (B, J)
        logits = torch.addmm(self._out.bias, joint, self._out.weight.t())  # (B, V + 1 + durations)
        label = logits[:, : self._blank + 1].argmax(-1)
        duration = self._durations.index_select(0, logits[:, self._blank + 1 :].argmax(-1))
        is_blank = label == self._blank
        record = torch.stack((label, duration, position))

        # A blank and the last label that a frame may have advance by one frame at least.
        run.add_(1)
        advance = torch.maximum(duration, is_blank | (run >= self._max_symbols))
        run.mul_(advance == 0)
        torch.minimum(position.add_(advance), streams.end, out=position)

        state = self._predict(label, streams.state)
        torch.where(is_blank[:, None], streams.state, state, out=streams.state)
        streams.prediction.copy_(self._project(streams.state))
        return record

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

    def emissions(self, record: Tensor, streams: Streams, frames: int) -> list[list[Emission]]:
        """Return what each stream emitted.

        Args:
            record: What the steps returned, (steps, 3, B).
            streams: The streams.
            frames: T.
        """
        label, duration, position = record.unbind(1)  # (steps, B)
        is_emitted = (label != self._blank) & (position < streams.end)
        starts = torch.arange(0, streams.end.shape[0] * frames, frames, device=position.device)
        fields = torch.stack((label, position - starts, duration, is_emitted)).permute(2, 1, 0).tolist()
        return [[Emission(*values) for *values, is_emitted in stream if is_emitted] for stream in fields]


def _sigmoids_first(gates: Tensor) -> Tensor:
    """Reorder an LSTM's gates from torch's input, forget, cell, output to input, forget, output, cell: (4P, ...)."""
    input_gate, forget_gate, cell, output_gate = gates.chunk(4)
    return torch.cat((input_gate, forget_gate, output_gate, cell))
