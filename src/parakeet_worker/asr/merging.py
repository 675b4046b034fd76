"""Merging the hypotheses of a long recording's windows to one, as if it had been decoded in one pass."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from unicodedata import category

from parakeet_worker.asr.alignment import CLAUSE_ENDS, SENTENCE_ENDS, group_by_word, is_silent, visible
from parakeet_worker.asr.types import Hypothesis, Token, WindowSpan

# Two windows time the same word within so many seconds of each other: half a short word, five encoder frames.
_SAME_WORD_S = 0.4

# An unknown piece stands for something that was said.
_UNKNOWN = "⁇"

# Words this near to a seam may be on different sides of it in its two windows.
_NEAR_S = 1.0


@dataclass(frozen=True)
class _Word:
    """A word with its tokens, in seconds from the start of the recording.

    Attributes:
        text: The word.
        tokens: Its tokens.
        middle: The middle of its sound.
    """

    text: str
    tokens: tuple[Token, ...]
    middle: float


def merge_windows(windows: Iterable[tuple[WindowSpan, Hypothesis]]) -> Hypothesis:
    """Merge the hypotheses of a recording's windows.

    A window gives the words whose middle lies in its own part. A word near a seam that both windows have gets the mean
    of its two middles in both, so that exactly one of them gives it.

    Punctuation that nobody says and that stands alone joins the word before it, also that of an earlier window. Without
    such a word it is left out.

    Args:
        windows: The windows' spans and hypotheses, in order. Windows without sound may be missing.

    Returns:
        The hypothesis of the recording, timed from its start; without windows, an empty one. A single window's own, as
        it is, if that is the whole recording and none of its punctuation stands alone.
    """
    listed = list(windows)
    if [span for span, _ in listed] == [WindowSpan()] and not any(map(_is_mark, listed[0][1].text.split())):
        return listed[0][1]
    words = [_words(hypothesis, span.start) for span, hypothesis in listed]
    for index, ((before, _), (after, _)) in enumerate(pairwise(listed)):
        if before.keep_until == after.keep_from:
            words[index], words[index + 1] = _agree(words[index], words[index + 1], after.keep_from)
    kept = _join_marks(
        word
        for (span, _), in_window in zip(listed, words, strict=True)
        for word in in_window
        if span.keep_from <= word.middle < span.keep_until
    )
    if kept and _is_mark(kept[0].text):
        del kept[0]
    return Hypothesis(" ".join(word.text for word in kept), tuple(token for word in kept for token in word.tokens))


def _join_marks(words: Iterable[_Word]) -> list[_Word]:
    """Join punctuation that stands alone to the word before it, if there is one.

    It is left out where the word ends with the same, and a comma also where it ends with another mark.
    """
    joined: list[_Word] = []
    for word in words:
        if not (joined and _is_mark(word.text)):
            joined.append(word)
        elif not _is_superfluous(word.text, joined[-1].text):
            before = joined[-1]
            marks = (replace(token, piece=visible(token.piece)) for token in word.tokens)
            tokens = before.tokens + tuple(token for token in marks if token.piece)
            joined[-1] = replace(before, text=before.text + word.text, tokens=tokens)
    return joined


def _is_superfluous(mark: str, word: str) -> bool:
    """Return whether a mark has nothing to add to the word before it; see `_join_marks`."""
    # At a seam one window may end a sentence where the next goes on: `reason.` and `,`.
    return word.endswith(mark) or (mark in CLAUSE_ENDS and word[-1] in SENTENCE_ENDS | CLAUSE_ENDS)


def _agree(before: list[_Word], after: list[_Word], seam: float) -> tuple[list[_Word], list[_Word]]:
    """Set the middle of each word near a seam that both windows have to the mean of the two.

    Args:
        before: Words of the window before the seam.
        after: Words of the window behind it.
        seam: Where the windows' own parts meet, in seconds from the start of the recording.
    """
    left = [index for index, word in enumerate(before) if abs(word.middle - seam) < _NEAR_S]
    right = [index for index, word in enumerate(after) if abs(word.middle - seam) < _NEAR_S]
    before, after = list(before), list(after)
    for i, j in _same([before[index] for index in left], [after[index] for index in right]):
        middle = (before[left[i]].middle + after[right[j]].middle) / 2
        before[left[i]] = replace(before[left[i]], middle=middle)
        after[right[j]] = replace(after[right[j]], middle=middle)
    return before, after


def _same(left: list[_Word], right: list[_Word]) -> list[tuple[int, int]]:
    """Return pairs of indices of the same words, in order: as many pairs as possible, the nearest in time of those."""
    # best[i][j]: number of pairs, minus their distances, and the pairs, among the first i and the first j words.
    best: list[list[tuple[float, list[tuple[int, int]]]]] = [
        [(0.0, [])] * (len(right) + 1) for _ in range(len(left) + 1)
    ]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            choices = [best[i][j + 1], best[i + 1][j]]
            distance = abs(a.middle - b.middle)
            if distance < _SAME_WORD_S and _letters(a.text) == _letters(b.text):
                score, pairs = best[i][j]
                choices.append((score + 1 - distance, [*pairs, (i, j)]))
            best[i + 1][j + 1] = max(choices, key=lambda choice: choice[0])
    return best[-1][-1][1]


def _words(hypothesis: Hypothesis, start: float) -> list[_Word]:
    """Return the words of a window's hypothesis, timed from the start of the recording, with their punctuation.

    Only the first one may be punctuation that stands alone.

    Args:
        hypothesis: The window's hypothesis.
        start: Where the window starts, in seconds from the start of the recording.
    """
    words: list[_Word] = []
    middle = start  # A word without tokens of its own shares those of the word before it.
    for word in group_by_word(hypothesis.text, hypothesis.tokens):
        moved = tuple(replace(token, start=token.start + start, end=token.end + start) for token in word.tokens)
        middle = _middle(moved) if moved else middle
        words.append(_Word(word.text, moved, middle))
    return _join_marks(words)


def _middle(tokens: tuple[Token, ...]) -> float:
    # A mark behind a word has no sound, and the model may emit it long after.
    sounds = [token for token in tokens if not is_silent(visible(token.piece))] or tokens
    return (sounds[0].start + sounds[-1].end) / 2


def _is_mark(text: str) -> bool:
    # A dash between words stands alone in writing, too.
    return is_silent(text) and _UNKNOWN not in text and not all(category(each) == "Pd" for each in text)


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if not is_silent(character))
