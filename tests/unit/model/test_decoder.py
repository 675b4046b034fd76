"""The search over a prediction and a joint network, beside a plain loop over one stream."""

from dataclasses import replace

import pytest
import torch

from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.decoder import Decoder, Emission, JointNetwork, PredictionNetwork
from parakeet_worker.model.files import parse_config
from project import MODEL_DIR

SIZES = replace(
    ModelConfig.from_nemo(parse_config((MODEL_DIR / "model_config.yaml").read_bytes())),
    width=6,
    labels=5,
    predictor_width=7,
    predictor_layers=2,
    joint_width=8,
    max_symbols=3,
)


def networks(config: ModelConfig, seed: int = 0) -> tuple[PredictionNetwork, JointNetwork]:
    """Random networks that emit often, and stay at a frame often."""
    torch.manual_seed(seed)
    prediction, joint = PredictionNetwork(config), JointNetwork(config)
    for parameter in (*prediction.parameters(), *joint.parameters()):
        torch.nn.init.normal_(parameter, 0, 0.8)
        parameter.requires_grad_(False)
    joint.out.bias[config.labels + 1] += 2.0
    return prediction.eval(), joint.eval()


def one_stream(
    prediction: PredictionNetwork, joint: JointNetwork, config: ModelConfig, frames: torch.Tensor
) -> list[Emission]:
    """Decode (T, D) frames as the paper says it, label by label, with torch's LSTM."""
    parts = prediction.prediction
    embed, lstm = parts["embed"], parts["dec_rnn"]["lstm"]  # type: ignore[index]
    label, state, emitted = config.labels, None, []
    predicted, state = lstm(embed(torch.tensor([[label]])), state)
    frame, run = 0, 0
    while frame < len(frames):
        logits = joint.out(torch.relu(joint.enc(frames[frame]) + joint.pred(predicted[0, 0])))
        label = int(logits[: config.labels + 1].argmax())
        duration = config.durations[int(logits[config.labels + 1 :].argmax())]
        if label == config.labels:
            frame, run = frame + max(duration, 1), 0
            continue
        emitted.append(Emission(label, frame, duration))
        predicted, state = lstm(embed(torch.tensor([[label]])), state)
        run = run + 1
        if duration == 0 and run == config.max_symbols:
            duration = 1
        if duration:
            frame, run = frame + duration, 0
    return emitted


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_streams_are_decoded_as_each_alone(layers: int) -> None:
    config = replace(SIZES, predictor_layers=layers)
    prediction, joint = networks(config, seed=layers)
    frames = torch.randn(9, 40, config.width)
    lengths = torch.tensor([40, 1, 17, 0, 40, 5, 33, 2, 39])
    expected = [
        one_stream(prediction, joint, config, stream[:length]) for stream, length in zip(frames, lengths, strict=True)
    ]
    decoder = Decoder(prediction, joint, config)
    assert decoder.decode(frames, lengths) == expected
    for stream, length, alone in zip(frames, lengths, expected, strict=True):
        assert decoder.decode(stream[None, : max(length, 1)], length[None]) == [alone]
    assert sum(map(len, expected)) > 50


def test_a_frame_has_so_many_labels_at_most() -> None:
    prediction, joint = networks(SIZES)
    joint.out.bias[SIZES.labels] -= 100.0  # never a blank
    joint.out.bias[SIZES.labels + 1] += 100.0  # always a duration of zero
    (emitted,) = Decoder(prediction, joint, SIZES).decode(torch.randn(1, 4, SIZES.width), torch.tensor([4]))
    assert [emission.frame for emission in emitted] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert {emission.duration for emission in emitted} == {0}


def test_a_blank_advances_even_with_a_duration_of_zero() -> None:
    prediction, joint = networks(SIZES)
    joint.out.bias[SIZES.labels] += 100.0
    joint.out.bias[SIZES.labels + 1] += 100.0
    assert Decoder(prediction, joint, SIZES).decode(torch.randn(2, 50, SIZES.width), torch.tensor([50, 3])) == [[], []]
