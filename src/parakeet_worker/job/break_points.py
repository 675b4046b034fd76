"""Where the text of captions may be broken, into cues and into lines.

The rules are those of the broadcasters' guidelines: break at the end of a sentence, else at the end of a clause, else
before a conjunction or a preposition; keep an article with its noun, a pronoun or an auxiliary with its verb, a title
and initials with their name, and a number with its unit.
[BBC](https://www.bbc.co.uk/accessibility/forproducts/guides/subtitles/#Line-breaks), Netflix's Timed Text Style Guide,
section "Line Treatment". The word lists are English; other languages are broken by their punctuation and numbers alone.
"""

import re
from collections.abc import Sequence

SENTENCE_END = 0.0
CLAUSE_END = 4.0
WITHIN_CLAUSE = 20.0
INSEPARABLE = 100.0
"""The cost of a break that is made only where the limits leave no other: inside a name or a quantity."""

# What a break inside a clause costs more, or less.
_BEFORE_OPENER = -5.0
_AFTER_LEADER = 4.0
_BETWEEN_NAMES = 3.0
_AFTER_NUMBER = 3.0

# What a word is to its neighbours, as bits of a number.
_ENDS_SENTENCE, _ENDS_CLAUSE, _CAPITALIZED, _INITIAL, _DIGITS, _DAY, _YEAR, _MARK = (1 << bit for bit in range(8))
_ARTICLE, _PRONOUN, _PREPOSITION, _CONJUNCTION, _AUXILIARY, _ADVERB = (1 << bit for bit in range(8, 14))
_TITLE, _STOPPED_TITLE, _ABBREVIATION, _SUFFIX, _MONTH, _LABEL, _NUMBER, _UNIT = (1 << bit for bit in range(14, 22))

# A break behind them parts them from what they belong to.
_LEADER = _ARTICLE | _PRONOUN | _PREPOSITION | _CONJUNCTION | _AUXILIARY
# A break before them is natural.
_OPENER = _PREPOSITION | _CONJUNCTION
# With a capital, they begin a sentence rather than continue a name: "plan B. The", but "George W. Bush".
_STARTER = _ARTICLE | _PRONOUN | _PREPOSITION | _CONJUNCTION | _ADVERB

_VOCABULARY: dict[int, str] = {
    _ARTICLE: """a an the my your his her its our their this that these those some any no every each""",
    _PRONOUN: """i you he she it we they there who i'm you're he's she's it's that's we're they're i've you've we've
        they've i'll you'll he'll she'll we'll they'll""",
    _PREPOSITION: """of in on at to for from with by into onto about over under through during between without within
        along against among across behind around near upon toward towards""",
    _CONJUNCTION: """and or but nor so yet because although though while when whenever where which whose whom if unless
        until since after before than as whether that""",
    _AUXILIARY: """is am are was were be been being have has had do does did will would can could shall should may might
        must not don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't haven't
        hasn't hadn't very too more most""",
    _ADVERB: """then here yes well now oh what why how also however""",
    _TITLE: """mr mrs ms mx dr prof mme mlle""",
    # They are titles with a full stop alone.
    _STOPPED_TITLE: """sr sra dra st ste mt ft gen col maj capt cmdr lt sgt cpl rev hon gov sen rep pres messrs hr""",
    _ABBREVIATION: """vs eg ie cf approx inc co corp ltd bros jr sr dept univ assn est ave blvd rd vol fig pp
        jan feb apr jun jul aug sept sep oct nov dec""",
    # They stand behind a name.
    _SUFFIX: """jr sr inc ltd corp co ii iii iv phd ph.d m.d""",
    _MONTH: """january february march april may june july august september october november december
        jan feb mar apr jun jul aug sept sep oct nov dec""",
    # A number belongs to them.
    _LABEL: """no nos number page pages chapter section part figure fig table volume vol room route highway flight
        version item step level phase grade""",
    _NUMBER: """per one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety half quarter
        hundred thousand million billion trillion hundreds thousands millions billions dozen""",
    _UNIT: """per hundred thousand million billion trillion hundreds thousands millions billions dozen
        % ‰ ° °c °f percent percentage cent cents dollar dollars euro euros pound pounds pence yen rupees francs
        usd eur gbp mm cm m km µm nm inch inches foot feet ft yard yards yd mile miles mi mph kph km/h m/s knots
        meter meters metre metres centimeter centimeters centimetre centimetres kilometer kilometers kilometre
        kilometres millimeter millimeters millimetre millimetres hectare hectares acre acres
        mg g kg gram grams kilo kilos kilogram kilograms lb lbs oz ounce ounces ton tons tonne tonnes stone
        ml cl l liter liters litre litres gallon gallons pint pints
        ms s sec secs second seconds min mins minute minutes h hr hrs hour hours day days week weeks month months
        year years decade decades century centuries o'clock a.m p.m am pm
        hz khz mhz ghz b kb mb gb tb bit bits byte bytes kilobytes megabytes gigabytes terabytes kbps mbps gbps
        v kv w kw mw gw kwh volts watts kilowatts megawatts amps joules calories db decibels degree degrees celsius
        fahrenheit times x px pixels bps ppm bc ad bce ce""",
}


