"""The sentences that are spoken: of WordNet's glosses, with numbers and names, and of a trigram model."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")  # the Debian package wordnet-base
_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")

# Only what has one way to be read aloud: words of letters, perhaps with hyphens, or with an apostrophe and up to two
# letters more, and whole numbers. A word may end with a mark.
_PLAIN = r"(?:[A-Za-z]+(?:-[a-z]+)*(?:'[a-z]{1,2})?|[1-9][0-9]{0,3})"
_WORD = re.compile(_PLAIN + ",?")
_LAST_WORD = re.compile(_PLAIN + "[.?!]")
_ABBREVIATION = re.compile(r"[A-Z]{2}|[a-z][A-Z]|^[b-hj-zB-HJ-Z]$")
_FEWEST_WORDS, _MOST_WORDS = 3, 16

_PATTERNS = (
    "{name} was born in {year} and died in {year}.",
    "In {year} {name} went to {name} with {count} men.",
    "We have {count} children and {count} dogs.",
    "The house of {name} was built in {year}.",
    "Did {name} really pay {count} dollars for the picture?",
    "There were {count} people in the room, and {name} knew them all.",
    "Please send {count} copies of the book to {name}.",
    "{name} and {name} live {count} miles from {name}.",
    "The war began in {year}, and {count} years later it was over.",
    "It is {count} days until {name} comes home.",
    "Page {count} of the report names {name} and {name}.",
    "Call {name} at {count} or ask for room {count}.",
    "More than {count} letters came from {name} in {year}.",
    "My friend {name} is {count} years old.",
)


def glosses(folder: Path = WORDNET) -> Iterator[str]:
    """Yield every definition and every quoted example of WordNet, as it stands there.

    Raises:
        FileNotFoundError: WordNet is not installed.
    """
    for name in _FILES:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            if "|" not in line:
                continue
            gloss = line.split("|", 1)[1]
            yield from re.findall(r'"([^"]+)"', gloss)
            definition = re.sub(r'"[^"]*"?|\([^)]*\)', " ", gloss)
            yield from definition.split(";")


def names(folder: Path = WORDNET) -> list[str]:
    """Return WordNet's names of people and places that are one word of 3 to 10 letters, in the order of the file."""
    found: dict[str, None] = {}
    for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
        if " @i " not in line:
            continue
        lemmas = line.split()[4::2][: int(line.split()[3], 16)]
        found.update(dict.fromkeys(lemma for lemma in lemmas if re.fullmatch(r"[A-Z][a-z]{2,9}", lemma)))
    return list(found)


def sentence(text: str) -> str | None:
    """Return the text as a sentence, with a capital and a full stop.

    None is returned for a text that is too short or too long, or that has words with more than one way to be read
    aloud: abbreviations, for example, or fractions.
    """
    text = re.sub(r"\s+", " ", re.sub(r"\s+([,.?!])", r"\1", text)).strip(" ,-'`")
    if not text:
        return None
    text = text[0].upper() + text[1:]
    if text[-1] not in ".?!":
        text += "."
    *words, last = text.split(" ")
    if not _FEWEST_WORDS <= len(words) + 1 <= _MOST_WORDS:
        return None
    if not _LAST_WORD.fullmatch(last) or any(not _WORD.fullmatch(word) for word in words):
        return None
    if any(_ABBREVIATION.search(part) for word in words for part in parts(word)):
        return None
    return text


def bare(word: str) -> str:
    """Return the word without the marks around it."""
    return word.strip(",.?!")


def parts(word: str) -> list[str]:
    """Return the parts of a word between its hyphens, without marks."""
    return bare(word).split("-")


def common_sentences(texts: Iterable[str], words: int) -> list[str]:
    """Return the different sentences of the texts that have no rare words.

    Args:
        texts: Where sentences are taken from.
        words: How many of the most frequent words are not rare. A number is never rare.
    """
    sentences = list(dict.fromkeys(found for text in texts if (found := sentence(text)) is not None))
    counts = Counter(part.lower() for text in sentences for word in text.split() for part in parts(word))
    known = {part for part, _ in counts.most_common(words)}
    return [
        text
        for text in sentences
        if all(part.isdigit() or part.lower() in known for word in text.split() for part in parts(word))
    ]


def with_numbers_and_names(names: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` sentences with years, other numbers and names."""
    draw = random.Random(seed)

    def fill(field: re.Match[str]) -> str:
        if field[1] == "name":
            return draw.choice(names)
        if field[1] == "year":
            return str(draw.randint(1100, 2030))
        return str(draw.choice((draw.randint(2, 20), draw.randint(2, 100), draw.randint(2, 999))))

    return [re.sub(r"{(\w+)}", fill, draw.choice(_PATTERNS)) for _ in range(count)]


class Trigrams:
    """A trigram model over the words of sentences. A quarter of the words are drawn after the last word alone."""

    def __init__(self, sentences: Iterable[str]) -> None:
        """Count the words after each pair of words, and after each word."""
        self._after_two: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._after_one: dict[str, list[str]] = defaultdict(list)
        self._known = set(sentences)
        for text in sorted(self._known):
            words = ["", "", *text.split(), ""]
            for first, second, third in zip(words, words[1:], words[2:], strict=False):
                self._after_two[first, second].append(third)
                self._after_one[second].append(third)

    def sentences(self, count: int, seed: int) -> list[str]:
        """Return `count` different sentences of 4 to 14 words, none of them among those that were counted."""
        draw = random.Random(seed)
        made: dict[str, None] = {}
        while len(made) < count:
            words = self._walk(draw)
            text = " ".join(words)
            if 4 <= len(words) <= 14 and text[-1] in ".?!" and text not in self._known:
                made[text] = None
        return list(made)

    def _walk(self, draw: random.Random) -> list[str]:
        words: list[str] = []
        first = second = ""
        while len(words) < _MOST_WORDS:
            follow = self._after_two[first, second]
            if second and draw.random() < 0.25:
                follow = self._after_one[second]
            word = draw.choice(follow)
            if not word:
                break
            words.append(word)
            first, second = second, word
        return words


def spoken(word: str) -> str:
    """Return the word as it is said: `1945,` is `nineteen forty five,`, and `well-cut` is `well cut`.

    The numbers from 1100 to 2099 are read as years.
    """
    digits = bare(word)
    if not digits.isdigit():
        return word.replace("-", " ")
    from num2words import num2words  # only numbers need it

    number = int(digits)
    said = num2words(number, to="year" if 1100 <= number <= 2099 else "cardinal")
    return re.sub(r"[-,]", " ", said).replace(" and ", " ").replace("  ", " ") + word[len(digits) :]
