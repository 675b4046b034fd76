"""Key terms as an automaton over labels, which says what labels of a stream are raised, and by how much.

It is NeMo's boosting tree (`nemo.collections.asr.parts.context_biasing`), which follows Icefall's context graph: the
labels of all terms form a trie with failure links (Aho-Corasick). A label that begins a term, or goes on with one, is
raised. The weight of a label is what it and the labels of the term before it may lack together, in logits, to what the
model prefers. What they have lacked so far is taken from it, see `decoder.TermStreams`. So one label of a term may be
quite unlikely, if the others are not.

In a beam search, what was given for a term that is not finished is taken back from the score of that hypothesis, so
that another one wins. A greedy search has no other: NeMo's takes back the score, and keeps the labels. The decoder here
takes back the labels, so that nothing needs to be taken from scores.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from parakeet_worker.asr.types import CompiledTerms, KeyTerm, UncoveredTermError
from parakeet_worker.model.tokenizer import Tokenizer

# What a term of the usual weight may lack in logits for each of its labels. Less finds fewer terms, more begins to hear
# terms that were not said, and tries more of them in vain, which takes time; see `benchmarks/key_terms.py`.
_PER_LABEL = 2.5

# Automata that are kept. A hundred long terms have some thousand arcs of 17 bytes.
_KEPT = 256


@dataclass(frozen=True, eq=False)
class TermAutomaton(CompiledTerms):
    """The automaton of some terms.

    S is the number of states; state 0 is outside of all terms. A is the number of arcs. There is one at most for a
    state and a label. A label without an arc does what it does in state 0: there most are not raised, and lead back to
    it. Two automata are equal only if they are the same object.

    Attributes:
        states: Where each arc starts, (A,) int32.
        labels: Its label, (A,) int32.
        targets: Where it leads, (A,) int32.
        weights: What its label and those before it may lack together, in logits, (A,) float32.
        continues: Whether it goes on with the terms that its state is within, (A,) bool. The others begin anew.
        ends: Whether a term ends in a state, (S,) bool.
    """

    states: NDArray[np.int32]
    labels: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    continues: NDArray[np.bool_]
    ends: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of states."""
        return len(self.ends)


@dataclass
class _Node:
    """A state while the automaton is built.

    Attributes:
        weight: What the labels that lead here may lack together, in logits.
        is_end: Whether a term ends here.
        children: Where the labels lead that go on.
        arcs: The same, and where labels lead that go on with an end of what led here.
    """

    weight: float = 0.0
    is_end: bool = False
    children: dict[int, int] = field(default_factory=dict)
    arcs: dict[int, int] = field(default_factory=dict)


def build(terms: Iterable[tuple[Sequence[int], float]]) -> TermAutomaton:
    """Build the automaton of terms.

    Args:
        terms: The labels of each, at least one, and its weight, usually 1. What terms share has the largest of theirs.
    """
    nodes = [_Node()]
    for labels, weight in terms:
        node = nodes[0]
        for place, label in enumerate(labels):
            if label not in node.children:
                node.children[label] = len(nodes)
                nodes.append(_Node())
            node = nodes[node.children[label]]
            node.weight = max(node.weight, weight * _PER_LABEL * (place + 1))
        node.is_end = True

    # From short to long. A failure link leads to the node of the longest end of the labels that led to a node.
    reached = [(0, 0)]
    for index, failure in reached:
        node = nodes[index]
        node.arcs = (nodes[failure].arcs if failure else {}) | node.children
        begun = nodes[0].children | nodes[failure].arcs if index else {}
        reached += [(child, begun.get(label, 0)) for label, child in node.children.items()]

    arcs = [(state, label, target) for state, node in enumerate(nodes) for label, target in node.arcs.items()]
    states, labels_, targets = np.array(arcs, np.int32).T
    return TermAutomaton(
        states,
        labels_,
        targets,
        weights=np.array([nodes[target].weight for *_, target in arcs], np.float32),
        continues=np.array([label in nodes[state].children for state, label, _ in arcs]),
        ends=np.array([node.is_end for node in nodes]),
    )


class TermCompiler:
    """Compiles key terms to automata, and keeps the latest ones. Safe on any thread.

    Args:
        tokenizer: The model's tokenizer.
        kept: Number of automata that are kept.
    """

    def __init__(self, tokenizer: Tokenizer, kept: int = _KEPT) -> None:
        self._tokenizer = tokenizer
        self._kept = kept
        self._automata: OrderedDict[frozenset[KeyTerm], TermAutomaton] = OrderedDict()
        self._lock = Lock()

    def compile(self, terms: Sequence[KeyTerm]) -> TermAutomaton:
        """Return the automaton of terms: as long as it is kept, the same object for the same terms in any order.

        Args:
            terms: The terms, at least one.

        Raises:
            UncoveredTermError: A term cannot be written with the tokenizer's pieces.
        """
        key = frozenset(terms)
        with self._lock:
            if key in self._automata:
                self._automata.move_to_end(key)
                return self._automata[key]
        automaton = build((self._labels(term.text), term.boost) for term in terms)
        with self._lock:
            automaton = self._automata.setdefault(key, automaton)
            while len(self._automata) > self._kept:
                self._automata.popitem(last=False)
        return automaton

    def _labels(self, text: str) -> list[int]:
        labels = self._tokenizer.labels(text)
        if not labels:
            raise UncoveredTermError(text)
        return labels
