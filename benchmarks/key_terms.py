"""What key terms find and what they change, beside NeMo's boosting tree, and what they and confidence cost.

    python benchmarks/key_terms.py

- *found*: rare words that are missed in a noisy clip without a key term, and found with it. A word is rare if it is
  said at most twice in the bundled clips.
- *changed*: words of the bundled clips that a hundred terms which nobody says change.
- *cost*: time for 64 recordings of 8 s in one batch, with options beside without, alternating in one run.

NeMo's tree has its own scores, at some weights (`boosting_tree_alpha`, 1 by default). Prints a table, and writes it to
`benchmarks/results/`.
"""

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import kaldialign
import numpy as np
import torch

from bench import HERE, device_name
from parakeet_worker.asr.types import SAMPLE_RATE, DecodingOptions, KeyTerm
from parakeet_worker.model.key_terms import TermCompiler
from parakeet_worker.model.recognizer import PlainRecognizer
from parakeet_worker.model.staging import Staging
from speech import MODEL, Speech, add_noise, load_embedded, plain_words, read_clips
from terms import ABSENT_TERMS

# Noise below the speech, in decibels.
LEVELS_DB = (20, 15, 12, 10, 8)

# Letters of a rare word, at least.
_LETTERS = 5

BOOSTS = (0.5, 0.75, 1.0, 1.5, 2.0)
ALPHAS = (0.3, 1.0, 2.0, 4.0)

Decode = Callable[[Sequence[Speech], Sequence[Sequence[KeyTerm]]], list[str]]
"""Returns the texts of recordings, each with its key terms."""


@dataclass(frozen=True)
class Case:
    """A recording, and a rare word in it that is missed."""

    speech: Speech
    term: str


def rare_words(clips: Sequence[Speech]) -> Iterator[tuple[Speech, str]]:
    """Yield each rare word of the clips as it is written, with its clip."""
    counts = Counter(word for clip in clips for word in plain_words(clip.text))
    for clip in clips:
        for word in clip.text.split():
            term = word.strip(".,?!")
            # Not every vocabulary has a hyphen.
            if term.isalpha() and len(term) >= _LETTERS and counts[term.lower()] <= 2:
                yield clip, term


def is_found(term: str, text: str) -> bool:
    """Return whether a word is in a text."""
    return term.lower() in plain_words(text)


def missed_words(decode: Decode, levels_db: Sequence[float] = LEVELS_DB) -> list[Case]:
    """Return the cases, by clips with noise of some levels: always the same for the same model."""
    draw, clips = np.random.default_rng(3), read_clips()
    noisy = [add_noise(clip, level, draw) for level in levels_db for clip in clips]
    terms: dict[str, list[str]] = {}
    for clip, term in rare_words(clips):
        terms.setdefault(clip.text, []).append(term)
    texts = decode(noisy, [()] * len(noisy))
    return [
        Case(speech, term)
        for speech, text in zip(noisy, texts, strict=True)
        for term in terms.get(speech.text, ())
        if not is_found(term, text)
    ]


def share_found(decode: Decode, cases: Sequence[Case], boost: float = 1.0) -> float:
    """Return the share of the cases whose word is found, if it is a key term."""
    texts = decode([case.speech for case in cases], [[KeyTerm(case.term, boost)] for case in cases])
    return statistics.fmean(is_found(case.term, text) for case, text in zip(cases, texts, strict=True))


def share_changed(decode: Decode, boost: float = 1.0) -> float:
    """Return the share of the words of the clips that these terms change."""
    clips = read_clips()
    terms = [KeyTerm(term, boost) for term in ABSENT_TERMS]
    before, after = (decode(clips, [each] * len(clips)) for each in ((), terms))
    pairs = [(plain_words(one), plain_words(other)) for one, other in zip(before, after, strict=True)]
    changed: int = sum(kaldialign.edit_distance(*pair)["total"] for pair in pairs)
    return changed / sum(len(words) for words, _ in pairs)


def plain_decode(recognizer: PlainRecognizer) -> Decode:
    """Return what decodes with the worker's model."""
    compiler = TermCompiler(recognizer.tokenizer)

    def decode(speech: Sequence[Speech], terms: Sequence[Sequence[KeyTerm]]) -> list[str]:
        options = [DecodingOptions(terms=compiler.compile(each) if each else None) for each in terms]
        return [found.text for found in recognizer.transcribe([each.samples for each in speech], options)]

    return decode


