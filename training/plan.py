"""Which voice says which sentences for the training, and which sentences and voice are held out."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from training import text
from training.corpus import Shard

# The voice of the clips in `tests/speech`. It says every sentence; each of the others says some of them.
FIRST_VOICE = "hibari"
OTHER_VOICES = (
    "flite-slt",
    "flite-awb",
    "festival-kal",
    "festival-ked",
    "espeak-en-us-m3",
    "espeak-en-us-f2",
    "espeak-en-gb-m1",
)
# Never in training. No other voice, of whatever package, is of the same person.
HELD_OUT_VOICE = "flite-rms"

_SHARD = 4_000  # sentences


@dataclass(frozen=True)
class Amounts:
    """How many sentences there are of each kind.

    Attributes:
        words: The vocabulary: the sentences of WordNet have only this many words, the most frequent ones.
        names: How many different names the sentences with names have.
        numbers: How many sentences with numbers and names are made.
        trigrams: How many sentences the trigram model makes.
        of_others: How many sentences each voice but the first says.
        held_out: How many sentences are held out. Every voice says them all.
    """

    words: int = 3_000
    names: int = 300
    numbers: int = 3_000
    trigrams: int = 6_000
    of_others: int = 3_000
    held_out: int = 300


@dataclass(frozen=True)
class Plan:
    """The shards for the training, and those that are held out to measure with."""

    training: tuple[Shard, ...]
    held_out: tuple[Shard, ...]

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards, those that are held out first."""
        return self.held_out + self.training

    @property
    def checksum(self) -> str:
        """SHA-256 of who says what, as hexadecimal digits."""
        return hashlib.sha256(json.dumps([astuple(shard) for shard in self.shards]).encode()).hexdigest()


def held_out_shard(voice: str) -> str:
    """Return the name of the shard of a voice's held-out sentences."""
    return f"held-out-{voice}"


def plan(texts: Iterable[str], names: Sequence[str], never: Iterable[str], amounts: Amounts, seed: int = 1) -> Plan:
    """Return which voice says which sentences, for the training and to measure with.

    Args:
        texts: Where sentences are taken from.
        names: Names of people and places.
        never: Sentences that are neither in the training nor held out: those of the clips of the tests.
        amounts: How many sentences there are of each kind.
        seed: Equal seeds give equal plans.
    """
    draw = random.Random(seed)
    natural = text.common_sentences(texts, amounts.words)
    words = Counter(text.bare(word) for sentence in natural for word in sentence.split())
    known_names = sorted(names, key=lambda name: -words[name])[: amounts.names]
    numbers = text.with_numbers_and_names(known_names, amounts.numbers, seed)
    not_heard = set(never)
    natural = sorted(set(natural) - not_heard)
    draw.shuffle(natural)
    tenth = amounts.held_out // 10
    held_out = natural[: amounts.held_out - tenth] + [number for number in numbers[:tenth] if number not in not_heard]
    natural = natural[amounts.held_out - tenth :]
    # Without what is held out: the model repeats long parts of the sentences that it was made of.
    trigrams = text.Trigrams(natural).sentences(amounts.trigrams, seed)
    heard = list(dict.fromkeys(natural + numbers[tenth:] + trigrams))
    not_heard.update(held_out)
    heard = [sentence for sentence in heard if sentence not in not_heard]
    draw.shuffle(heard)

    training = [
        Shard(f"{FIRST_VOICE}-{number:02d}", FIRST_VOICE, tuple(heard[first : first + _SHARD]), seed + number)
        for number, first in enumerate(range(0, len(heard), _SHARD))
    ]
    for number, voice in enumerate(OTHER_VOICES):
        training.append(Shard(voice, voice, tuple(draw.sample(heard, amounts.of_others)), seed + 100 + number))
    measured = [
        Shard(held_out_shard(voice), voice, tuple(held_out), seed + 200)
        for voice in (FIRST_VOICE, *OTHER_VOICES, HELD_OUT_VOICE)
    ]
    return Plan(tuple(training), tuple(measured))
