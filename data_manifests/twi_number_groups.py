"""What belongs to a number in a text, and what stands beside it.

    pieces = split_pieces("Ɛyɛ 5 Ghana cedis pɛ.")
    find_group(pieces, 0).core         ->  "5 Ghana cedis"

The words that belong to a number are its sign, unit, month, book of the Bible, and numbers in a
row; and an English word, so that no number is read before one. So what no rule reads is left whole.
"""

import functools
import re
from dataclasses import dataclass

from data_manifests.code_switching import mark_english
from data_manifests.twi_cardinals import Counting
from data_manifests.twi_number_forms import (
    month_names,
    one_of,
    spellings,
    typed_for,
    typed_names,
)
from data_manifests.twi_number_patterns import Surroundings

_BETWEEN = re.compile("[-–—−/x×+=:*]")  # 3 - 4
# Punctuation and emoji around a number. A leading dot or colon (.5) and signs are part of the
# number.
_SIGNS = r"\w¢₵$€£₦%°+=/<>#@~^&*–—−\-"
_EDGES = re.compile(
    rf"(?P<opening>[^{_SIGNS}.,:]*)(?P<core>.*?)(?P<closing>[^{_SIGNS}]*)", re.DOTALL
)
_ROMAN_LETTERS = re.compile("[IVX]{2}")
_ROMAN = re.compile(r"(?=[IVX]{2})X{0,3}(?:IX|IV|V?I{0,3})")
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_YEAR_BEHIND_DAY = re.compile("[12][0-9]{3}")
_ABBREVIATED = re.compile(r"[ap]\.m$", re.IGNORECASE)
_PEOPLE_ENDINGS = ("foɔ", "fo", "fuo", "nom")
_MAX_WORDS_BEFORE = 5


@dataclass(frozen=True)
class Group:
    """A number and the words that belong to it.

    Attributes:
        start, end: the pieces of the text it stands in.
        opening: punctuation before it.
        core: the number and its words, with the spaces of the text.
        closing: punctuation behind it.
        closing_if_read: what of that is left if it is read: the full stop of 5 p.m. ends no
            sentence, unless a capital letter follows.
        around: what stands beside it.
    """

    start: int
    end: int
    opening: str
    core: str
    closing: str
    closing_if_read: str
    around: Surroundings


def split_pieces(text: str) -> list[str]:
    """Word, space, word, ...: joined, they are the text."""
    return re.split(r"(\s+)", text)


def may_hold_number(text: str) -> bool:
    """Whether a text has a digit, or what looks like a Roman numeral; most have none."""
    return any(map(str.isnumeric, text)) or _ROMAN_LETTERS.search(text) is not None


def find_group(pieces: list[str], first: int) -> Group | None:
    """The first number from a piece on, with what belongs to it; None if there is none."""
    place = _find_number(pieces, first)
    if place is None:
        return None
    start = _start_of_group(pieces, place, first)
    end = _end_of_group(pieces, start, place)
    opening, core, closing = _split_edges("".join(pieces[start:end]))
    around = _surroundings(pieces, start, end, opening, closing)
    after = pieces[end + 1] if end + 1 < len(pieces) else ""
    is_abbreviation = _ABBREVIATED.search(core) is not None and closing == "."
    if_read = "" if is_abbreviation and after and not after[0].isupper() else closing
    return Group(start, end, opening, core, closing, if_read, around)


def _find_number(pieces: list[str], start: int) -> int | None:
    for place in range(start, len(pieces)):
        if any(map(str.isnumeric, pieces[place])) or _is_roman(pieces, place, start):
            return place
    return None


def _is_roman(pieces: list[str], place: int, first: int) -> bool:
    """Elizabeth II."""
    if not _ROMAN_LETTERS.search(pieces[place]) or place - 2 < first:
        return False
    if not _ROMAN.fullmatch(_split_edges(pieces[place])[1]):
        return False
    _, name, closing = _split_edges(pieces[place - 2])
    return not closing and name[:1].isupper() and not name.isupper()


@functools.lru_cache(maxsize=2**14)  # each word is looked at for every number beside it
def _split_edges(word: str) -> tuple[str, str, str]:
    match = _EDGES.fullmatch(word)
    assert match is not None
    return match["opening"], match["core"], match["closing"]


# ----- What belongs to a number


@functools.cache
def _before_number() -> re.Pattern[str]:
    """Words that belong to the number behind them: GH¢ 5, March 6, Yohane 3, Class 3."""
    money = (*typed_for("cedi"), *typed_for("dollar"), *typed_for("American dollar"), "sidi")
    money_or_labels = one_of((*money, *typed_for("labels")))
    names = (*month_names(), *typed_for("books"))
    return re.compile(rf"(?i:{money_or_labels}|[€£₦])|{one_of(names)}|[A-Z]{{2,}} [-–—]")


@functools.cache
def _after_number() -> re.Pattern[str]:
    """Words that belong to the number before them. The words written here, sidi and dɔla, must not
    be among them, or a second pass would change more."""
    keys = ("cedi", "pesewa", "dollar", "American dollar", "percent", "thousand", "million",
            "billion", "o'clock", "morning", "evening")  # fmt: skip
    words = [word for key in keys for word in typed_for(key) if word != "pɛsewa"]
    words += ["hundred", "trillion", "euros", "euro", "pounds", "naira", "st", "nd", "rd", "th"]
    names = (*typed_names("measure"), *month_names(), *typed_for("books"))
    return re.compile(rf"(?i:{one_of(words)})|{one_of(names)}\.?")