def nemo_decode(model: Any, alpha: float, **tree: float) -> Decode:  # noqa: ANN401 - NeMo is not typed
    """Return what decodes with NeMo's modules, a boosting tree for each recording, and its weight.

    Args:
        model: NeMo's model.
        alpha: The weight of the trees.
        tree: Other values than the default ones of NeMo's `BoostingTreeModelConfig`.
    """
    from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import (
        BoostingTreeModelConfig,
        GPUBoostingTreeModel,
    )
    from nemo.collections.asr.parts.submodules.transducer_decoding.tdt_label_looping import (
        GreedyBatchedTDTLabelLoopingComputer,
    )

    blank = model.tokenizer.vocab_size

    def decode(speech: Sequence[Speech], terms: Sequence[Sequence[KeyTerm]]) -> list[str]:
        search = GreedyBatchedTDTLabelLoopingComputer(
            model.decoder,
            model.joint,
            blank,
            list(model.decoding.durations),
            max_symbols_per_step=10,
            allow_cuda_graphs=False,
            enable_per_stream_biasing=True,
        )
        trees: dict[tuple[str, ...], int] = {(): -1}
        for each in terms:
            texts = tuple(term.text for term in each)
            if texts not in trees:
                config = BoostingTreeModelConfig(key_phrases_list=list(texts), use_triton=False, **tree)
                built = GPUBoostingTreeModel.from_config(config, tokenizer=model.tokenizer)
                trees[texts] = search.biasing_multi_model.add_model(built, alpha=alpha)
        ids = torch.tensor([trees[tuple(term.text for term in each)] for each in terms])
        samples, lengths = Staging(torch.device("cpu")).pad([each.samples for each in speech])
        with torch.inference_mode():
            features, lengths = model.preprocessor(input_signal=samples, length=lengths)
            encoded, lengths = model.encoder(audio_signal=features, length=lengths)
            found, _ = search.torch_impl(encoded.transpose(1, 2), lengths, multi_biasing_ids=ids)
        labels = zip(found.transcript.tolist(), found.current_lengths.tolist(), strict=True)
        return [model.tokenizer.ids_to_text(each[:count]) for each, count in labels]

    return decode


def measure_cost(recognizer: PlainRecognizer, rounds: int = 7) -> dict[str, float]:
    """Return by how much options lengthen a batch of 64 recordings of 8 s, as a share: the median of the rounds."""
    speech = np.concatenate([clip.samples for clip in read_clips()])
    batch = [np.roll(speech, -index * (len(speech) // 64))[: 8 * SAMPLE_RATE] for index in range(64)]
    terms = TermCompiler(recognizer.tokenizer).compile([KeyTerm(term) for term in ABSENT_TERMS])
    kinds = {
        "off": DecodingOptions(),
        "confidence": DecodingOptions(has_confidence=True),
        "100 key terms": DecodingOptions(terms=terms),
        "both": DecodingOptions(has_confidence=True, terms=terms),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds + 1):  # the first one warms up
        for kind, options in kinds.items():
            # The time of this thread, which does all of the work: other processes do not count.
            started = time.thread_time()
            recognizer.transcribe(batch, [options] * len(batch))
            times[kind].append(time.thread_time() - started)
    return {
        kind: statistics.median(one / other for one, other in zip(found[1:], times["off"][1:], strict=True)) - 1
        for kind, found in times.items()
        if kind != "off"
    }


def main() -> None:
    """Measure, print and write everything."""
    from parakeet_worker.nemo.loading import load_model

    recognizer = load_embedded()
    decode = plain_decode(recognizer)
    cases = missed_words(decode)
    rows = {f"worker, boost {b:g}": (share_found(decode, cases, b), share_changed(decode, b)) for b in BOOSTS}
    model = load_model(MODEL, torch.device("cpu"))
    for alpha in ALPHAS:
        theirs = nemo_decode(model, alpha)
        rows[f"NeMo's boosting tree, alpha {alpha:g}"] = share_found(theirs, cases), share_changed(theirs)
    theirs = nemo_decode(model, 1.0)
    speech, terms = [case.speech for case in cases], [[KeyTerm(case.term)] for case in cases]
    equal = statistics.fmean(a == b for a, b in zip(decode(speech, terms), theirs(speech, terms), strict=True))
    cost = measure_cost(recognizer)
    lines = [
        f"{len(cases)} rare words that are missed without a key term, and {len(ABSENT_TERMS)} terms that nobody says",
        "",
        f"{'':34}found  changed",
        *[f"{name:32}{found:7.1%} {changed:8.2%}" for name, (found, changed) in rows.items()],
        "",
        f"With their term {equal:.1%} of these recordings have the text that NeMo's gives with alpha 1.",
        "",
        f"64 recordings of 8 s in one batch take longer on {device_name('cpu')}, one thread, by",
        *[f"{kind:16}{share:6.1%}" for kind, share in cost.items()],
    ]
    print(*lines, sep="\n")
    results = {"cases": len(cases), "rows": rows, "equal": equal, "cost": cost}
    (HERE / "results" / "key-terms.txt").write_text("\n".join(lines) + "\n")
    (HERE / "results" / "key-terms.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
