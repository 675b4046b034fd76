"""Word errors: texts normalised and aligned as the Open ASR Leaderboard did when Parakeet-TDT-0.6B-v2 was published."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import kaldialign
from whisper_normalizer.english import EnglishTextNormalizer

# Stands for no word in kaldialign's alignments. No word is empty.
_GAP = ""


@dataclass(frozen=True)
class Pair:
    """A word of the reference and the one that was heard in its place. One of them may be missing."""

    reference: str | None
    hypothesis: str | None

    @property
    def is_match(self) -> bool:
        """Whether the word was heard."""
        return self.reference == self.hypothesis


@dataclass(frozen=True)
class WordErrors:
    """Errors of transcripts, and the number of words in their references."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    words: int = 0

    def __add__(self, other: "WordErrors") -> "WordErrors":
        """Return the errors of both together."""
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )

    @property
    def total(self) -> int:
        """Number of errors of all kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Word error rate: errors for each word of the reference; None without any word."""
        return self.total / self.words if self.words else None


def normalise(text: str) -> str:
    """Return a text in the spelling in which the leaderboard compares: Whisper's rules for English."""
    return str(_normaliser()(text)).strip()


@cache
def _normaliser() -> EnglishTextNormalizer:
    # It reads a file of spellings.
    return EnglishTextNormalizer()


def count_errors(reference: str, hypothesis: str) -> WordErrors:
    """Return the word errors of a transcript, both texts normalised: the fewest that explain the difference."""
    words = normalise(reference).split()
    counts = kaldialign.edit_distance(words, normalise(hypothesis).split())
    return WordErrors(counts["sub"], counts["del"], counts["ins"], len(words))


def align(reference: str, hypothesis: str) -> tuple[Pair, ...]:
    """Return the words of both texts, normalised, side by side, with the fewest errors."""
    return align_words(normalise(reference).split(), normalise(hypothesis).split())


def align_words(reference: Iterable[str], hypothesis: Iterable[str]) -> tuple[Pair, ...]:
    """Return two sequences of words side by side, with the fewest errors. No word may be empty."""
    pairs = kaldialign.align(reference, hypothesis, _GAP)
    return tuple(Pair(a if a != _GAP else None, b if b != _GAP else None) for a, b in pairs)