@functools.cache
def _currency_signs() -> re.Pattern[str]:
    typed = [word for key in ("cedi", "dollar", "American dollar") for word in typed_for(key)]
    signs = [word for word in typed if word.upper() == word or not word.isalpha()]
    return re.compile(one_of(word for word in signs if " " not in word), re.IGNORECASE)


@functools.cache
def _names_before_numbers() -> frozenset[str]:
    """Months and books, behind which a further number belongs to the first: 6 March 1957."""
    return frozenset((*month_names(), *typed_for("books")))


def _start_of_group(pieces: list[str], place: int, first: int) -> int:
    """The first word that belongs to the number; pieces before `first` are already used."""
    if _split_edges(pieces[place])[0]:
        return place
    for num_words in (2, 1):
        start = place - 2 * num_words
        if start < first:
            continue
        _, core, closing = _split_edges("".join(pieces[start : place - 1]))
        text = re.sub(r"\s+", " ", core).removesuffix(".")
        if not closing.removeprefix(".") and _before_number().fullmatch(text):
            return start
    return place


def _end_of_group(pieces: list[str], start: int, place: int) -> int:
    """Where the words end that belong to a number: adjacent numbers, numbers with a sign between,
    its unit, its month, an English word.

    Args:
        start: the first piece that belongs to it.
        place: the piece with the number.
    """
    if not any(map(str.isnumeric, pieces[place])):
        return place + 1
    words = [*pieces[start::2], "", "", ""]
    last = (place - start) // 2
    while (step := _num_words_that_belong(words, last)) > 0:
        last += step
    return start + 2 * last + 1


def _num_words_that_belong(words: list[str], last: int) -> int:
    """How many words behind words[last] belong to it; 0 if none does."""
    word, after = words[last], words[last + 1]
    _, core, closing = _split_edges(word)
    opening, next_core, _ = _split_edges(after)
    is_number_next = next_core[:1].isnumeric() and not opening
    if is_number_next and _is_behind_name(words, last, next_core, closing):
        return 1
    if closing or opening:
        return 0
    if word[-1:].isdigit() and is_number_next:
        return 1
    if word[-1:].isdigit() and _BETWEEN.fullmatch(after) and words[last + 2][:1].isnumeric():
        return 2
    has_digit = any(map(str.isnumeric, word))
    if not has_digit and not _after_number().fullmatch(core):
        return 0
    for num_words in (2, 1):
        unit = next_core if num_words == 1 else f"{after} {_split_edges(words[last + 2])[1]}"
        if _after_number().fullmatch(unit):
            behind = (
                words[last + num_words + 1] if not _split_edges(words[last + num_words])[2] else ""
            )
            return 0 if _belongs_to_next(unit, behind) else num_words
    return int(has_digit and not _YEAR.fullmatch(word) and _is_english(next_core))


def _belongs_to_next(unit: str, behind: str) -> bool:
    """Whether a word belongs to what follows it: the sign in 5 GHS 10, and months that are read
    already, in 7 Ɔbɛnem da a ɛtɔ so nsia."""
    if _currency_signs().fullmatch(unit):
        return behind[:1].isnumeric()
    return unit in month_names() and (behind == "da" or behind in spellings())


def _is_behind_name(words: list[str], last: int, number: str, closing: str) -> bool:
    """Whether a number goes on with a date or verse: 6 March 1957, March 6, 1957, Mateo 5, 6."""
    names = [_split_edges(word)[1].removesuffix(".") for word in words[max(last - 1, 0) : last + 1]]
    if names[-1] in _names_before_numbers():
        return closing in ("", ".", ",")
    if closing != ",":
        return False
    if names[0] in typed_for("books"):
        return True
    return names[0] in month_names() and _YEAR_BEHIND_DAY.fullmatch(number) is not None


def _is_english(word: str) -> bool:
    """Whether a word is English: apples, Military."""
    marked = mark_english(word)
    return bool(marked) and all(marked)


# ----- What stands beside it


def _surroundings(
    pieces: list[str], start: int, end: int, opening: str, closing: str
) -> Surroundings:
    before: list[str] = []
    for place in range(start - 2, max(start - 2 * _MAX_WORDS_BEFORE, 0) - 1, -2):
        _, core, closes = _split_edges(pieces[place])
        if closes or opening or not core:
            break
        before.insert(0, core.lower())
    word = before[-1] if before else ""
    after = _split_edges(pieces[end + 1])[1].lower() if end + 1 < len(pieces) else ""
    is_noun = bool(word) and word not in _no_nouns() and word not in spellings()
    is_noun = is_noun and not any(map(str.isnumeric, word))
    return Surroundings(
        counting=_counting(before, is_noun=is_noun),
        before=" ".join(before),
        is_behind_noun=is_noun,
        is_at_end=bool(closing) or not after or after in _no_nouns(),
    )


def _counting(before: list[str], *, is_noun: bool) -> Counting:
    if before[-1:] and re.search(r"t[ɔo] (?:so|do)$", " ".join(before)):
        return "things"  # a ɛtɔ so 4
    if not is_noun:
        return "numbers"
    word = before[-1]
    is_people = word in typed_for("people") or (len(word) > 4 and word.endswith(_PEOPLE_ENDINGS))
    return "people" if is_people else "things"


@functools.cache
def _no_nouns() -> frozenset[str]:
    return frozenset(typed_for("no nouns"))
