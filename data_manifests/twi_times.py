"""Dates and clock times in Twi words.

    read_date("6 March 1957", "asante")
        ->  "Ɔbɛnem da a ɛtɔ so nsia, apem ahankron ne aduonum nson"
    read_clock("10:30", "asante")        ->  "nnɔn du abɔ apa ho simma aduasa"

The words are in `languages/twi_number_phrases.tsv`.
"""

import calendar
import functools
import re
from dataclasses import dataclass

from data_manifests.twi_cardinals import number_in_words, rank_in_words
from data_manifests.twi_number_forms import (
    month_names,
    one_of,
    phrases,
    twi_month_names,
    typed_for,
)

ORDINAL = r"(?:st|nd|rd|th)"
_OCLOCK = "o'clock"
_LAST_HOUR_OF_AFTERNOON, _LAST_HOUR_OF_EVENING = 3, 8


@dataclass(frozen=True)
class _Date:
    """A date; day and year are 0 if they are not said, name is a Twi month as it is typed."""

    month: int
    day: int = 0
    year: int = 0
    name: str = ""

    @property
    def is_possible(self) -> bool:
        is_month = 1 <= self.month <= 12
        return is_month and self.day <= calendar.monthrange(2000, self.month)[1]


def read_date(text: str, dialect: str) -> str | None:
    """The words of a date, or of a month and its year; None if it is none, or if day and month
    could be the other way round."""
    date = _date_in_words(text) or _date_in_digits(text)
    if date is None or not date.is_possible:
        return None
    said = phrases(dialect)
    words = date.name or said[f"month {date.month}"]
    if date.day:
        words += f" {said['day']} {rank_in_words(date.day, dialect)}"
    if date.year:
        words += f"{',' if date.day else ''} {number_in_words(date.year, dialect)}"
    return words


@functools.cache
def _month_patterns() -> tuple[re.Pattern[str], ...]:
    month = rf"(?P<month>{one_of(month_names())})\.?"
    day, year = rf"(?P<day>[1-9][0-9]?){ORDINAL}?", r"(?P<year>[1-2][0-9]{3})"
    return (
        re.compile(rf"{day} (?:of )?{month}(?:,? {year})?"),
        re.compile(rf"{month} {day}(?:,? {year})?"),
        re.compile(rf"{month},? {year}"),
    )


def _date_in_words(text: str) -> _Date | None:
    for pattern in _month_patterns():
        if match := pattern.fullmatch(text):
            parts = match.groupdict()
            name = parts["month"]
            day, year = int(parts.get("day") or 0), int(parts.get("year") or 0)
            is_twi = name in twi_month_names()
            return _Date(month_names()[name], day, year, name if is_twi else "")
    return None


def _date_in_digits(text: str) -> _Date | None:
    """13/3/1957 or 1957-03-13; None where day and month could be the other way round."""
    if match := re.fullmatch(r"([12][0-9]{3})-([01][0-9])-([0-3][0-9])", text):
        year, month, day = map(int, match.groups())
        return _Date(month, day, year) if day else None
    if not (match := re.fullmatch(r"([0-3]?[0-9])([/.-])([0-3]?[0-9])\2([12][0-9]{3})", text)):
        return None
    first, second, year = int(match[1]), int(match[3]), int(match[4])
    if not first or not second or (first != second and first <= 12 and second <= 12):
        return None
    return _Date(first, second, year) if second > 12 else _Date(second, first, year)


def read_clock(text: str, dialect: str, *, before: str = "") -> str | None:
    """The words of a clock time; None if it is none, or in Fante, of which no source was found.

    Args:
        before: the words that stand before it: abɔ and anwummerɛ are not said twice.
    """
    said = phrases(dialect)
    if "o'clock" not in said:
        return None
    if not (match := _clock_pattern().fullmatch(text)):
        return None
    hour, minute, half = int(match["hour"]), int(match["minute"] or 0), match["half"] or ""
    if not 1 <= hour <= 12 or minute > 59 or not (match["minute"] or half or match["sign"]):
        return None
    if match["dot"] and not half:  # 10.30 may be a decimal
        return None
    period = _period_of_day(hour, half.lower()[:1])
    if period is None:
        return None
    words_before = before.split()
    parts = [said[period]] if period and said[period] not in words_before[-1:] else []
    hours = number_in_words(hour, dialect, counting="things")
    parts.append(said["one o'clock"] if hour == 1 else f"{said[_OCLOCK]} {hours}")
    if minute:
        is_struck = said["struck"] in words_before[-2:]
        parts += [] if is_struck else [said["struck"]]
        minutes = number_in_words(minute, dialect, counting="things")
        parts.append(f"{said['minutes past']} {minutes}")
    return " ".join(parts)


@functools.cache
def _clock_pattern() -> re.Pattern[str]:
    half = one_of((*typed_for("morning"), *typed_for("evening")))
    return re.compile(
        r"(?P<hour>[0-9]{1,2})(?:(?::|(?P<dot>\.))(?P<minute>[0-9]{2}))?"
        rf"(?: ?(?P<sign>{one_of(typed_for(_OCLOCK))}))?(?: ?(?P<half>{half})\.?)?",
        re.IGNORECASE,
    )


def _period_of_day(hour: int, half: str) -> str | None:
    """The phrase for a.m. or p.m. at an hour; "" if neither is typed, None for 12 a.m."""
    if not half:
        return ""
    if half == "a":
        return None if hour == 12 else "morning"
    if hour == 12 or hour <= _LAST_HOUR_OF_AFTERNOON:
        return "afternoon"
    return "evening" if hour <= _LAST_HOUR_OF_EVENING else "night"
