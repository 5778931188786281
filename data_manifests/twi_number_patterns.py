"""How a piece of text with digits is read in Twi: sums, measures, ordinals, decimals, and so on.

    read_pattern("GH¢5.50", "asante")   ->  "sidi num ne pɛsewa aduonum"
    read_pattern("3/4/2020", "asante")  ->  None: nobody knows which is the month

Every pattern is a function of this file, which gives None where the reading would be a guess. What
belongs to a number is decided in `twi_number_groups.py`.
"""

import functools
import re
from dataclasses import dataclass

from data_manifests.twi_cardinals import Counting, number_in_words, rank_in_words
from data_manifests.twi_number_forms import (
    BILLION,
    MILLION,
    THOUSAND,
    number_forms,
    one_of,
    phrases,
    typed_for,
    typed_names,
)
from data_manifests.twi_number_words import PHONE
from data_manifests.twi_times import ORDINAL, read_clock, read_date

# Digits without separators are at most six: longer ones are names of accounts, if not round.
WHOLE = (
    r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,3}(?![0-9])|0(?![0-9])|[1-9][0-9]{0,5}(?![0-9])"
    r"|[1-9][0-9]{3,8}000(?![0-9]))"
)
_QUANTITY = rf"(?P<whole>{WHOLE})(?:\.(?P<fraction>[0-9]{{1,2}}))?"
_RANGE = rf"{_QUANTITY}(?: ?[-–—−] ?(?P<last>{WHOLE}))?"
_SCALES = {"thousand": THOUSAND, "million": MILLION, "billion": BILLION}
# Words that say percent already: ɔha mu nkyekyɛmu 49.6%.
_PERCENT_BEFORE = re.compile(r"\b[ɔo]ha ?(?:mu ?)?-?nky(?:[ɛe]|eky)\w*(?: mu)?$")
_RANK_BEFORE = re.compile(r"\b(?:[ɛɔeo]?t[ɔo] so|[ɛɔ]t[ɔo] do)$")


@dataclass(frozen=True)
class Surroundings:
    """What stands beside a piece of text.

    Attributes:
        counting: what the numbers count, as the word before tells.
        before: the words before it, lower case, up to a punctuation mark.
        is_behind_noun: whether the word before can be a noun.
        is_at_end: whether no noun can follow: the clause ends, or goes on with a word of grammar.
    """

    counting: Counting = "numbers"
    before: str = ""
    is_behind_noun: bool = False
    is_at_end: bool = True


def read_pattern(text: str, dialect: str, around: Surroundings = Surroundings()) -> str | None:
    """The words of a piece of text, or None if no rule is sure of it.

    Args:
        text: as it is typed, with single spaces: "10:30", "GH¢ 5", "6 March 1957".
    """
    readers = (
        _read_phone, _read_date, _read_clock, _read_money, _read_percent, _read_measure,
        _read_ordinal, _read_number,
    )  # fmt: skip
    readings = (reader(text, dialect, around) for reader in readers)
    return next((reading for reading in readings if reading is not None), None)


def _read_phone(text: str, dialect: str, around: Surroundings) -> str | None:
    """Digit by digit, as in counting."""
    if not PHONE.fullmatch(text):
        return None
    return " ".join(number_in_words(int(d), dialect) for d in text if d.isdecimal())


def _read_date(text: str, dialect: str, around: Surroundings) -> str | None:
    return read_date(text, dialect)


def _read_clock(text: str, dialect: str, around: Surroundings) -> str | None:
    return read_clock(text, dialect, before=around.before)


def _read_money(text: str, dialect: str, around: Surroundings) -> str | None:
    for pattern in _money_patterns():
        match = pattern.fullmatch(text)
        if match is None:
            continue
        typed = (match["sign"] or match["behind"]).lower()
        name = next(key for key, words in _currencies().items() if typed in words)
        if match["sign"] and match["behind"] and match["behind"].lower() not in _currencies()[name]:
            return None
        if name == "cedi" and match["fraction"] and not match["scale"]:
            return _read_cedis_and_pesewas(match, dialect)
        if name == "pesewa" and match["fraction"]:
            return None
        amount = _in_words(match, dialect, "things")
        said = phrases(dialect)[name]
        ghana = "Ghana " if typed.startswith("ghana ") else ""
        return amount and f"{ghana}{said} {amount}"
    return None


@functools.cache
def _currencies() -> dict[str, frozenset[str]]:
    names = {name: typed_for(name) for name in ("cedi", "pesewa", "dollar", "American dollar")}
    names["cedi"] += ("sidi",)
    return {name: frozenset(map(str.lower, words)) for name, words in names.items()}


@functools.cache
def _money_patterns() -> tuple[re.Pattern[str], ...]:
    every = frozenset().union(*_currencies().values())
    sign, behind = one_of(every - {"pesewa", "pesewas"}), one_of(every - {"$", "us$"})
    scale = rf"(?: ?(?P<scale>{_scale_words()}|m|bn))?"
    return (
        re.compile(rf"(?P<sign>{sign}) ?{_RANGE}{scale}(?: (?P<behind>{behind}))?", re.IGNORECASE),
        re.compile(rf"(?P<sign>){_RANGE}{scale} ?(?P<behind>{behind})", re.IGNORECASE),
    )


