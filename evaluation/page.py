"""One HTML page with the worst utterances of an evaluation, to be read and listened to without a network.

The page holds all that it shows. Of a recording of more than a minute, it shows the minute with the most errors.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from excerpt import Excerpt, Kind, ScoredPair, choose_excerpt, kind_of
from figures import counted
from page_audio import compress, is_remote, read_samples
from parakeet_worker.asr.types import SAMPLE_RATE
from parakeet_worker.errors import JobError
from results import Outcome, without_secrets
from scoring import Pair, align
from word_lanes import clock, draw

_TEMPLATE = Path(__file__).with_name("page.html")
_SCRIPT = Path(__file__).with_name("page.js")

# Most characters of audio on a page, in base64: about 40 minutes. Utterances beyond it are shown without theirs.
_AUDIO_CHARACTERS = 13_000_000

_LEGEND = """\
<p class="muted legend">The texts are as they are scored, after normalisation: <span class="sub">another word</span>
<span class="del">word missing</span> <span class="ins">word added</span>. Click on a word or in
the waveform to hear what is said there; the Tab key goes from error to error, and Enter plays it. Under the waveform
are the words of the reference (Ref) and of the hypothesis (Hyp), each with a bar from its start to its end, and a band
between two that are scored together.</p>"""

_NO_SAMPLES = np.zeros(0, np.float32)


@dataclass(frozen=True)
class _Utterance:
    """A transcribed utterance with its score.

    Attributes:
        outcome: What came of it.
        pairs: The alignment of its reference and its hypothesis.
        errors: How many errors it has, by their kind.
        words: The number of words of the reference.
    """

    outcome: Outcome
    pairs: Sequence[Pair]
    errors: Counter[Kind]
    words: int

    @property
    def rank(self) -> tuple[float, float, str]:
        """The place in the order of the page: more errors first, then the higher rate."""
        count = self.errors.total()
        return -count, -count / max(self.words, 0.5), self.outcome.id


def write_page(
    path: Path, outcomes: Sequence[Outcome], title: str, facts: Sequence[tuple[str, str]], worst: int = 20
) -> None:
    """Write the page.

    The utterances with the most errors come first; of those with as many, the one with the higher error rate. For the
    same outcomes and recordings the page is the same.

    Args:
        path: The HTML file.
        outcomes: What the evaluation gave. Those that failed are listed with code and message, all of them.
        title: What was evaluated.
        facts: Names and values of what is to be known of the whole, such as the word error rate.
        worst: The most utterances that are shown. Those without errors are not.

    Raises:
        OSError: The file cannot be written.
    """
    utterances = [_score(outcome) for outcome in outcomes if outcome.hypothesis is not None]
    failed = [outcome for outcome in outcomes if outcome.hypothesis is None]
    wrong = sorted((each for each in utterances if each.errors.total()), key=lambda each: each.rank)
    script = _SCRIPT.read_text()
    page = Template(_TEMPLATE.read_text()).substitute(
        title=escape(title),
        facts=_facts(facts),
        utterances=_utterances(wrong, len(utterances), worst),
        failures=_failures(failed),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )
    # A transcript can contain half of a surrogate pair, which is no character.
    path.write_bytes(page.encode("utf-8", "replace"))


def _score(outcome: Outcome) -> _Utterance:
    pairs = align(outcome.reference, outcome.hypothesis or "")
    kinds = Counter(map(kind_of, pairs))
    words = kinds.total() - kinds[Kind.INSERTED]
    return _Utterance(outcome, pairs, Counter({kind: kinds[kind] for kind in Kind if kind is not Kind.CORRECT}), words)


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    entries = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{entries}</dl>' if entries else ""


def _utterances(wrong: Sequence[_Utterance], transcribed: int, worst: int) -> str:
    """Return the section of the utterances with errors, which are in the order of the page."""
    if not wrong:
        return f"<h2>Errors</h2>\n<p>{counted(transcribed, 'utterance')} transcribed, none with an error.</p>"
    shown = wrong[:worst]
    cards, left = [], _AUDIO_CHARACTERS
    for place, utterance in enumerate(shown, 1):
        card, used = _card(place, utterance, left)
        cards.append(card)
        left -= used
    which = "All of them are below" if len(shown) == len(wrong) else f"The worst {len(shown)} are below"
    return (
        f"<h2>Worst utterances</h2>\n<p>{len(wrong)} of {counted(transcribed, 'utterance')} have errors. {which}: "
        "those with the most errors first, and of those with as many, the one with the higher error rate.</p>\n"
        f"{_LEGEND}\n" + "\n".join(cards)
    )


def _card(place: int, utterance: _Utterance, left: int) -> tuple[str, int]:
    """Return what is shown of an utterance, and how many characters of audio are in it.

    Args:
        place: Its place on the page, from 1.
        utterance: The utterance.
        left: The most characters of audio.
    """
    outcome = utterance.outcome
    excerpt = choose_excerpt(outcome, utterance.pairs)
    samples, audio, note = _audio(outcome, excerpt, left)
    stretch = "" if excerpt.is_whole else f'<p class="muted">{_stretch(excerpt, utterance.errors.total())}</p>\n'
    card = (
        f'<article>\n<div class="counts"><h3>{place}. {escape(without_secrets(outcome.id))}</h3>'
        f"<p>{_counts(utterance)}</p></div>\n{stretch}{_diff(excerpt)}\n{note}"
        f"{draw(outcome, excerpt, samples, SAMPLE_RATE)}\n{_texts(outcome) if excerpt.is_whole else ''}</article>"
    )
    return card, audio


def _counts(utterance: _Utterance) -> str:
    """Return an utterance's errors in words."""
    names = {Kind.SUBSTITUTED: "substituted", Kind.DELETED: "missing", Kind.INSERTED: "added"}
    kinds = ", ".join(f"{utterance.errors[kind]} {name}" for kind, name in names.items() if utterance.errors[kind])
    count = utterance.errors.total()
    if not utterance.words:
        return f"<strong>{counted(count, 'error')}</strong> ({kinds}); the reference has no words"
    rate = f"{100 * count / utterance.words:.1f} %"
    return f"<strong>{counted(count, 'error')}</strong> ({kinds}) in {counted(utterance.words, 'word')}: {rate}"


