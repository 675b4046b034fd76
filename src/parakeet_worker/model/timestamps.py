"""From tokens with times to characters, words and segments with times.

The model times tokens: a token starts at an encoder frame and lasts a whole number of frames. Everything else follows
from which token each character of the text came from, by the same rules as NeMo's (`compute_rnnt_timestamps`).
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SPACE = "▁"
"""SentencePiece's mark of a space before a piece."""

SENTENCE_ENDS = frozenset(".?!")

# Unicode counts them as punctuation, but people say them.
_SPOKEN_MARKS = frozenset("#%&*/@\\")


@dataclass(frozen=True)
class Token:
    """A token of a hypothesis.

    Attributes:
        piece: Its SentencePiece text, such as `▁the` or `ing`.
        start: When it starts, in seconds.
        end: When it ends, in seconds.
    """

    piece: str
    start: float
    end: float


@dataclass(frozen=True)
class Span:
    """A piece of the transcript with its time, in seconds from the start of the audio."""

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


def align(text: str, tokens: Sequence[Token], duration: float) -> Timestamps:
    """Give each character, word and sentence of a transcript its time.

    Args:
        text: The transcript.
        tokens: The tokens that it was made of, in order.
        duration: Length of the audio in seconds, which no time passes.
    """
    chars = _chars(text, _settle(tokens, duration))
    words = tuple(_join(chars[start:end]) for start, end in _runs(text))
    segments: list[Span] = []
    first = 0
    for index, word in enumerate(words):
        if word.text[-1] in SENTENCE_ENDS or index == len(words) - 1:
            sentence = words[first : index + 1]
            segments.append(Span(" ".join(w.text for w in sentence), sentence[0].start, sentence[-1].end))
            first = index + 1
    return Timestamps(words, tuple(segments), chars)


def _settle(tokens: Sequence[Token], duration: float) -> list[Token]:
    """Put tokens where their sound is, inside the audio and in order.

    A punctuation mark has no sound, and the model may emit it long after the word: it takes the end of the token
    before it. A token that is only a space leaves its time to the next one.
    """
    settled: list[Token] = []
    space_start: float | None = None
    end = 0.0
    for token in tokens:
        shown = visible(token.piece)
        if settled and shown and is_silent(shown):
            settled.append(Token(token.piece, end, end))
            continue
        start = min(max(token.start if space_start is None else space_start, end), duration)
        if not shown:
            space_start = start
            continue
        space_start = None
        end = min(max(token.end, start), duration)
        settled.append(Token(token.piece, start, end))
    return settled


def visible(piece: str) -> str:
    """Return what a token's piece adds to the text beside spaces."""
    return piece.replace(SPACE, "")


def is_silent(text: str) -> bool:
    """Say whether a text is made of punctuation marks alone, which nobody says."""
    return all(unicodedata.category(character).startswith("P") and character not in _SPOKEN_MARKS for character in text)


def _chars(text: str, tokens: Sequence[Token]) -> tuple[Span, ...]:
    """Time the characters of a text; a space fills the gap between its neighbours."""
    shown = [span for token in tokens for span in _shares(token)]
    # Every character but a space comes from a token; should one not, it shares the time of the last.
    shown += shown[-1:] * (len(text) - len(shown))
    spans: list[Span] = []
    position = 0
    for character in text:
        span = shown[position]
        if character.isspace():
            span = Span(character, shown[position - 1].end if position else 0.0, span.start)
        else:
            position += 1
        spans.append(Span(character, span.start, max(span.start, span.end)))
    return tuple(spans)


def _shares(token: Token) -> Iterator[Span]:
    """Share a token's time evenly among its characters, its space left out."""
    shown = visible(token.piece)
    step = (token.end - token.start) / max(1, len(shown))
    for index, character in enumerate(shown):
        yield Span(character, token.start + index * step, token.start + (index + 1) * step)


def _runs(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) positions of the words of a text."""
    runs: list[tuple[int, int]] = []
    start = 0
    for word in text.split():
        start = text.index(word, start)
        runs.append((start, start + len(word)))
        start += len(word)
    return runs


def _join(chars: Sequence[Span]) -> Span:
    return Span("".join(char.text for char in chars), chars[0].start, chars[-1].end)
