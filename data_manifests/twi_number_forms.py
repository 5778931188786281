"""The Twi words that numbers are built of, and those around them, from tables that linguists edit.

    number_forms("asante").units[4]     ->  "ɛnan"
    number_forms("asante").counted[4]   ->  "nan"
    spellings()["aduoson"]              ->  70
    phrases("asante")["percent"]        ->  "ɔha mu nkyekyɛmu"

`languages/twi_numbers.tsv` and `twi_number_phrases.tsv` explain their columns, name the source of
every form, and say where sources differ.
"""

import calendar
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DIALECTS = ("asante", "akuapem", "fante")
THOUSAND, MILLION, BILLION = 10**3, 10**6, 10**9
_TABLES = Path(__file__).with_name("languages")
_SCALES = {"thousand": THOUSAND, "thousands": THOUSAND, "million": MILLION, "billion": BILLION}
_ENGLISH_MONTHS = {*calendar.month_name, *calendar.month_abbr, "Sept"}
_OF_THINGS, _OF_PEOPLE = " of things", " of people"


@dataclass(frozen=True, kw_only=True)
class NumberForms:
    """The words of one dialect.

    Attributes:
        zero: 0.
        units: 1 to 10, in counting.
        counted: 1 to 10, after a thing that is counted; 1 to 9 also after a ten.
        of_people: 1 to 10, after a noun for people.
        teens: 11 to 19.
        tens: 20, 30, to 90.
        hundreds: 100, 200, to 900.
        thousand: 1000.
        thousands: stands before the number of thousands, from 2 on.
        million: stands before the number of millions, from 1 on; `billion` likewise.
        conjunction: joins what is below a hundred to what is above.
    """

    zero: str
    units: dict[int, str]
    counted: dict[int, str]
    of_people: dict[int, str]
    teens: dict[int, str]
    tens: dict[int, str]
    hundreds: dict[int, str]
    thousand: str
    thousands: str
    million: str
    billion: str
    conjunction: str


@dataclass(frozen=True)
class TableRow:
    """A row of a table: what it is for, the word in each dialect ("" if there is none), further
    spellings, and the sources."""

    key: str
    words: dict[str, str]
    also: tuple[str, ...]
    source: str


@functools.cache
def number_forms(dialect: str) -> NumberForms:
    """The forms of a dialect.

    Raises:
        ValueError: no forms of this dialect are known.
    """
    if dialect not in DIALECTS:
        known = f"{', '.join(DIALECTS[:-1])} and {DIALECTS[-1]}"
        raise ValueError(f"dialect {dialect!r}: numbers in words are known for {known} only")
    words = {row.key: row.words[dialect] for row in _number_rows()}
    units = {n: words[str(n)] for n in range(1, 11)}
    counted = {n: words.get(f"{n}{_OF_THINGS}") or form for n, form in units.items()}
    people = {n: words.get(f"{n}{_OF_PEOPLE}") or form for n, form in counted.items()}
    return NumberForms(
        zero=words["0"],
        units=units,
        counted=counted,
        of_people=people,
        teens={n: words[str(n)] for n in range(11, 20)},
        tens={n: words[str(n)] for n in range(20, 100, 10)},
        hundreds={n: words[str(n)] for n in range(100, 1000, 100)},
        thousand=words["thousand"],
        thousands=words["thousands"],
        million=words["million"],
        billion=words["billion"],
        conjunction=words["and"],
    )


@functools.cache
def spellings() -> dict[str, int]:
    """The value of every word for a number in every dialect and spelling; conjunctions are not
    among them. Scales count as 1000, a million or a billion."""
    values: dict[str, int] = {}
    for row in _number_rows():
        if row.key == "and":
            continue
        digits = row.key.removesuffix(_OF_THINGS).removesuffix(_OF_PEOPLE)
        value = _SCALES[digits] if digits in _SCALES else int(digits)
        for word in filter(None, (*row.words.values(), *row.also)):
            assert values.setdefault(word, value) == value, word
    return values


@functools.cache
def conjunctions() -> frozenset[str]:
    """What may stand within a number, in any dialect: ne, na."""
    return frozenset(number_forms(dialect).conjunction for dialect in DIALECTS)


@functools.cache
def phrases(dialect: str) -> dict[str, str]:
    """What a dialect says around numbers, by what it is for; without what is not known."""
    return {row.key: row.words[dialect] for row in _phrase_rows() if row.words[dialect]}


@functools.cache
def typed_for(key: str) -> tuple[str, ...]:
    """What is typed for a phrase: "%" and "percent" for "percent"."""
    return next(row.also for row in _phrase_rows() if row.key == key)


@functools.cache
def typed_names(prefix: str) -> dict[str, str]:
    """Keys of phrases by what is typed for them: "km" is for "measure kilometre".

    Args:
        prefix: what the keys begin with, as in "measure" or "month".
    """
    rows = [row for row in _phrase_rows() if row.key.startswith(f"{prefix} ")]
    return {word: row.key for row in rows for word in row.also}


@functools.cache
def month_names() -> dict[str, int]:
    """Numbers of the months by what is typed for them: English names with a capital letter, because
    may and march are words, Twi names also without."""
    typed = {name: int(key.split()[1]) for name, key in typed_names("month").items()}
    return typed | {name.lower(): typed[name] for name in typed.keys() - _ENGLISH_MONTHS}


@functools.cache
def twi_month_names() -> frozenset[str]:
    """Those of the names that are Twi, and stay as they are typed."""
    return frozenset(month_names().keys() - _ENGLISH_MONTHS)


def one_of(words: Iterable[str]) -> str:
    """A pattern for any of these words, the longest first."""
    return f"(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})"


def read_table(name: str) -> Iterator[TableRow]:
    """The rows of a table in `languages/`; a `_` in another spelling is a space."""
    path = _TABLES / name
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 3 + len(DIALECTS) or not cells[-1]:
            expected = f"{3 + len(DIALECTS)} columns parted by tabs, the last one the source"
            raise ValueError(f"{path}:{number}: expected {expected}")
        key, first, *others, also, source = cells
        words = dict(zip(DIALECTS, (first, *others), strict=True))
        words = {d: first if word == "=" else word for d, word in words.items()}
        words = {d: "" if word == "-" else word for d, word in words.items()}
        yield TableRow(key, words, tuple(w.replace("_", " ") for w in also.split()), source)


@functools.cache
def _number_rows() -> tuple[TableRow, ...]:
    return tuple(read_table("twi_numbers.tsv"))


@functools.cache
def _phrase_rows() -> tuple[TableRow, ...]:
    return tuple(read_table("twi_number_phrases.tsv"))
