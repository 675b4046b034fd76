"""Word times from the phoneme segments of a synthesiser that keeps what it made of each word of the text."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """One phoneme or pause.

    Attributes:
        phone: its name.
        end: seconds. It starts where the segment before it ends.
        token: index of the word of the text that it belongs to; None for what belongs to none.
    """

    phone: str
    end: float
    token: int | None


def are_spoken_as_written(words: Sequence[str], spoken: Sequence[Sequence[str]]) -> bool:
    """Return whether a synthesiser said exactly the given words.

    It may take "John's" as "john" and "'s". It must not take "St." as "street".

    Args:
        words: the words of the text, with punctuation.
        spoken: for each word of the text as the synthesiser divided it, the words that it said.
    """
    return [_letters(word) for word in words] == [_letters("".join(parts)) for parts in spoken]


def word_times(segments: Sequence[Segment], count: int, pauses: frozenset[str]) -> list[tuple[float, float]] | None:
    """Return start and end of each of `count` words in seconds, or None if one has no segment.

    Args:
        segments: of the whole sentence, in order.
        count: how many words the sentence has.
        pauses: names of the segments that are silence.
    """
    starts: list[float] = []
    ends: list[float] = []
    now = 0.0
    for segment in segments:
        if segment.phone not in pauses:
            if segment.token is not None and segment.token == len(starts):
                starts.append(now)
                ends.append(segment.end)
            elif starts and segment.token in (None, len(starts) - 1):
                # A phoneme of no word is one that the synthesiser added to the word before, such as a linking r.
                ends[-1] = segment.end
            else:
                return None
        now = segment.end
    return list(zip(starts, ends, strict=True)) if len(starts) == count else None


def _letters(word: str) -> str:
    return "".join(filter(str.isalpha, word)).lower()