def _stretch(excerpt: Excerpt, errors: int) -> str:
    where = f"{clock(excerpt.start)} to {clock(excerpt.end)}"
    return f"Shown is {where}, with {excerpt.errors} of {errors} errors."


def _diff(excerpt: Excerpt) -> str:
    """Return the normalised texts beside each other, with the errors marked."""
    columns = []
    for name, is_reference in (("Reference", True), ("Hypothesis", False)):
        words = " ".join(_diff_word(pair, excerpt, is_reference=is_reference) for pair in excerpt.pairs)
        if not excerpt.is_whole:
            words = f"… {words} …"
        columns.append(f"<div><h4>{name}</h4><p>{words}</p></div>")
    return f'<div class="diff">{"".join(columns)}</div>'


def _diff_word(pair: ScoredPair, excerpt: Excerpt, *, is_reference: bool) -> str:
    """Return one side of a pair, or a mark where it has no word. The errors can be reached with the keyboard."""
    word = pair.reference if is_reference else pair.hypothesis
    styles = [] if pair.kind is Kind.CORRECT else [str(pair.kind)]
    attributes = f'data-p="{pair.number}"'
    if excerpt.has_times:
        attributes += f' data-t="{max(0.0, pair.at - excerpt.start):.3f}"'
    if word is None:
        return f'<span class="{" ".join([*styles, "gap"])}" {attributes} aria-label="no word"></span>'
    if styles:
        attributes += f' class="{styles[0]}"'
        if excerpt.has_times:
            attributes += ' tabindex="0" role="button"'
    return f"<span {attributes}>{escape(word)}</span>"


def _audio(outcome: Outcome, excerpt: Excerpt, left: int) -> tuple[NDArray[np.float32], int, str]:
    """Return an excerpt's samples, the characters that its audio takes, and the player or why there is none."""
    if is_remote(outcome.audio):
        shown = without_secrets(outcome.audio)
        link = escape(shown)
        # A link with the signature of a storage is not for everyone who is shown the page.
        if shown == outcome.audio:
            link = f'<a href="{link}" rel="noreferrer">{link}</a>'
        return _NO_SAMPLES, 0, f'<p class="muted">The audio is not on this page: {link}</p>\n'
    try:
        samples = read_samples(outcome.audio, excerpt.start, excerpt.end)
    except JobError as error:
        return _NO_SAMPLES, 0, _without_audio(error.message)
    except OSError as error:
        return _NO_SAMPLES, 0, _without_audio(error.strerror or "the file cannot be read")
    if not len(samples):
        return _NO_SAMPLES, 0, _without_audio("the recording ends before this stretch")
    audio = base64.b64encode(compress(samples)).decode()
    if len(audio) > left:
        return samples, 0, _without_audio("the page has as much as it may have")
    return samples, len(audio), f'<audio controls preload="metadata" src="data:audio/ogg;base64,{audio}"></audio>\n'


def _without_audio(reason: str) -> str:
    return f'<p class="muted">There is no audio here: {escape(reason)}.</p>\n'


def _texts(outcome: Outcome) -> str:
    """Return the texts before normalisation."""
    return (
        f"<details><summary>Texts before normalisation</summary><h4>Reference</h4><p>{escape(outcome.reference)}</p>"
        f"<h4>Hypothesis</h4><p>{escape(outcome.hypothesis or '')}</p></details>\n"
    )


def _failures(failed: Sequence[Outcome]) -> str:
    """Return the section of the utterances without a transcript, in the order of the evaluation."""
    if not failed:
        return ""
    causes = [(outcome.error.code, outcome.error.message) if outcome.error else ("", "") for outcome in failed]
    codes = Counter(code for code, _ in causes).most_common()
    rows = "\n".join(
        f"<tr><td>{escape(without_secrets(outcome.id))}</td><td>{escape(code)}</td><td>{escape(message)}</td></tr>"
        for outcome, (code, message) in zip(failed, causes, strict=True)
    )
    return (
        f"<h2>Failed utterances</h2>\n<p>{counted(len(failed), 'utterance')} without a transcript: "
        f"{', '.join(f'{count} {escape(code)}' for code, count in codes)}.</p>\n"
        f'<div class="failed"><table>\n<tr><th>Utterance</th><th>Code</th><th>Message</th></tr>\n{rows}\n</table></div>'
    )
