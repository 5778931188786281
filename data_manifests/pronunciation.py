"""How a text is pronounced: its words as phonemes of the International Phonetic Alphabet.

    phonemes("Akwaaba")             ->  [["a", "kʷ", "a", "a", "b", "a"]]
    phonemes("Fa laptop no bra.")   ->  [["f", "a"], ["l", "a", "p", "t", "ɔ", "p"], ...]

The language's file says by which rules its words are read: `twi_phonemes.py` or `ewe_phonemes.py`.
Where its English words are marked (`code_switching.py`), they are said as Ghanaians say them
(`english_phonemes.py`). Tone is left open: the spelling does not show it.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

from commands.errors import InputError
from data_manifests import english_phonemes, ewe_phonemes, twi_phonemes
from data_manifests.code_switching import mark_english_words
from data_manifests.language import UNKNOWN_DIALECT, VARIABLE, language
from data_manifests.normalization import normalize_for_scoring, normalize_for_training

_CLAUSE = re.compile(r"([^,.?!;:…]*)([,.?!;:…]*)")
_SILENT = re.compile('["“”„«»()\\[\\]]')
_BETWEEN_WORDS = re.compile(r"[\s\-–—/]+")


@dataclass(frozen=True)
class Clause:
    """Words up to a punctuation mark.

    Attributes:
        spellings: its words as written.
        words: their phonemes, in IPA.
        punctuation: one of `, . ? ! ; :`, or "" if the text ends without any.
    """

    spellings: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    punctuation: str


def phonemes(text: str, *, dialect: str = UNKNOWN_DIALECT) -> list[list[str]]:
    """The phonemes of each word of a text, in IPA.

    Args:
        text: numbers written in words.
        dialect: of the text; in Twi, Akuapem differs in one rule.

    Raises:
        InputError: nothing reads the language in use.
        ValueError: as `read_clauses`.
    """
    clauses = read_clauses(text, dialect=dialect)
    return [list(word) for clause in clauses for word in clause.words]


def read_clauses(text: str, *, dialect: str = UNKNOWN_DIALECT) -> list[Clause]:
    """Transcribe a text: its clauses, their words, and the phonemes of each word.

    Quotation marks and brackets are silent, a hyphen or dash separates words, and in Twi an n at
    the end of a word assimilates to the next word.

    Raises:
        InputError: nothing reads the language in use.
        ValueError: the text has a character that cannot be read (a digit, another alphabet, a
            symbol), or no words.
    """
    read_word = _reader(dialect)
    found = [
        (spellings, marks[:1].replace("…", "."))
        for body, marks in _CLAUSE.findall(normalize_for_training(text))
        if (spellings := _words_of(body))
    ]
    if not found:
        raise ValueError(f"text {text!r}: no word to pronounce")
    spelt = [spelling for spellings, _ in found for spelling in spellings]
    is_english = iter(_mark_english(spelt))
    clauses = []
    for spellings, punctuation in found:
        marked = [next(is_english) for _ in spellings]
        words = [
            (said and list(said)) or read_word(spelling)
            for spelling, english in zip(spellings, marked, strict=True)
            for said in [english_phonemes.to_phonemes(_plain(spelling)) if english else None]
        ]
        if language().phonemes == "twi":
            for (word, following), english in zip(
                itertools.pairwise(words), marked[:-1], strict=True
            ):
                if not english:
                    word[-1] = twi_phonemes.assimilate(word[-1], following[0])
        clauses.append(Clause(tuple(spellings), tuple(map(tuple, words)), punctuation))
    return clauses


def _reader(dialect: str) -> Callable[[str], list[str]]:
    """What reads a word of the language in use."""
    match language().phonemes:
        case "twi":
            return lambda word: twi_phonemes.to_phonemes(word, dialect=dialect)
        case "ewe":
            return ewe_phonemes.to_phonemes
        case _:
            raise InputError(
                f"no rules say how {language().name} is pronounced: {VARIABLE} is "
                f'{language().key}, and its file says phonemes = "none"'
            )


def _words_of(body: str) -> list[str]:
    words = _BETWEEN_WORDS.split(_SILENT.sub(" ", body))
    return [word for word in words if word.strip("'")]


def _mark_english(spellings: list[str]) -> list[bool]:
    """Whether each word is English; none is where nothing tells."""
    if language().code_switching is None:
        return [False] * len(spellings)
    return mark_english_words([_plain(spelling) for spelling in spellings])


def _plain(spelling: str) -> str:
    return normalize_for_scoring(spelling)
