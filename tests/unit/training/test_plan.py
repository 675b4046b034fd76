import itertools
import random
from dataclasses import replace

import pytest

from training.plan import FIRST_VOICE, HELD_OUT_VOICE, OTHER_VOICES, Amounts, Plan, plan
from training.text import bare

AMOUNTS = Amounts(words=60, names=3, numbers=60, trigrams=30, of_others=50, held_out=40)
NAMES = ["Bach", "Paris", "Kafka", "Rome"]
TEXTS = random.Random(0).sample(
    [
        f"the {' '.join(words)}"
        for words in itertools.product(
            ("old", "new", "red"), ("dog", "man", "car"), ("saw", "met", "hit"), ("cat", "bus", "boy"), ("again", "now")
        )
    ],
    80,
)


def make(never: tuple[str, ...] = (), **options: int) -> Plan:
    return plan(TEXTS, NAMES, never, AMOUNTS, **options)


def sentences(shards: object) -> set[str]:
    return {sentence for shard in shards for sentence in shard.sentences}  # type: ignore[attr-defined]


def test_nothing_that_is_held_out_is_in_the_training() -> None:
    found = make()
    assert not sentences(found.training) & sentences(found.held_out)
    assert len(sentences(found.held_out)) == AMOUNTS.held_out
    assert found.shards == found.held_out + found.training
    # So many of so few names and numbers are the same.
    several = plan(TEXTS, NAMES, (), replace(AMOUNTS, numbers=5_000, held_out=70))
    assert not sentences(several.training) & sentences(several.held_out)


def test_trigrams_are_not_made_of_what_is_held_out() -> None:
    # Each text has a word of its own, which only a model that was made of this text says.
    own = [f"{one}uu{other}" for one in "bcdfghklmn" for other in "prstvwxz"]
    texts = [f"{text} with a {word} there" for text, word in zip(TEXTS, own, strict=True)]
    found = plan(texts, NAMES, (), replace(AMOUNTS, words=200, trigrams=200))

    def owned(said: set[str]) -> set[str]:
        return {word for sentence in said for word in sentence.split() if word in own}

    assert len(owned(sentences(found.held_out))) > 30
    assert not owned(sentences(found.held_out)) & owned(sentences(found.training))


def test_every_voice_says_all_that_is_held_out() -> None:
    found = make()
    assert [shard.voice for shard in found.held_out] == [FIRST_VOICE, *OTHER_VOICES, HELD_OUT_VOICE]
    assert len({shard.sentences for shard in found.held_out}) == 1


def test_the_held_out_voice_is_not_in_the_training() -> None:
    assert {shard.voice for shard in make().training} == {FIRST_VOICE, *OTHER_VOICES}


def test_the_other_voices_say_part_of_what_the_first_says() -> None:
    found = make()
    first = sentences(shard for shard in found.training if shard.voice == FIRST_VOICE)
    assert first == sentences(found.training)
    for shard in found.training:
        assert len(set(shard.sentences)) == len(shard.sentences)
        if shard.voice != FIRST_VOICE:
            assert len(shard.sentences) == AMOUNTS.of_others


def test_plans_that_differ_in_a_word_have_other_checksums() -> None:
    found = make()
    first = found.training[0]
    changed = replace(first, sentences=(*first.sentences[:-1], "It was another one."))
    assert replace(found, training=(changed, *found.training[1:])).checksum != found.checksum == make().checksum


def test_shards_have_names_and_seeds_of_their_own() -> None:
    found = make()
    assert len({shard.name for shard in found.shards}) == len(found.shards)
    assert len({shard.seed for shard in found.training}) == len(found.training)


@pytest.mark.parametrize("kind", ["of WordNet", "with numbers", "of trigrams"])
def test_sentences_that_nobody_may_hear_are_in_no_shard(kind: str) -> None:
    texts = {f"T{text[1:]}." for text in TEXTS}
    heard = sorted(sentences(make().shards))
    of_kind = {
        "of WordNet": [sentence for sentence in heard if sentence in texts],
        "with numbers": [sentence for sentence in heard if any(map(str.isdigit, sentence))],
        "of trigrams": [
            sentence for sentence in heard if sentence not in texts and not any(map(str.isdigit, sentence))
        ],
    }
    never = tuple(of_kind[kind][::3])
    assert len(never) > 5
    assert not sentences(make(never).shards) & set(never)


def test_plans_depend_on_the_seed_alone() -> None:
    assert make() == make()
    assert plan(iter(TEXTS), NAMES, iter(()), AMOUNTS) == make()
    assert make(seed=2) != make()


def test_names_are_the_most_frequent_ones() -> None:
    texts = [*TEXTS, "we met Rome again", "we met Kafka again", "we met Paris again"]
    found = plan(texts, NAMES, (), replace(AMOUNTS, numbers=200))
    words = {bare(word) for sentence in sentences(found.shards) for word in sentence.split()}
    assert words & set(NAMES) == {"Rome", "Kafka", "Paris"}
