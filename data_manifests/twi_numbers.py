"""Numbers in Twi words, for digits in a text that is to be spoken.

    spell_numbers("Ɛyɛ GH¢5.50, bra 10:30, class 3B.", "asante")
        ->  text "Ɛyɛ sidi num ne pɛsewa aduonum, bra nnɔn du abɔ apa ho simma aduasa, class 3B.",
            unknown ("3B",)

In Asante, Akuapem and Fante. `tests/golden/twi_numbers.tsv` shows every rule at work, with the
source of each. Speakers often say numbers in English; these words are for text that is to be Twi
throughout. The parts:

- `languages/twi_numbers.tsv`, `twi_number_phrases.tsv`: the words, for a linguist to edit
- `twi_cardinals.py`: whole numbers in words
- `twi_number_patterns.py`, `twi_times.py`: sums of money, percentages, clock times, dates, ...
- `twi_number_groups.py`: what belongs to a number in a text
- `twi_number_words.py`: words back to digits
"""

import re
from dataclasses import dataclass

from data_manifests.language import language
from data_manifests.twi_cardinals import number_in_words
from data_manifests.twi_number_forms import DIALECTS, number_forms
from data_manifests.twi_number_groups import Group, find_group, may_hold_number, split_pieces
from data_manifests.twi_number_patterns import read_pattern
from data_manifests.twi_number_words import find_number_words

__all__ = ["SpelledText", "number_dialects", "number_in_words", "spell_numbers"]

_MAX_PIECES = 40  # of the words before a number that may say it already


@dataclass(frozen=True)
class SpelledText:
    """A text with its numbers in words.

    Args:
        text: the text.
        unknown: parts with digits, or Roman numerals, that were left unchanged, in order.
    """

    text: str
    unknown: tuple[str, ...]


def number_dialects() -> tuple[str, ...]:
    """Dialects in whose words numbers are read; none if the language in use is not Twi."""
    return DIALECTS if language().numbers == "twi" else ()


def spell_numbers(text: str, dialect: str) -> SpelledText:
    """Write the numbers of a text in words, and report those whose reading would be a guess.

    Read: whole numbers (12; 1,000; 5 million; 4 is ɛnan, nan after a noun, baanan after people),
    decimals, percentages, sums in cedis, pesewas and dollars, measures (5 km), clock times (10:30,
    5 p.m.), dates (6 March 1957; 13/3/1957), ordinals behind their noun (3rd), ranges (5-10),
    Ghanaian telephone numbers.

    Digits in brackets behind the same number in words are left out, because nobody reads a number
    twice: aduasa (30).

    Left unchanged and reported, with the words that belong to them: dates that can be read in two
    ways (3/4/2020), chapters and verses, fractions, results of games (2-1), names of accounts (more
    than 6 digits without separators), numbers in a row, other currencies, digits beside a letter or
    a sign (covid19, 10k, #1), numbers before an English word (5 apples; years may stand before
    one), numbers behind a word that names by them (Class 3), Roman numerals behind a name
    (Elizabeth II). In Fante also clock times.

    The text must be normalised by `normalize_for_training`: s3 is a number beside a letter here.
    Words without a digit are not changed. Idempotent.

    Raises:
        ValueError: a dialect that has no forms here.
    """
    number_forms(dialect)
    if not may_hold_number(text):
        return SpelledText(text, ())
    pieces = split_pieces(text)
    spoken: list[str] = []
    unknown = []
    end = 0
    while (group := find_group(pieces, end)) is not None:
        words = read_pattern(re.sub(r"\s+", " ", group.core), dialect, group.around)
        spoken += pieces[end : group.start]
        end = group.end
        if words is None:
            unknown.append(group.core)
            spoken += [group.opening, group.core, group.closing]
        elif _is_said_before(group, words, "".join(spoken[-_MAX_PIECES:])):
            spoken[-1:] = [group.closing[1:]]  # without the space before it
        else:
            spoken += [group.opening, words, group.closing_if_read]
    return SpelledText("".join([*spoken, *pieces[end:]]), tuple(unknown))


def _is_said_before(group: Group, words: str, before: str) -> bool:
    """Whether digits in brackets repeat the words before them."""
    if group.opening not in ("(", "[") or group.closing[:1] not in (")", "]"):
        return False
    said = before.replace("-", " ").rstrip().lower()
    if not before[-1:].isspace() or not said:
        return False
    digits = group.core.replace(",", "")
    numbers = find_number_words(said)
    if digits.isdecimal() and numbers and numbers[-1].end == len(said):
        return numbers[-1].value == int(digits)
    return said.endswith(f" {words.lower()}") or said == words.lower()
