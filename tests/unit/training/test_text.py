from pathlib import Path

import pytest

from training.text import Trigrams, common_sentences, glosses, names, sentence, spoken, with_numbers_and_names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" the dog  ran home , ", "The dog ran home."),
        ("did you see it ?", "Did you see it?"),
        ("He came, he saw", "He came, he saw."),
        ("I don't know why!", "I don't know why!"),
        ("25 men and a dog", "25 men and a dog."),
        ("the war of 1812", "The war of 1812."),
        ("a " * 16, "A" + " a" * 15 + "."),
        ("a well-cut new suit", "A well-cut new suit."),
    ],
)
def test_sentence_gets_a_capital_and_a_full_stop(text: str, found: str) -> None:
    assert sentence(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "two words",
        "a " * 17,
        "a well- and new suit",
        "the x-ray of a hand",
        "he owns 1,945 sheep",
        "the year 0045 was dry",
        "he owns 10000 sheep",
        "half is 0.5 of it",
        "either he or she/it goes",
        "he said: go home",
        "the café is closed",
        "we went. she stayed",
    ],
)
def test_what_is_no_sentence_or_is_read_in_several_ways_is_refused(text: str) -> None:
    assert sentence(text) is None


@pytest.mark.parametrize("word", ["USA", "NaCl", "McBride", "b", "X", "O", "Mr.", "etc."])
def test_abbreviations_are_refused(word: str) -> None:
    assert sentence(f"they saw {word} in town") is None


@pytest.mark.parametrize("word", ["a", "A", "I", "i", "Paris"])
def test_short_words_and_names_are_no_abbreviations(word: str) -> None:
    assert sentence(f"they saw {word} in town") == f"They saw {word} in town."


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    lines = {
        "noun": [
            "  1 This software and database is licensed",
            '0001 15 n 02 Paris 0 City_of_Light 0 001 @i 0009 n 0000 | the capital of France; "Paris in (the) spring"',
            "0002 18 n 0b Aa 0 Bach 0 C_D 0 Dee 0 E. 0 Ff 0 Gg 0 Hh 0 Ii 0 Jj 0 Kafka 0 001 @i 0009 n 0000 | a writer",
            "0003 18 n 01 Bach 1 002 @i 0009 n 0000 @i 0008 n 0000 | a composer",
            "0004 18 n 01 Rose 0 001 @ 0009 n 0000 | a flower (in gardens)",
            "0005 18 n 01 McAdam 0 001 @i 0009 n 0000 | an engineer",
        ],
        "verb": ['0006 30 v 01 go 0 001 @ 0009 v 0000 | move away; "go home"; "go now, if you can'],
        "adj": [],
        "adv": [],
    }
    for kind, content in lines.items():
        (tmp_path / f"data.{kind}").write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    return tmp_path


def test_names_are_single_words_of_instances(wordnet: Path) -> None:
    assert names(wordnet) == ["Paris", "Bach", "Dee", "Kafka"]


def test_glosses_are_definitions_and_examples(wordnet: Path) -> None:
    found = [text.strip() for text in glosses(wordnet)]
    assert [text for text in found if text] == [
        "Paris in (the) spring",
        "the capital of France",
        "a writer",
        "a composer",
        "a flower",
        "an engineer",
        "go home",
        "move away",
    ]


def test_missing_wordnet_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(glosses(tmp_path))


def test_sentences_with_rare_words_are_left_out() -> None:
    texts = ["the dog ran", "The dog ran.", "the dog sat", "the 7 ran", "the cat ran", "the dog ran off"]
    assert common_sentences(texts, 3) == ["The dog ran.", "The 7 ran."]
    assert len(common_sentences(texts, 100)) == 5


def test_made_sentences_have_numbers_and_names_and_pass_the_filter() -> None:
    made = with_numbers_and_names(["Bach", "Paris"], 300, seed=3)
    assert len(made) == 300
    assert [sentence(text) for text in made] == made
    assert any("Bach" in text for text in made)
    assert any(character.isdigit() for text in made for character in text)
    assert with_numbers_and_names(["Bach", "Paris"], 300, seed=3) == made
    assert with_numbers_and_names(["Bach", "Paris"], 300, seed=4) != made


KNOWN = [
    "The dog ran into the house.",
    "A dog sat on the old chair.",
    "The old man ran on the road.",
    "A man sat in the house.",
    "Did the old dog sit on the road?",
]


def test_trigram_sentences_are_new_and_of_known_pairs() -> None:
    made = Trigrams(KNOWN).sentences(20, seed=1)
    assert len(set(made)) == 20
    assert not set(made) & set(KNOWN)
    pairs = {pair for text in KNOWN for pair in zip(["", *text.split()], [*text.split(), ""], strict=True)}
    for text in made:
        words = text.split()
        assert 4 <= len(words) <= 14
        assert set(zip(["", *words], [*words, ""], strict=True)) <= pairs


def test_trigram_sentences_depend_on_the_seed_alone() -> None:
    made = Trigrams(KNOWN).sentences(20, seed=1)
    assert Trigrams(KNOWN[::-1]).sentences(20, seed=1) == made
    assert Trigrams(KNOWN).sentences(20, seed=2) != made


@pytest.mark.parametrize("word", ["dog,", "I", "don't!", "1st", "x7"])
def test_words_are_said_as_written(word: str) -> None:
    assert spoken(word) == word


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("well-cut,", "well cut,"),
        ("1945,", "nineteen forty five,"),
        ("1100", "eleven hundred"),
        ("2099.", "twenty ninety nine."),
        ("2100", "two thousand one hundred"),
        ("1099", "one thousand ninety nine"),
        ("7", "seven"),
        ("342?", "three hundred forty two?"),
    ],
)
def test_numbers_are_said_in_words(word: str, said: str) -> None:
    pytest.importorskip("num2words", reason="num2words is in requirements-training.txt")
    assert spoken(word) == said
