"""Numbers in Twi words back to digits, in all three dialects and their usual spellings at once.

    words_to_digits("wɔ afe mpem mmienu ne aduonu baako mu")  ->  "wɔ afe 2021 mu"
    words_to_digits("Du-baako, dubaako, du baako")             ->  "11, 11, 11"

It is made for comparing texts, as error rates do: one writer has 2021, another the words. Both
texts are converted, so a word that has several meanings does no harm: it becomes the same digits on
both sides. `words_to_digits` undoes `number_in_words` in every dialect. Measures, clock times and
sums stay words around their digits; `spell_numbers` first, and then this, makes those alike too.

Convert texts before punctuation is taken out of them: a comma parts two numbers.
"""

import functools
import re
from dataclasses import dataclass

from data_manifests.normalization import normalize_for_scoring
from data_manifests.twi_number_forms import (
    BILLION,
    DIALECTS,
    MILLION,
    THOUSAND,
    conjunctions,
    number_forms,
    spellings,
)

_WORD = re.compile(r"\w(?:[\w'\u0300-\u036f]*[\w\u0300-\u036f])?")
_GAP = re.compile(r"\s+|\s*[-‐‑]\s*")  # du baako, du-baako
# A number of a Ghanaian telephone: 0243334444, 024 333 4444, +233-24-333-4444.
PHONE = re.compile(
    r"(?<![\w.,+-])(?<![0-9][ -])(?:\+233(?P<gap>[ -]?)[0-9]{2}(?P=gap)|0[0-9]{2}(?P<space>[ -]?))"
    r"[0-9]{3}(?(gap)(?P=gap)|(?P=space))[0-9]{4}(?![ .,-]?[0-9])(?!\w)"
)
_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,]*\d)")
# Lone words that also mean something else: a leg, in the mouth, nothing, the continent.
_BODY_PARTS = frozenset({"nan", "anan", "num", "anum"})
_POSSESSIVES = frozenset({"me", "mi", "wo", "wu", "ne", "ni", "yɛn", "hɛn", "mo", "hom", "wɔn",
                          "hɔn", "n", "m", "w"})  # fmt: skip
_BEFORE_CONTINENT = frozenset({"wɔ", "europe", "afrika", "abibirem"})
_POINTS = ("pɔ", "pɔw")  # akyiri pɔ, akyirepɔ: the decimal point


@dataclass(frozen=True)
class _Word:
    """A word of a text.

    Attributes:
        normal: as normalised for scoring.
        value: of its number, None if it is no word for one.
        start, end: where it stands.
        joins: whether nothing but space or a hyphen parts it from the word before.
    """

    normal: str
    value: int | None
    start: int
    end: int
    joins: bool


@dataclass(frozen=True)
class NumberInWords:
    """A number in words: its value, and where it stands in the text."""

    value: int
    start: int
    end: int


def words_to_digits(text: str) -> str:
    """Write the numbers of a text in digits.

    Digits stay, without separators of thousands (1,957 becomes 1957); the digits of a telephone
    number are parted, as they are spoken. Two numbers beside each other are never joined: mmienu
    nan is 2 4. Case does not matter. Idempotent.

    Left as words, where they stand alone: nan, anan, num and anum after a possessive (ne nan, his
    leg), hwee (nothing) unless it stands among digits or is all there is, asia where it is the
    continent (wɔ Asia), ɔha in percent (ɔha mu nkyekyɛmu), mpem without a number of thousands.
    """
    while (converted := _convert(text)) != text:
        text = converted
    return text


def _convert(text: str) -> str:
    text = PHONE.sub(lambda phone: " ".join(re.sub(r"\D", "", phone[0])), text)
    text = _GROUPED.sub(lambda grouped: grouped[0].replace(",", ""), text)
    if not _any_number_word().search(text.lower()):
        return text
    pieces, end = [], 0
    for number in find_number_words(text):
        pieces += [text[end : number.start], str(number.value)]
        end = number.end
    return "".join([*pieces, text[end:]])


def find_number_words(text: str) -> list[NumberInWords]:
    """The numbers in words of a text, in order; what `words_to_digits` leaves as words is not among
    them."""
    words = _split(text)
    numbers = []
    place = 0
    while place < len(words):
        value, end = _read_number(words, place)
        if end == place or (end == place + 1 and not _is_number_alone(words, place)):
            place += 1
            continue
        numbers.append(NumberInWords(value, words[place].start, words[end - 1].end))
        place = end
    return numbers


@functools.cache
def _any_number_word() -> re.Pattern[str]:
    """Finds out at once that most texts have no number: a pattern of what number words begin
    with."""
    # Look-alikes of ɛ and ɔ, and marks, are any character here; `_value_of` decides.
    starts = {re.sub("[ɛɔ]", ".", re.escape(word[:3])) for word in spellings()}
    return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(starts))})")


