"""The characters that the language is written with, and those in a text that are not among them.

A character outside is not wrong as such: a digit is spoken, but in words that are not written down;
"•" or "→" are leftovers of a source. Both deserve a look before a model learns them.
"""

import functools
import re
import unicodedata

from data_manifests.language import Language, language


def outside_characters(text: str) -> str:
    """The characters of a text outside the inventory, in order, with repetitions.

    Args:
        text: after `normalize_for_training`, which replaces look-alikes.

    Returns:
        Lower case, with marks separated from their letters.
    """
    return "".join(_outside(language()).findall(_decompose(text)))


def loan_letters(text: str) -> str:
    """The loan letters of a text in lower case, in order, with repetitions."""
    return "".join(_loan(language()).findall(_decompose(text)))


def name_character(char: str) -> str:
    """A character as a report shows it: "'•' U+2022 BULLET"."""
    return f"{char!r} U+{ord(char):04X} {unicodedata.name(char, 'unnamed')}"


@functools.cache
def _outside(of: Language) -> re.Pattern[str]:
    inventory = sorted(set(of.alphabet + of.marks + of.punctuation))
    return re.compile(f"[^{re.escape(''.join(inventory))}]")


@functools.cache
def _loan(of: Language) -> re.Pattern[str]:
    return re.compile(f"[{of.loan_letters}]" if of.loan_letters else "(?!)")


def _decompose(text: str) -> str:
    return unicodedata.normalize("NFD", text).lower()
