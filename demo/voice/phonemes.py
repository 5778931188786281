"""A written text to phonemes, in espeak-ng's ASCII notation for its voice `hi`.

    phonemize("Me din de Kofi.")  ->  one clause of four words, and its full stop

How a word is read is in `twi_phonemes.py` and `ewe_phonemes.py`, for the language in use.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

from data_manifests.language import VARIABLE, language
from data_manifests.normalization import normalize_for_training
from demo.voice import ewe_phonemes, twi_phonemes

IPA_OF = {
    "a": "a", "e": "e", "E": "ɛ", "I": "ɪ", "i": "i", "o": "o", "O": "ɔ", "U": "ʊ", "u": "u",
    "b": "b", "d": "d", "f": "f", "g": "ɡ", "h": "h", "j": "j", "k": "k", "l": "l", "m": "m",
    "n": "n", "p": "p", "*": "ɾ", "s": "s", "t": "t", "v": "ʋ", "w": "w", "z": "z",
    "N": "ŋ", "n^": "ɲ", "tS;": "tɕ", "dZ;": "dʑ", "S;": "ɕ",
    # of Ewe
    "d.": "ɖ", "x": "x", "Q": "ɣ", "B": "β",
    **{f"{vowel}~": f"{ipa}\u0303" for vowel, ipa in zip("aeEioOu", "aeɛioɔu", strict=True)},
}  # fmt: skip
"""Every phoneme that words are read as, and the name that espeak-ng reports for it."""

# By the key of the language: a word's phonemes, and what becomes of the last one of a word before
# the first one of the next.
READERS: dict[str, tuple[Callable[[str], list[str]], Callable[[str, str], str]]] = {
    "twi": (twi_phonemes.to_phonemes, twi_phonemes.assimilate),
    "ewe": (ewe_phonemes.to_phonemes, lambda phoneme, following: phoneme),
}

_CLAUSE = re.compile(r"([^,.?!;:…]*)([,.?!;:…]*)")
_SILENT = re.compile('["“”„«»()\\[\\]]')
_BETWEEN_WORDS = re.compile(r"[\s\-–—/]+")


@dataclass(frozen=True)
class Clause:
    """Words up to a punctuation mark.

    Args:
        spellings: its words as written.
        words: their phonemes, keys of `IPA_OF`.
        punctuation: one of `, . ? ! ; :`, or "" if the text ends without any.
    """

    spellings: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    punctuation: str


def phonemize(text: str) -> list[Clause]:
    """Transcribe a text: its clauses, their words, and the phonemes of each word.

    Quotation marks and brackets are silent, a hyphen or dash separates words, and in Twi an n at
    the end of a word assimilates to the next word.

    Raises:
        ValueError: the text has a character that cannot be read (a digit, another alphabet, a
            symbol), or no words; nothing here reads the language in use.
    """
    key = language().key
    if key not in READERS:
        raise ValueError(f"the demo's voices read {' and '.join(READERS)}, {VARIABLE} is {key}")
    to_phonemes, assimilate = READERS[key]
    clauses = []
    for body, marks in _CLAUSE.findall(normalize_for_training(text)):
        spellings = [word for word in _BETWEEN_WORDS.split(_SILENT.sub(" ", body)) if word]
        spellings = [word for word in spellings if word.strip("'")]
        if not spellings:
            continue
        words = [to_phonemes(word) for word in spellings]
        for word, following in itertools.pairwise(words):
            word[-1] = assimilate(word[-1], following[0])
        punctuation = marks[:1].replace("…", ".")
        clauses.append(Clause(tuple(spellings), tuple(map(tuple, words)), punctuation))
    if not clauses:
        raise ValueError(f"text {text!r}: no word to pronounce")
    return clauses