def _kinds_of_words() -> dict[str, int]:
    kinds: dict[str, int] = {}
    for kind, words in _VOCABULARY.items():
        for word in words.split():
            kinds[word] = kinds.get(word, 0) | kind
    return kinds


_KINDS = _kinds_of_words()

_SENTENCE_MARKS = frozenset(".?!…。？！؟।")  # noqa: RUF001
_CLAUSE_MARKS = frozenset(",;:–—-、，；：؛،")  # noqa: RUF001
_MARKS = "".join(_SENTENCE_MARKS | _CLAUSE_MARKS)
_OPENING_QUOTES = "\"'“‘«„([{¿¡"  # noqa: RUF001
_CLOSING_QUOTES = "\"'”’»)]}"  # noqa: RUF001
_INITIALS_PATTERN = re.compile(r"(?:[^\W\d_]\.-?)+")
_NUMBER_PATTERN = re.compile(r"[-+−]?[$€£¥#]?\d(?:[\d.,:/]*\d)?(?:s|k|m|bn)?")  # noqa: RUF001
_DAY_PATTERN = re.compile(r"\d{1,2}(?:st|nd|rd|th)?")
_YEAR_PATTERN = re.compile(r"[12]\d{3}")


def break_costs(words: Sequence[str]) -> list[float]:
    """Return what a break before each word costs: little where a reader wants one, much where it disturbs.

    Args:
        words: The text, split at spaces.

    Returns:
        A cost for each word: `SENTENCE_END` after a sentence and before the first word, `CLAUSE_END` after a clause,
        about `WITHIN_CLAUSE` elsewhere, and `INSEPARABLE` inside a name or a quantity.
    """
    # Few words, and far fewer kinds of neighbours, make up most of a text.
    kinds: dict[str, int] = {}
    costs_of_kinds: dict[int, float] = {}
    costs = []
    before = _ENDS_SENTENCE
    for word in words:
        if word == "I." and _may_be_initial(before):
            word = "J."
        kind = kinds.get(word)
        if kind is None:
            kind = kinds[word] = _kind(word)
        both = before << 32 | kind
        cost = costs_of_kinds.get(both)
        if cost is None:
            cost = costs_of_kinds[both] = _cost(before, kind)
        costs.append(cost)
        before = kind
    return costs


def _may_be_initial(before: int) -> bool:
    """Return whether `I.` after a word is an initial, as in "Isaac I. Rabi", and not the pronoun."""
    other = _ENDS_SENTENCE | _ENDS_CLAUSE | _LEADER | _STARTER
    return bool(before & _INITIAL or (before & _CAPITALIZED and not before & other))


