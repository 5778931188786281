"""Whole numbers in Twi words: 1957 is apem ahankron ne aduonum nson.

How the parts of a number are joined, and where each rule comes from:

- A ten and its unit stand side by side: aduonu baako (130 of 130 in the available texts).
- The conjunction stands once, before what is below a hundred, if anything stands before that: ɔha
  ne aduosia mmiɛnsa (163; with it 5, without 3), mpem mmienu ne aduonu baako (2021; 107 of 107),
  apem ahanwɔtwe ne dunkron (1819). Twi Wikipedia has it between hundreds and what follows 1,441
  times, and not 565 times.
- What stands behind it is as after a noun (mpem mmienu ne nan, 2004), only ten is as in counting:
  mpem mmienu ne edu (2 of 2).
- Hundreds follow thousands without it: apem ahankron (Twi Wikipedia: without 2,324, with 53). The
  available texts have one with it (mpem mmiɛnsa ne ahanu dubaako, 3,211) and one without.
- A number of thousands, millions or billions has none inside: mpem ahanwɔtwe aduosia nson is
  867,000, ɔpepem ɔha aduɔson 170 million. Harvard's course has one there, which would give 800,050
  and 850,000 the same words.
- Thousands follow millions without it (Harvard). Not attested: what follows billions, hundreds that
  follow millions directly.

So no two numbers have the same words: mpem ahanu aduonu is 220,000, mpem ahanu ne aduonu 200,020.
"""

import functools
from typing import Literal

from data_manifests.twi_number_forms import BILLION, MILLION, THOUSAND, number_forms, phrases

MAX_NUMBER = 999 * BILLION + 999_999_999
Counting = Literal["numbers", "things", "people"]
"""What is counted: nothing (1, 2, 3), the thing named before, the people named before."""


def number_in_words(number: int, dialect: str, *, counting: Counting = "numbers") -> str:
    """The words of a whole number: 4 is ɛnan in counting, nan after things, baanan after people.

    Raises:
        ValueError: not in 0 to `MAX_NUMBER`, or a dialect that has no forms here.
    """
    forms = number_forms(dialect)
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"number {number}: expected 0 to {MAX_NUMBER}")
    if 0 < number <= 10:
        units = {"numbers": forms.units, "things": forms.counted, "people": forms.of_people}
        return units[counting][number]
    if number == 0:
        return forms.zero
    below_hundred = number % 100
    parts = _parts_from_hundred(number - below_hundred, dialect)
    if below_hundred and parts:
        parts.append(forms.conjunction)
    if below_hundred:
        is_ten = below_hundred == 10  # mpem mmienu ne edu, but mpem du, aduonu nan
        parts.append(forms.units[10] if is_ten else _below_thousand(below_hundred, dialect))
    return " ".join(parts)


def rank_in_words(number: int, dialect: str, *, of_people: bool = False) -> str:
    """The words of an ordinal, which stands behind its noun: a ɛdi kan, a ɛtɔ so mmienu."""
    said = phrases(dialect)
    if number == 1:
        return said["first of people" if of_people else "first"]
    rank = said["in rank, of people" if of_people else "in rank"]
    return f"{rank} {number_in_words(number, dialect, counting='things')}"


def _parts_from_hundred(number: int, dialect: str) -> list[str]:
    """The words of a multiple of a hundred."""
    forms = number_forms(dialect)
    billions, rest = divmod(number, BILLION)
    millions, rest = divmod(rest, MILLION)
    thousands, hundreds = divmod(rest, THOUSAND)
    parts = []
    if billions:
        parts.append(f"{forms.billion} {_below_thousand(billions, dialect)}")
    if millions:
        parts.append(f"{forms.million} {_below_thousand(millions, dialect)}")
    if thousands == 1:
        parts.append(forms.thousand)
    elif thousands:
        parts.append(f"{forms.thousands} {_below_thousand(thousands, dialect)}")
    if hundreds:
        parts.append(forms.hundreds[hundreds])
    return parts


@functools.cache
def _below_thousand(number: int, dialect: str) -> str:
    """The words of 1 to 999 as part of a larger number, without a conjunction."""
    forms = number_forms(dialect)
    hundreds, rest = divmod(number, 100)
    tens, unit = divmod(rest, 10)
    words = [forms.hundreds[100 * hundreds]] if hundreds else []
    if tens == 1:
        words.append(forms.counted[10] if rest == 10 else forms.teens[rest])
    else:
        words += [forms.tens[10 * tens]] if tens else []
        words += [forms.counted[unit]] if unit else []
    return " ".join(words)
