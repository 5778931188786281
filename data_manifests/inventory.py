"""The characters that Twi is written with, and those in a text that are not among them.

The same for Asante, Akuapem and Fante. A character outside is not wrong as such: a digit is spoken,
but in Twi or English, and in words that are not written down; "•" or "→" are leftovers of a source.
Both deserve a look before a model learns them.
"""

import re
import unicodedata

# The alphabet of Asante, Akuapem and Fante: 22 letters.
LETTERS = frozenset("abdeɛfghiklmnoɔprstuwy")
# Used in names and loanwords; z also in Fante's digraph dz; ŋ in older spellings.
LOAN_LETTERS = frozenset("cjqvxzŋ")
# Tone and nasality, rarely written: grave, acute, circumflex, tilde, macron, caron.
MARKS = frozenset("\u0300\u0301\u0302\u0303\u0304\u030c")
PUNCTUATION = frozenset(" '-.,;:!?…\"()“”«»–—")
INVENTORY = LETTERS | LOAN_LETTERS | MARKS | PUNCTUATION

_OUTSIDE = re.compile(f"[^{re.escape(''.join(sorted(INVENTORY)))}]")
_LOAN = re.compile(f"[{''.join(sorted(LOAN_LETTERS))}]")


def outside_characters(text: str) -> str:
    """The characters of a text outside the inventory, in order, with repetitions.

    Args:
        text: after `normalize_for_training`, which replaces look-alikes of ɛ, ɔ and apostrophe.

    Returns:
        Lower case, with marks separated from their letters.
    """
    return "".join(_OUTSIDE.findall(_decompose(text)))


def loan_letters(text: str) -> str:
    """The loan letters of a text in lower case, in order, with repetitions."""
    return "".join(_LOAN.findall(_decompose(text)))


def name_character(char: str) -> str:
    """A character as a report shows it: "'•' U+2022 BULLET"."""
    return f"{char!r} U+{ord(char):04X} {unicodedata.name(char, 'unnamed')}"


def _decompose(text: str) -> str:
    return unicodedata.normalize("NFD", text).lower()
