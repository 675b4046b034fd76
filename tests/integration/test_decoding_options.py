"""Confidence and key terms with the real model, beside NeMo's modules on the same weights."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import confidence
import key_terms
from cpu import CPU
from parakeet_worker.asr.types import DecodingOptions, KeyTerm
from parakeet_worker.model.key_terms import TermCompiler
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.model.staging import Staging
from parakeet_worker.nemo.loading import load_model
from project import MODEL_DIR
from speech import Speech, add_noise, read_clips
from terms import ABSENT_TERMS

TERMS = ("Tea", "terrestrial orchids", "orchid", "Old World", "attractive", "world", "orange", "or", "tropical trees")


@pytest.fixture(scope="module")
def nemo() -> Any:
    return load_model(MODEL_DIR, CPU.device)


@pytest.fixture(scope="module")
def noisy() -> list[Speech]:
    draw = np.random.default_rng(0)
    return [add_noise(clip, 15, draw) for clip in read_clips()]


@pytest.fixture(scope="module")
def compiler(recognizer: PlainRecognizer) -> TermCompiler:
    return TermCompiler(recognizer.tokenizer)


def test_confidence_is_nemos(recognizer: PlainRecognizer, nemo: Any, noisy: list[Speech]) -> None:
    from nemo.collections.asr.parts.submodules.transducer_decoding.tdt_label_looping import (
        GreedyBatchedTDTLabelLoopingComputer,
    )

    search = GreedyBatchedTDTLabelLoopingComputer(
        nemo.decoder,
        nemo.joint,
        nemo.tokenizer.vocab_size,
        list(nemo.decoding.durations),
        max_symbols_per_step=10,
        preserve_step_confidence=True,
        exclude_blank_from_confidence=True,
        confidence_method_cfg={"name": "max_prob", "alpha": 1.0},
        allow_cuda_graphs=False,
    )
    batch = [each.samples for each in noisy[:12]]
    samples, lengths = Staging(CPU.device).pad(batch)
    with torch.inference_mode():
        features, lengths = nemo.preprocessor(input_signal=samples, length=lengths)
        encoded, lengths = nemo.encoder(audio_signal=features, length=lengths)
        expected, _ = search.torch_impl(encoded.transpose(1, 2), lengths)
    found = recognizer.transcribe(batch, [DecodingOptions(has_confidence=True)] * len(batch))
    counts = expected.current_lengths.tolist()
    assert [len(each.tokens) for each in found] == counts
    ours = [token.confidence for each in found for token in each.tokens]
    theirs = [float(one) for each, count in zip(expected.step_confidence, counts, strict=True) for one in each[:count]]
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert min(theirs) < 0.5 < 0.99 < max(theirs)


def test_the_automaton_is_nemos_tree(compiler: TermCompiler, nemo: Any) -> None:
    from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import (
        BoostingTreeModelConfig,
        GPUBoostingTreeModel,
    )

    config = BoostingTreeModelConfig(key_phrases_list=list(TERMS), use_triton=False)
    tree = GPUBoostingTreeModel.from_config(config, tokenizer=nemo.tokenizer)
    automaton = compiler.compile([KeyTerm(term) for term in TERMS])
    arcs = dict(
        zip(
            zip(automaton.states.tolist(), automaton.labels.tolist(), strict=True),
            automaton.targets.tolist(),
            strict=True,
        )
    )
    _, expected = tree.advance(torch.arange(tree.num_states))
    # The states of both, in the order of a search from the first. The weights are not NeMo's: here labels share them.
    names, queue = {0: 0}, [0]
    for ours in queue:
        for label, theirs in enumerate(expected[names[ours]].tolist()):
            target = arcs.get((ours, label), arcs.get((0, label), 0))
            if target not in names:
                names[target] = theirs
                queue.append(target)
            assert names[target] == theirs
    assert len(names) == len(automaton) == tree.num_states > 20


def test_half_of_the_rare_words_that_are_missed_are_found_with_their_term(
    recognizer: PlainRecognizer, nemo: Any
) -> None:
    decode = key_terms.plain_decode(recognizer)
    cases = key_terms.missed_words(decode, levels_db=(14, 10, 6, 3, 0))
    assert len(cases) >= 30
    found = key_terms.share_found(decode, cases[:30])
    assert found >= 0.5
    assert found >= key_terms.share_found(key_terms.nemo_decode(nemo, 1.0), cases[:30])


def test_a_hundred_terms_that_do_not_occur_change_next_to_nothing(recognizer: PlainRecognizer) -> None:
    assert len(ABSENT_TERMS) == 100
    assert key_terms.share_changed(key_terms.plain_decode(recognizer)) < 0.005


def test_words_of_little_confidence_are_wrong_three_times_as_often(
    recognizer: PlainRecognizer, noisy: list[Speech]
) -> None:
    words = confidence.measure(recognizer, [*noisy, *read_clips()])
    assert len(words) > 500
    assert confidence.separation(words, confidence.WAYS["mean"]) >= 3


def test_a_window_gets_what_it_asks_for_and_what_it_gets_alone(
    recognizer: PlainRecognizer, compiler: TermCompiler, noisy: list[Speech]
) -> None:
    batch = [each.samples for each in noisy[:6]]
    wrong, right = compiler.compile([KeyTerm("suit", 5.0)]), compiler.compile([KeyTerm("tongue"), KeyTerm("reason")])
    options = [
        DecodingOptions(terms=right),
        DecodingOptions(),
        DecodingOptions(has_confidence=True),
        DecodingOptions(terms=wrong),
        DecodingOptions(has_confidence=True, terms=wrong),
        DecodingOptions(),
    ]
    found, without = recognizer.transcribe(batch, options), recognizer.transcribe(batch)
    for hypothesis, plain, each in zip(found, without, options, strict=True):
        assert all((token.confidence is not None) == each.has_confidence for token in hypothesis.tokens)
        if each.terms is None:
            tokens = tuple(replace(token, confidence=None) for token in hypothesis.tokens)
            assert (hypothesis.text, tokens) == (plain.text, plain.tokens)
    assert found != without
    for index, each in enumerate(options):
        (alone,) = recognizer.transcribe(batch[index : index + 1], [each])
        assert (alone.text, [token.start for token in alone.tokens]) == (
            found[index].text,
            [token.start for token in found[index].tokens],
        )


def test_as_many_terms_as_a_request_may_have(recognizer: PlainRecognizer, compiler: TermCompiler) -> None:
    draw = np.random.default_rng(0)
    letters = [*"abcdefghijklmnoprstuvwy"]
    terms = compiler.compile([KeyTerm("".join(draw.choice(letters, 60))) for _ in range(100)])
    assert len(terms) > 3_000
    batch = [each.samples for each in read_clips()[:2]]
    found = recognizer.transcribe(batch, [DecodingOptions(terms=terms), DecodingOptions()])
    assert [each.text for each in found] == [each.text for each in recognizer.transcribe(batch)]