def _scale_words() -> str:
    return one_of(word for name in _SCALES for word in typed_for(name) if word != "bn")


def _read_cedis_and_pesewas(match: re.Match[str], dialect: str) -> str | None:
    if len(match["fraction"]) != 2 or match["last"]:
        return None
    said, joint = phrases(dialect), number_forms(dialect).conjunction
    cedis, pesewas = int(match["whole"].replace(",", "")), int(match["fraction"])
    parts = []
    if cedis or not pesewas:
        parts.append(f"{said['cedi']} {number_in_words(cedis, dialect, counting='things')}")
    if pesewas:
        parts.append(f"{said['pesewa']} {number_in_words(pesewas, dialect, counting='things')}")
    return f" {joint} ".join(parts)


def _read_percent(text: str, dialect: str, around: Surroundings) -> str | None:
    if not (match := _percent_pattern().fullmatch(text)):
        return None
    amount = _in_words(match, dialect, "things")
    if amount is None or _PERCENT_BEFORE.search(around.before):
        return amount
    return f"{phrases(dialect)['percent']} {amount}"


@functools.cache
def _percent_pattern() -> re.Pattern[str]:
    sign = one_of(typed_for("percent"))
    return re.compile(rf"{_RANGE.replace(' ?[-', ' ?%? ?[-', 1)} ?{sign}", re.IGNORECASE)


def _read_measure(text: str, dialect: str, around: Surroundings) -> str | None:
    if not (match := _measure_pattern().fullmatch(text)):
        return None
    typed = match["unit"]
    name = phrases(dialect).get(typed_names("measure")[typed])
    if name is None or (typed in ("m", "l") and not match["space"]):  # 5m: metres or a million
        return None
    amount = _in_words(match, dialect, "things")
    # kilomita 5 km: the unit is there already.
    is_said = around.before.endswith(name)
    return amount and (amount if is_said else f"{name} {amount}")


@functools.cache
def _measure_pattern() -> re.Pattern[str]:
    unit = one_of(typed_names("measure"))
    return re.compile(rf"{_RANGE}(?: (?P<scale>{_scale_words()}))?(?P<space> ?)(?P<unit>{unit})")


def _read_ordinal(text: str, dialect: str, around: Surroundings) -> str | None:
    match = re.fullmatch(rf"(?P<whole>{WHOLE}) ?{ORDINAL}", text, re.IGNORECASE)
    if match is None or not int(match["whole"].replace(",", "")):
        return None
    number = int(match["whole"].replace(",", ""))
    if _RANK_BEFORE.search(around.before):
        return number_in_words(number, dialect, counting="things")
    if not around.is_behind_noun or not around.is_at_end:
        return None
    return rank_in_words(number, dialect, of_people=around.counting == "people")


def _read_number(text: str, dialect: str, around: Surroundings) -> str | None:
    match = _number_pattern().fullmatch(text)
    return _in_words(match, dialect, around.counting) if match else None


@functools.cache
def _number_pattern() -> re.Pattern[str]:
    return re.compile(rf"{_RANGE}(?: ?(?P<scale>{_scale_words()}))?", re.IGNORECASE)


def _in_words(match: re.Match[str], dialect: str, counting: Counting) -> str | None:
    """A quantity, or the first and last of a range, without what is measured."""
    parts = match.groupdict()
    whole, fraction, last = int(parts["whole"].replace(",", "")), parts["fraction"], parts["last"]
    scale = _scale_of(parts.get("scale"))
    if scale is None:
        return None
    if last is not None:
        if fraction is not None or scale > 1:
            return None
        return _range_in_words(whole, int(last.replace(",", "")), dialect, counting)
    if fraction is None:
        number = whole * scale
        return number_in_words(number, dialect, counting=counting) if number < 10**12 else None
    if scale == THOUSAND or (scale > 1 and not 0 < whole < 1000):
        return None
    point = f"{phrases(dialect)['point']} {_fraction_in_words(fraction, dialect)}"
    if scale == 1:
        return f"{number_in_words(whole, dialect)} {point}"
    return f"{number_in_words(whole * scale, dialect)} {number_forms(dialect).conjunction} {point}"


def _scale_of(typed: str | None) -> int | None:
    if not typed:
        return 1
    short = {"m": MILLION, "bn": BILLION}
    words = {word: size for name, size in _SCALES.items() for word in typed_for(name)} | short
    return words.get(typed.lower())


def _range_in_words(first: int, last: int, dialect: str, counting: Counting) -> str | None:
    """5-10, but not 2-1 or 1-2, which are results of games."""
    if not 0 < first < last or last < 10:
        return None
    words = number_in_words(first, dialect, counting=counting)
    return f"{words} {phrases(dialect)['to']} {number_in_words(last, dialect)}"


def _fraction_in_words(fraction: str, dialect: str) -> str:
    """Twi Wikipedia reads one or two digits as a number: 55.77 has aduɔson nson. With a zero before
    it, each is read: 0.07 has hwee nson."""
    if fraction.startswith("0") and len(fraction) > 1:
        return " ".join(number_in_words(int(digit), dialect) for digit in fraction)
    return number_in_words(int(fraction), dialect)
