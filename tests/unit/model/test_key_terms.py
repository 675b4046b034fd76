"""The automaton of key terms beside a search through the terms themselves."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from parakeet_worker.asr.types import KeyTerm, UncoveredTermError
from parakeet_worker.model.key_terms import _PER_LABEL, TermAutomaton, TermCompiler, build
from parakeet_worker.model.tokenizer import Tokenizer
from project import MODEL_DIR

Term = tuple[tuple[int, ...], float]
LABELS = range(4)


def arcs_of(automaton: TermAutomaton) -> dict[tuple[int, int], tuple[int, float, bool]]:
    """The target, the weight, and whether the term goes on, by state and label."""
    keys = list(zip(automaton.states.tolist(), automaton.labels.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    values = zip(automaton.targets.tolist(), automaton.weights.tolist(), automaton.continues.tolist(), strict=True)
    return dict(zip(keys, values, strict=True))


def budget(count: int) -> float:
    """What so many labels of a term of the usual weight may lack together."""
    return _PER_LABEL * count


def longest_prefix(terms: Sequence[Term], history: tuple[int, ...]) -> tuple[int, ...]:
    """The longest end of what was emitted that a term begins with."""
    ends = (history[start:] for start in range(len(history) + 1))
    return next(end for end in ends if any(labels[: len(end)] == end for labels, _ in terms))


@pytest.mark.parametrize("seed", range(20))
def test_labels_that_begin_a_term_or_go_on_with_one_are_raised(seed: int) -> None:
    draw = random.Random(seed)
    terms: list[Term] = [
        (tuple(draw.choices(LABELS[:3], k=draw.randint(1, 5))), draw.choice([0.5, 1.0, 2.5]))
        for _ in range(draw.randint(1, 6))
    ]
    automaton = build(terms)
    arcs = arcs_of(automaton)
    for _ in range(30):
        state = 0
        history: tuple[int, ...] = ()
        for label in draw.choices(LABELS, k=12):
            before = longest_prefix(terms, history)
            history = (*history, label)
            after = longest_prefix(terms, history)
            begun = [weight for labels, weight in terms if labels[: len(after)] == after]
            begins = (*arcs.get((0, label), (0, 0.0))[:2], False)
            state, weight, continues = arcs.get((state, label), begins if state else (0, 0.0, False))
            assert weight == pytest.approx(max(begun) * budget(len(after)) if after else 0)
            assert continues == (after == (*before, label))
            assert automaton.ends[state] == any(labels == after for labels, _ in terms)
            assert bool(state) == bool(after)


def test_terms_share_what_they_begin_with() -> None:
    automaton = build([((1, 2, 3), 1.0), ((1, 2), 2.0), ((1, 2, 3, 4), 0.5)])
    assert len(automaton) == 5
    assert automaton.ends.tolist() == [False, False, True, True, True]
    weights = {label: weight for (_, label), (_, weight, goes_on) in arcs_of(automaton).items() if goes_on}
    assert weights == pytest.approx({1: 2 * budget(1), 2: 2 * budget(2), 3: budget(3), 4: budget(4) / 2})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer((MODEL_DIR / "tokenizer" / "tokenizer.model").read_bytes())


def test_a_term_is_what_begins_a_word(tokenizer: Tokenizer) -> None:
    automaton = TermCompiler(tokenizer).compile([KeyTerm("Tea orchids", 3.0)])
    labels = automaton.labels[automaton.continues].tolist()
    assert tokenizer.text(labels) == "Tea orchids"
    assert tokenizer.pieces(labels)[0].startswith("▁")
    expected = [3 * budget(count) for count in range(1, len(labels) + 1)]
    assert automaton.weights[automaton.continues].tolist() == pytest.approx(expected)


def test_the_same_terms_are_compiled_once(tokenizer: Tokenizer) -> None:
    compiler = TermCompiler(tokenizer, kept=2)
    first = compiler.compile([KeyTerm("tongue"), KeyTerm("suit", 2.0)])
    assert compiler.compile((KeyTerm("suit", 2.0), KeyTerm("tongue"))) is first
    assert compiler.compile([KeyTerm("tongue"), KeyTerm("suit")]) is not first
    assert compiler.compile([KeyTerm("tongue"), KeyTerm("suit", 2.0)]) is first
    compiler.compile([KeyTerm("shrub")])
    assert compiler.compile([KeyTerm("tongue"), KeyTerm("suit", 2.0)]) is first  # it was used last
    compiler.compile([KeyTerm("red")])
    compiler.compile([KeyTerm("edge")])
    assert compiler.compile([KeyTerm("tongue"), KeyTerm("suit", 2.0)]) is not first


def test_many_threads_get_the_same_object(tokenizer: Tokenizer) -> None:
    compiler = TermCompiler(tokenizer)
    terms = [KeyTerm(f"term {index}".replace(str(index), "abcdefghij"[index])) for index in range(10)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: compiler.compile(terms), range(64)))
    assert all(each is found[0] for each in found)


@pytest.mark.parametrize("text", ["東京", "tongue ☂", "é", " ", "\u200b"])
def test_a_term_that_the_pieces_do_not_cover_is_named(tokenizer: Tokenizer, text: str) -> None:
    compiler = TermCompiler(tokenizer)
    with pytest.raises(UncoveredTermError) as error:
        compiler.compile([KeyTerm("tongue"), KeyTerm(text)])
    assert error.value.term == text
