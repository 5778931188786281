"""English words in Twi letters, as Ghanaians say them: for models that learned to say Twi letters.

    respell_english("Fa laptop no bra.")   ->  "Fa laptɔp no bra."

The sounds are those of `english_phonemes.py`, and the letters those that Twi has for them, as in
loans that are spelt as Twi already: kɔmpiuta, ambrɛla, fon (WAXAL).
"""

import re

from data_manifests import english_phonemes
from data_manifests.code_switching import mark_english_words
from data_manifests.normalization import normalize_for_scoring, normalize_for_training

_LETTERS = {"ɡ": "g", "ɾ": "r", "j": "y", "ŋ": "ng", "tɕ": "ky", "dʑ": "gy", "ɕ": "hy"}
_BETWEEN_WORDS = re.compile(r"([\s\-–—/]+)")
_EDGES = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


def respell_english(text: str) -> str:
    """A text in Twi with its English words in Twi letters; those that the dictionary lacks stay.

    Raises:
        InputError: the language's file has no `[code_switching]`.
    """
    pieces = _BETWEEN_WORDS.split(normalize_for_training(text))
    of_pieces = [normalize_for_scoring(piece).split() for piece in pieces]
    marked = iter(mark_english_words([word for words in of_pieces for word in words]))
    respelled = []
    for piece, words in zip(pieces, of_pieces, strict=True):
        is_english = [next(marked) for _ in words]
        said = english_phonemes.to_phonemes(words[0]) if is_english == [True] else None
        respelled.append(piece if said is None else _in_twi_letters(piece, said))
    return "".join(respelled)


def _in_twi_letters(piece: str, said: tuple[str, ...]) -> str:
    """A word in other letters, with the punctuation around it and its capital."""
    edges = _EDGES.fullmatch(piece)
    assert edges is not None
    letters = "".join(_LETTERS.get(phoneme, phoneme) for phoneme in said)
    letters = letters.replace("ngk", "nk").replace("ngg", "ng")
    if edges[2][:1].isupper():
        letters = letters[0].upper() + letters[1:]
    return f"{edges[1]}{letters}{edges[3]}"
