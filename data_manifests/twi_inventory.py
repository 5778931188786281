"""The characters that Twi is written with, and which of a text are not among them.

For Asante, Akuapem and Fante alike. What lies outside is not wrong as such: a digit is spoken, but
in one of two languages and with letters that nobody wrote down; "•" or "→" are leftovers of a
source. Both deserve a look before a model learns them.
"""

import unicodedata

# The alphabet of Asante, Akuapem and Fante: 22 letters.
LETTERS = frozenset("abdeɛfghiklmnoɔprstuwy")
# In names and loans; z also in Fante's digraph dz; ŋ in older spellings.
LOAN_LETTERS = frozenset("cjqvxzŋ")
# Tone and nasality, rarely written: grave, acute, circumflex, tilde, macron, caron.
MARKS = frozenset("\u0300\u0301\u0302\u0303\u0304\u030c")
PUNCTUATION = frozenset(" '-.,;:!?…\"()“”«»–—")
INVENTORY = LETTERS | LOAN_LETTERS | MARKS | PUNCTUATION


def outside_characters(text: str) -> str:
    """The characters of a text outside the inventory, in order, each as often as it occurs.

    Args:
        text: after `normalize_for_training`, which replaces look-alikes of ɛ, ɔ and apostrophe.

    Returns:
        Lower case, marks apart from their letters.
    """
    return "".join(char for char in _decompose(text) if char not in INVENTORY)


def loan_letters(text: str) -> str:
    """The loan letters of a text, in order, each as often as it occurs, in lower case."""
    return "".join(char for char in _decompose(text) if char in LOAN_LETTERS)


def name_character(char: str) -> str:
    """A character as a report shows it: "'•' U+2022 BULLET"."""
    return f"{char!r} U+{ord(char):04X} {unicodedata.name(char, 'unnamed')}"


def _decompose(text: str) -> str:
    return unicodedata.normalize("NFD", text).lower()
