"""Which sentences are heard in training, from which voices, and which are held out."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training import text
from training.corpus import Shard

# Sentences for each voice. The first voice is the one of the clips that the project has had from the start, and
# knows the most.
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
# Never in training; flite's other voices are of other people, and no other package has this one.
HELD_OUT_VOICE = "flite-rms"

_SHARD = 4_000  # sentences


@dataclass(frozen=True)
class Amounts:
    """How much is written and spoken.

    Attributes:
        words: Only sentences of this many most frequent words are taken.
        names: How many names there are in the sentences of numbers and names.
        numbers: How many sentences have numbers and names.
        trigrams: How many sentences the trigram model adds.
        of_others: How many sentences each of the other voices says.
        held_out: How many sentences are for tests only, for each voice.
    """

    words: int = 3_000
    names: int = 300
    numbers: int = 3_000
    trigrams: int = 6_000
    of_others: int = 3_000
    held_out: int = 300


@dataclass(frozen=True)
class Plan:
    """The shards to train on, and those to measure with."""

    training: tuple[Shard, ...]
    held_out: tuple[Shard, ...]

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All of them, those to measure with first."""
        return self.held_out + self.training


def plan(texts: Iterable[str], names: Sequence[str], never: Iterable[str], amounts: Amounts, seed: int = 1) -> Plan:
    """Divide the sentences.

    Args:
        texts: Texts that sentences are looked for in.
        names: Names of people and places.
        never: Sentences that must not be in training: those of clips that exist already.
        amounts: How many of everything.
        seed: What the random choices depend on.
    """
    draw = random.Random(seed)
    natural = text.common_sentences(texts, amounts.words)
    words = Counter(text.bare(word) for sentence in natural for word in sentence.split())
    known_names = sorted(names, key=lambda name: -words[name])[: amounts.names]
    numbers = text.with_numbers_and_names(known_names, amounts.numbers, seed)
    trigrams = text.Trigrams(natural).sentences(amounts.trigrams, seed)

    natural = sorted(set(natural) - set(never))
    draw.shuffle(natural)
    tenth = amounts.held_out // 10
    held_out = natural[: amounts.held_out - tenth] + numbers[:tenth]
    heard = list(dict.fromkeys(natural[amounts.held_out - tenth :] + numbers[tenth:] + trigrams))
    heard = [sentence for sentence in heard if sentence not in set(held_out)]
    draw.shuffle(heard)

    training = [
        Shard(f"{FIRST_VOICE}-{number:02d}", FIRST_VOICE, tuple(heard[first : first + _SHARD]), seed + number)
        for number, first in enumerate(range(0, len(heard), _SHARD))
    ]
    for number, voice in enumerate(OTHER_VOICES):
        training.append(Shard(voice, voice, tuple(draw.sample(heard, amounts.of_others)), seed + 100 + number))
    measured = [
        Shard(f"held-out-{voice}", voice, tuple(held_out), seed + 200)
        for voice in (FIRST_VOICE, *OTHER_VOICES, HELD_OUT_VOICE)
    ]
    return Plan(tuple(training), tuple(measured))