def _kind(word: str) -> int:
    bare = word.lstrip(_OPENING_QUOTES).rstrip(_CLOSING_QUOTES)
    core = bare.rstrip(_MARKS)
    lower = core.lower().replace("’", "'")  # noqa: RUF001
    known = _KINDS.get(lower, 0)
    kind = known & _UNIT
    if not known and not any(map(str.isalnum, word)):
        kind |= _MARK

    last = bare[-1:]
    if last in _SENTENCE_MARKS:
        kind |= _ENDS_SENTENCE
    elif last in _CLAUSE_MARKS:
        kind |= _ENDS_CLAUSE
    if core[:1].isupper():
        kind |= _CAPITALIZED | known & _SUFFIX
    else:
        known &= ~_MONTH

    if core == bare:
        kind |= known & ~(_STOPPED_TITLE | _ABBREVIATION | _SUFFIX)
        if "-" in core and all(_KINDS.get(part, 0) & _NUMBER for part in lower.split("-")):
            kind |= _NUMBER
        if len(core) == 1 and core.isupper() and not known & _STARTER:
            kind |= _INITIAL
    elif last == ".":
        kind |= known & (_TITLE | _STOPPED_TITLE | _ABBREVIATION | _MONTH)
        if known & _ABBREVIATION or lower == "no":
            kind |= known & _LABEL
        if bare != "I." and _INITIALS_PATTERN.fullmatch(bare):
            kind |= _INITIAL if bare[0].isupper() else _ABBREVIATION

    if any(map(str.isdigit, core)):
        if _NUMBER_PATTERN.fullmatch(core):
            kind |= _DIGITS if core != bare else _DIGITS | _NUMBER
        if _DAY_PATTERN.fullmatch(core):
            kind |= _DAY
        elif _YEAR_PATTERN.fullmatch(core):
            kind |= _YEAR
    return kind


def _cost(before: int, after: int) -> float:
    """Return what a break between two words costs, from what they are."""
    if _are_inseparable(before, after):
        return INSEPARABLE
    if before & _ENDS_SENTENCE:
        is_full_stop = not before & (_INITIAL | _TITLE | _STOPPED_TITLE | _ABBREVIATION)
        return SENTENCE_END if is_full_stop or (after & _CAPITALIZED and after & _STARTER) else WITHIN_CLAUSE
    if before & _ENDS_CLAUSE:
        return CLAUSE_END
    cost = WITHIN_CLAUSE
    if before & _LEADER:
        cost += _AFTER_LEADER
    elif after & _OPENER:
        cost += _BEFORE_OPENER
    if before & _CAPITALIZED and after & (_CAPITALIZED | _DIGITS):
        cost += _BETWEEN_NAMES
    if before & _DIGITS and not after & _OPENER:
        cost += _AFTER_NUMBER
    return cost


def _are_inseparable(before: int, after: int) -> bool:
    in_clause = not before & (_ENDS_SENTENCE | _ENDS_CLAUSE)
    name_before = before & _CAPITALIZED and not before & (_STARTER | _ENDS_SENTENCE)
    name_after = after & _CAPITALIZED and not after & _STARTER
    return bool(
        # "W. Bush", "Dr. Smith"
        (before & (_INITIAL | _TITLE | _STOPPED_TITLE) and name_after)
        # "George W."
        or (name_before and in_clause and after & _INITIAL)
        # "Smith Jr.", "Smith, Jr."
        or (name_before and after & _SUFFIX)
        # "5 km", "twenty percent", "$5 million", "10 a.m."
        or (before & _NUMBER and after & _UNIT)
        # "degrees Celsius", "miles per hour"
        or (before & _UNIT and in_clause and after & _UNIT)
        # "twenty five", "two thousand three"
        or (before & _NUMBER and after & _NUMBER and not (before | after) & _DIGITS)
        # "May 5", "May 2020"
        or (before & _MONTH and after & (_DAY | _YEAR))
        # "5 May"
        or (before & _DAY and in_clause and after & _MONTH)
        # "May 5, 2020"
        or (before & _DAY and before & _ENDS_CLAUSE and after & _YEAR)
        # "page 5", "No. 5", "# 5"
        or ((before & _LABEL or (before & _MARK and in_clause)) and after & _DIGITS)
        # A dash or another mark of its own stays behind its word.
        or after & _MARK
    )
