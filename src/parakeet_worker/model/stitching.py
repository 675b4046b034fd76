"""Joining the hypotheses of a long recording's windows to one, as if it had been one pass."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from parakeet_worker.audio.windows import Stretch
from parakeet_worker.model.hypothesis import Hypothesis
from parakeet_worker.model.timestamps import Token, is_silent, visible

# Two windows time the same word within this many seconds of each other: half a short word, a few encoder frames.
_SAME_WORD_S = 0.4

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


def stitch(parts: Iterable[tuple[Stretch, Hypothesis]]) -> Hypothesis:
    """Join the hypotheses of a recording's windows.

    A window gives the words whose middle lies where it is responsible. A word near a seam that both of its windows hear
    has its middle between what they say, so that one of them gives it, and not both or neither.

    Args:
        parts: The windows' places and hypotheses, in order.

    Returns:
        The hypothesis of the recording; of a single window its own.
    """
    listed = list(parts)
    if len(listed) == 1:
        return listed[0][1]
    heard = [_words(hypothesis, stretch.start) for stretch, hypothesis in listed]
    for index, (before, after) in enumerate(pairwise(heard)):
        heard[index], heard[index + 1] = _agree(before, after, listed[index][0].keep_until)
    kept = [
        word
        for (stretch, _), words in zip(listed, heard, strict=True)
        for word in words
        if stretch.keep_from <= word.middle < stretch.keep_until
    ]
    return Hypothesis(" ".join(word.text for word in kept), tuple(token for word in kept for token in word.tokens))


def _agree(before: list[_Word], after: list[_Word], seam: float) -> tuple[list[_Word], list[_Word]]:
    """Give the words near a seam that both windows hear the same middle in both."""
    left = [index for index, word in enumerate(before) if abs(word.middle - seam) < _NEAR_S]
    right = [index for index, word in enumerate(after) if abs(word.middle - seam) < _NEAR_S]
    before, after = list(before), list(after)
    for i, j in _same([before[index] for index in left], [after[index] for index in right]):
        middle = (before[left[i]].middle + after[right[j]].middle) / 2
        before[left[i]] = replace(before[left[i]], middle=middle)
        after[right[j]] = replace(after[right[j]], middle=middle)
    return before, after


def _same(left: list[_Word], right: list[_Word]) -> list[tuple[int, int]]:
    """Pair the words that are the same, in order: as many as can be, and of those the nearest in time."""
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
    """Group the tokens of a hypothesis by the words of its text, and time them from the start of the recording."""
    texts = hypothesis.text.split()
    if not texts:
        return []
    ends = list(accumulate(map(len, texts)))
    grouped: list[list[Token]] = [[] for _ in texts]
    seen = 0
    for token in hypothesis.tokens:
        # A token that is only a space belongs to the word that follows.
        grouped[min(bisect_right(ends, seen), len(texts) - 1)].append(
            Token(token.piece, token.start + start, token.end + start)
        )
        seen += len(visible(token.piece))
    return [_Word(text, tuple(tokens), _middle(tokens)) for text, tokens in zip(texts, grouped, strict=True) if tokens]


def _middle(tokens: list[Token]) -> float:
    # A mark behind a word has no sound, and the model may emit it long after.
    sounds = [token for token in tokens if not is_silent(visible(token.piece))] or tokens
    return (sounds[0].start + sounds[-1].end) / 2


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if not is_silent(character))
