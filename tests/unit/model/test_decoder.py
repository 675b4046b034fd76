"""The search over a prediction and a joint network, beside a plain loop over one stream."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from parakeet_worker.asr.types import DecodingOptions
from parakeet_worker.model.config import ModelConfig
from parakeet_worker.model.decoder import _STEPS_PER_CHECK, Decoder, Emission, JointNetwork, PredictionNetwork
from parakeet_worker.model.files import parse_config
from parakeet_worker.model.key_terms import _PER_LABEL, build
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


Terms = Sequence[tuple[tuple[int, ...], float]]


def longest_prefix(terms: Terms, history: tuple[int, ...]) -> tuple[int, ...]:
    """The longest end of what was emitted that a term begins with."""
    ends = (history[start:] for start in range(len(history) + 1))
    return next((end for end in ends if any(labels[: len(end)] == end for labels, _ in terms)), ())


def one_stream_with_terms(
    prediction: PredictionNetwork, joint: JointNetwork, config: ModelConfig, frames: torch.Tensor, terms: Terms
) -> tuple[list[Emission], int]:
    """Decode (T, D) frames label by label, and go back where a term is not finished; return how often, too."""
    parts, blank = prediction.prediction, config.labels
    embed, lstm = parts["embed"], parts["dec_rnn"]["lstm"]  # type: ignore[index]
    predicted, state = lstm(embed(torch.tensor([[blank]])))
    now: Any = (0, 0, (), predicted, state)  # frame, labels at it, what was emitted
    trial, spent, has_failed, failures = None, 0.0, False, 0
    while now[0] < len(frames):
        frame, run, emitted, predicted, state = before = now
        labels = tuple(emission.label for emission in emitted)
        prefix = longest_prefix(terms, labels)
        logits = joint.out(torch.relu(joint.enc(frames[frame]) + joint.pred(predicted[0, 0])))
        duration = config.durations[int(logits[blank + 1 :].argmax())]
        weights, begun = torch.full((blank + 1,), -torch.inf), {}
        for label in range(blank):
            begun[label] = longest_prefix(terms, (*labels, label))
            boosts = [boost for term, boost in terms if term[: len(begun[label])] == begun[label]]
            if begun[label]:
                weights[label] = max(boosts) * _PER_LABEL * len(begun[label])
        best = int(logits[: blank + 1].argmax())
        raised = logits[: blank + 1] + weights
        label = best if has_failed or raised.max() - spent <= logits[best] else int(raised.argmax())
        lacked = float(logits[best] - logits[label])
        has_failed = False
        if label == blank:
            now = (frame + max(duration, 1), 0, emitted, predicted, state)
        else:
            emitted = (*emitted, Emission(label, frame, duration))
            predicted, state = lstm(embed(torch.tensor([[label]])), state)
            advance = duration or int(run + 1 == config.max_symbols)
            now = (frame + advance, 0 if advance else run + 1, emitted, predicted, state)
            if trial is not None:
                has_failed = begun[label] != (*prefix, label)
            elif label != best:
                trial = before
            if not has_failed and any(begun[label] == term for term, _ in terms):
                trial = None
        if trial is not None and (has_failed or now[0] >= len(frames)):
            now, trial, has_failed, failures = trial, None, True, failures + 1
        spent = 0.0 if trial is None else spent + lacked
    return list(now[2]), failures


def shown(streams: list[list[Emission]]) -> list[list[Emission]]:
    """Emissions without their confidence."""
    return [[replace(emission, confidence=None) for emission in stream] for stream in streams]


@pytest.mark.parametrize("seed", range(6))
def test_key_terms_raise_their_own_stream_and_change_nothing_unless_whole(seed: int) -> None:
    config = replace(SIZES, predictor_layers=1 + seed % 2)
    prediction, joint = networks(config, seed)
    joint.out.bias[config.labels] += 1.0
    frames, lengths = torch.randn(6, 60, config.width), torch.tensor([60, 33, 60, 60, 7, 50])
    draw = torch.Generator().manual_seed(seed)
    terms: list[Terms] = [
        [
            (tuple(torch.randint(0, config.labels, (length,), generator=draw).tolist()), 0.4)
            for length in torch.randint(1, 5, (count,), generator=draw)
        ]
        for count in (3, 1, 0, 6, 2)
    ]
    terms.append(terms[0])
    automata = [build(each) if each else None for each in terms[:5]]
    options = [DecodingOptions(terms=each) for each in (*automata, automata[0])]
    alone = [
        one_stream_with_terms(prediction, joint, config, stream[:length], each)
        for stream, length, each in zip(frames, lengths, terms, strict=True)
    ]
    decoder = Decoder(prediction, joint, config)
    found = decoder.decode(frames, lengths, options)
    assert found == [emitted for emitted, _ in alone]
    plain = decoder.decode(frames, lengths)
    assert found[2] == plain[2]
    assert found != plain
    assert sum(failures for _, failures in alone) > 1
    # In other tables, and in others' company.
    assert Decoder(prediction, joint, config).decode(frames[3:4], lengths[3:4], options[3:4]) == found[3:4]
    order = torch.tensor([4, 3, 2, 1, 0, 5])
    again = decoder.decode(frames[order], lengths[order], [options[index] for index in order])
    assert [again[index] for index in order] == found


def decoder_of_logits() -> tuple[Decoder, ModelConfig]:
    """A decoder of whose frames the first numbers are the logits of the labels and the blank; each step takes one."""
    config = replace(SIZES, width=8, predictor_layers=1)
    prediction, joint = networks(config)
    for layer in (joint.enc, joint.pred, joint.out):
        layer.weight.zero_()
        layer.bias.zero_()
    torch.eye(8, out=joint.enc.weight)
    torch.eye(config.labels + 1, out=joint.out.weight[: config.labels + 1, : config.labels + 1])
    joint.out.bias[config.labels + 1 + config.durations.index(1)] = 1.0
    return Decoder(prediction, joint, config), config


@pytest.mark.parametrize(("first", "is_found"), [(0.49, True), (0.51, False)])
def test_the_labels_of_a_term_share_what_they_may_lack(first: float, is_found: bool) -> None:
    decoder, config = decoder_of_logits()
    preferred = 20 * _PER_LABEL
    frames = torch.zeros(1, 6, config.width)
    frames[0, [0, 2, 3, 5], 0] = preferred
    frames[0, [1, 4], config.labels] = preferred  # a blank within the term
    frames[0, [0, 3], 1] = preferred - first * _PER_LABEL
    # More than one label adds, but within the weight of the second one: what the first one lacks decides.
    frames[0, [2, 5], 2] = preferred - 1.5 * _PER_LABEL
    lengths = torch.tensor([6])
    plain = decoder.decode(frames, lengths)
    assert [(emission.label, emission.frame) for emission in plain[0]] == [(0, 0), (0, 2), (0, 3), (0, 5)]
    found = decoder.decode(frames, lengths, [DecodingOptions(terms=build([((1, 2), 1.0)]))])
    if is_found:  # twice: each trial has all of it
        assert [(emission.label, emission.frame) for emission in found[0]] == [(1, 0), (2, 2), (1, 3), (2, 5)]
    else:
        assert found == plain


def test_a_trial_that_fails_at_the_end_of_a_block_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, config = decoder_of_logits()
    preferred = 20 * _PER_LABEL
    frames = torch.zeros(1, _STEPS_PER_CHECK + 2, config.width)
    frames[0, :, config.labels] = preferred  # blanks
    frames[0, [0, _STEPS_PER_CHECK - 1]] = 0.0
    frames[0, 0, :2] = torch.tensor([preferred, preferred - _PER_LABEL / 2])
    frames[0, _STEPS_PER_CHECK - 1, 3] = preferred  # is not what goes on with the term
    lengths = torch.tensor([frames.shape[1]])
    plain = decoder.decode(frames, lengths)
    assert [emission.label for emission in plain[0]] == [0, 3]
    blocks = iter(range(4))
    block = decoder.block
    monkeypatch.setattr(decoder, "block", lambda *args, **kwargs: (next(blocks), block(*args, **kwargs))[1])
    assert decoder.decode(frames, lengths, [DecodingOptions(terms=build([((1, 2), 1.0)]))]) == plain


def test_tables_without_room_are_filled_anew_and_larger_batches_get_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction, joint = networks(SIZES)
    frames, lengths = torch.randn(2, 20, SIZES.width), torch.tensor([20, 20])
    draw = torch.Generator().manual_seed(0)
    automata = [build([(tuple(torch.randint(0, SIZES.labels, (6,), generator=draw).tolist()), 1.0)]) for _ in range(3)]
    batches = [[DecodingOptions(terms=each), DecodingOptions(terms=other)] for each in automata for other in automata]
    expected = [Decoder(prediction, joint, SIZES).decode(frames, lengths, options) for options in batches]
    for rows in (22, 10):  # room for all automata, and for one
        monkeypatch.setattr("parakeet_worker.model.decoder._TERM_BYTES", rows * 10 * (SIZES.labels + 1))
        decoder = Decoder(prediction, joint, SIZES)
        assert len(decoder.tables.scores) == rows
        assert [decoder.decode(frames, lengths, options) for options in batches] == expected


def test_confidence_is_the_scaled_probability_of_what_was_emitted() -> None:
    prediction, joint = networks(SIZES)
    frames, lengths = torch.randn(3, 40, SIZES.width), torch.tensor([40, 40, 21])
    decoder = Decoder(prediction, joint, SIZES)
    plain = decoder.decode(frames, lengths)
    options = [DecodingOptions(has_confidence=has_confidence) for has_confidence in (True, False, True)]
    found = decoder.decode(frames, lengths, options)
    assert shown(found) == plain
    assert found[1] == plain[1]
    logits = torch.randn(9, SIZES.labels + 1)
    label = torch.randint(0, SIZES.labels, (9,))
    probability = logits.softmax(-1)[range(9), label]
    expected = ((probability * 6 - 1) / 5).clamp(0)
    torch.testing.assert_close(decoder.confidence(logits, label), expected)
    confidences = [emission.confidence for emission in (*found[0], *found[2])]
    assert all(each is not None and 0 <= each <= 1 for each in confidences)
    assert len(set(confidences)) > len(confidences) // 2
    # It does not depend on terms, and is lower for a label that these have raised.
    raised = decoder.decode(frames, lengths, [DecodingOptions(True, build([((0,), 9.0), ((1, 2, 3), 9.0)]))] * 3)
    same = {emission.frame: emission for emission in found[0]}
    first = next(emission for emission in raised[0] if same.get(emission.frame) != emission)
    assert min(first.confidence or 0, 0.5) == (first.confidence or 0)