@functools.lru_cache(maxsize=2**14)
def _value_of(word: str) -> tuple[str, int | None]:
    normal = normalize_for_scoring(word)
    return normal, spellings().get(normal)


def _split(text: str) -> list[_Word]:
    words: list[_Word] = []
    end = 0
    for match in _WORD.finditer(text):
        normal, value = _value_of(match[0])
        gap = text[end : match.start()]
        joins = bool(words) and _GAP.fullmatch(gap) is not None
        words.append(_Word(normal, value, match.start(), match.end(), joins))
        end = match.end()
    return words


def _read_number(words: list[_Word], start: int) -> tuple[int, int]:
    """The longest number that begins here, in parts that get smaller, as in 2 million, 30 thousand,
    four hundred and five: its value, and the place behind its last word; `start` if there is
    none."""
    total, last_scale, place = 0, 10 * BILLION, start
    if words[start].value == 0:
        return 0, start + 1
    while True:
        is_joined = total > 0 and _is_conjunction(words, place)
        part = _read_part(words, place + is_joined, is_first=total == 0)
        if part is None:
            break
        value, scale, end = part
        if scale >= last_scale or (scale == 1 and last_scale > 100 and total and not is_joined):
            break
        total, last_scale, place = total + value, scale, end
    return total, place


def _is_conjunction(words: list[_Word], place: int) -> bool:
    """Whether ne or na joins two parts here. na also means "and then", so a Fante word must
    follow."""
    if place + 1 >= len(words) or not words[place].joins:
        return False
    if words[place].normal not in conjunctions():
        return False
    return words[place].normal != "na" or words[place + 1].normal in _fante_words()


@functools.cache
def _fante_words() -> frozenset[str]:
    forms = number_forms(DIALECTS[-1])
    tables = (forms.units, forms.teens, forms.tens, forms.hundreds)
    return frozenset(word for table in tables for word in table.values())


def _read_part(words: list[_Word], place: int, *, is_first: bool) -> tuple[int, int, int] | None:
    """A part of a number: its value, its scale (1, 100, 1000, ...) and where it ends."""
    value = _value_at(words, place, is_first=is_first)
    if value is None or value == 0:
        return None
    if value < 100:
        below_hundred, end = _read_below_hundred(words, place)
        return below_hundred, 1, end
    if value < THOUSAND:
        return value, 100, place + 1
    if words[place].normal == number_forms(DIALECTS[0]).thousand:
        return THOUSAND, THOUSAND, place + 1
    multiplier, end = _read_below_thousand(words, place + 1)
    if multiplier == 0 and value < MILLION:
        return None
    return value * max(multiplier, 1), value, end


def _read_below_thousand(words: list[_Word], place: int) -> tuple[int, int]:
    value = _value_at(words, place)
    hundreds = value if value is not None and 100 <= value < THOUSAND else 0
    rest, end = _read_below_hundred(words, place + (hundreds > 0))
    return hundreds + rest, end


def _read_below_hundred(words: list[_Word], place: int) -> tuple[int, int]:
    first = words[place].value if place < len(words) else None
    if first is None or not 0 < first < 100:
        return 0, place
    unit = _value_at(words, place + 1)
    if first % 10 == 0 and unit is not None and 0 < unit < 10:
        return first + unit, place + 2
    return first, place + 1


def _value_at(words: list[_Word], place: int, *, is_first: bool = False) -> int | None:
    """The value of a word that goes on with a number, or begins one."""
    if place >= len(words) or not (is_first or words[place].joins):
        return None
    return words[place].value


def _is_number_alone(words: list[_Word], place: int) -> bool:
    """Whether a single word that can be a number is taken for one."""
    word = words[place]
    before = words[place - 1] if place and word.joins else None
    after = words[place + 1] if place + 1 < len(words) and words[place + 1].joins else None
    if word.value == 0:
        beside = [other for other in (before, after) if other is not None]
        is_among_digits = any(
            (other.normal.isdecimal() and len(other.normal) == 1)
            or other.normal.endswith(_POINTS)
            or (other.value is not None and other.value < 10)
            for other in beside
        )
        return is_among_digits or len(words) == 1
    if word.normal in _BODY_PARTS:
        return before is None or before.normal not in _POSSESSIVES
    if word.value == 100:  # ɔha mu nkyekyɛmu, ɔha nkyɛmu: percent
        behind = [other.normal for other in words[place + 1 : place + 3]]
        return not any(other.startswith("nky") for other in behind[: 1 + (behind[:1] == ["mu"])])
    if word.normal == "asia":
        follows = before is not None and before.normal in _BEFORE_CONTINENT
        return not follows and (after is None or after.normal != "pacific")
    return True
