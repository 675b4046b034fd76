"""From tokens with times to characters, words and segments with times.

The model times tokens: a token starts at an encoder frame and lasts a whole number of frames. The times of characters,
words and segments follow from the tokens, by the same rules as NeMo's (`compute_rnnt_timestamps`).
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from parakeet_worker.asr.types import Token

_SPACE = "▁"  # SentencePiece's mark of a space before a piece

_SENTENCE_ENDS = frozenset(".?!")

# Unicode counts them as punctuation, but people say them.
_SPOKEN_MARKS = frozenset("#%&*/@\\")


@dataclass(frozen=True)
class Span:
    """A part of the transcript with its time, in seconds from the start of the audio."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Timestamps:
    """A transcript at three levels. Spans of one level are in order and do not overlap.

    Attributes:
        words: The transcript, split at spaces.
        segments: Its sentences: words up to one that ends with `.`, `?` or `!`.
        chars: Its characters, spaces among them: span i is character i.
    """

    words: tuple[Span, ...]
    segments: tuple[Span, ...]
    chars: tuple[Span, ...]


@dataclass(frozen=True)
class WordTokens:
    """A word of a transcript, and the tokens that it was made of.

    Attributes:
        text: The word.
        tokens: Its tokens, in order. None where a token before it has the characters of both words.
    """

    text: str
    tokens: tuple[Token, ...]


def group_by_word(text: str, tokens: Sequence[Token]) -> list[WordTokens]:
    """Group the tokens of a transcript by its words, which are split at spaces.

    A token belongs to the word of its first visible character; one that is only a space to the word that follows.

    Args:
        text: The transcript.
        tokens: The tokens that it was made of, in order.
    """
    words = text.split()
    if not words:
        return []
    ends = list(accumulate(map(len, words)))
    grouped: list[list[Token]] = [[] for _ in words]
    position = 0
    for token in tokens:
        grouped[min(bisect_right(ends, position), len(words) - 1)].append(token)
        position += len(visible(token.piece))
    return [WordTokens(word, tuple(group)) for word, group in zip(words, grouped, strict=True)]


def align(text: str, tokens: Sequence[Token], duration: float) -> Timestamps:
    """Compute the times of each character, word and segment of a transcript.

    Args:
        text: The transcript.
        tokens: The tokens that it was made of, in order.
        duration: Length of the audio in seconds, the latest time that is returned.
    """
    chars: list[Span] = []
    words: list[Span] = []
    left: list[Span] = []  # characters of a token that go beyond its word
    for word in group_by_word(text, _settle(tokens, duration)):
        shares = left + [share for token in word.tokens for share in _shares(token)]
        # Every character comes from a token; should one not, it shares the time of the last.
        last = (shares or chars)[-1:] or [Span("", 0.0, 0.0)]
        shares += last * (len(word.text) - len(shares))
        spans = [
            Span(char, share.start, max(share.start, share.end)) for char, share in zip(word.text, shares, strict=False)
        ]
        left = shares[len(word.text) :]
        words.append(Span(word.text, spans[0].start, spans[-1].end))
        chars += spans
    return Timestamps(tuple(words), tuple(_segments(words)), tuple(_with_spaces(text, chars)))


def visible(piece: str) -> str:
    """Return the characters of a token's piece without its spaces."""
    return piece.replace(_SPACE, "")


def is_silent(text: str) -> bool:
    """Return whether a text consists only of punctuation marks that nobody says."""
    return all(unicodedata.category(character).startswith("P") and character not in _SPOKEN_MARKS for character in text)


def _settle(tokens: Sequence[Token], duration: float) -> list[Token]:
    """Move the times of tokens inside the audio and into order, and drop tokens that are only a space.

    A punctuation mark has no sound, and the model may emit it long after the word: it takes the end of the token
    before it. A dropped token's start becomes the start of the next one.
    """
    settled: list[Token] = []
    space_start: float | None = None
    end = 0.0
    for token in tokens:
        shown = visible(token.piece)
        if settled and shown and is_silent(shown):
            settled.append(replace(token, start=end, end=end))
            continue
        start = min(max(token.start if space_start is None else space_start, end), duration)
        if not shown:
            space_start = start
            continue
        space_start = None
        end = min(max(token.end, start), duration)
        settled.append(replace(token, start=start, end=end))
    return settled


def _shares(token: Token) -> Iterator[Span]:
    """Divide a token's time evenly among its characters, without its space."""
    shown = visible(token.piece)
    step = (token.end - token.start) / max(1, len(shown))
    for index, character in enumerate(shown):
        yield Span(character, token.start + index * step, token.start + (index + 1) * step)


def _with_spaces(text: str, chars: Sequence[Span]) -> Iterator[Span]:
    """Yield the spans of all characters of a text; a space fills the gap between its neighbours.

    Args:
        text: The transcript.
        chars: The spans of its characters that are no spaces, in order.
    """
    position = 0
    for character in text:
        if character.isspace():
            start = chars[position - 1].end if position else 0.0
            following = chars[min(position, len(chars) - 1)].start if chars else start
            yield Span(character, start, max(start, following))
        else:
            yield chars[position]
            position += 1


def _segments(words: Sequence[Span]) -> Iterator[Span]:
    """Yield the sentences of a transcript."""
    first = 0
    for index, word in enumerate(words):
        if word.text[-1] in _SENTENCE_ENDS or index == len(words) - 1:
            sentence = words[first : index + 1]
            yield Span(" ".join(w.text for w in sentence), sentence[0].start, sentence[-1].end)
            first = index + 1
