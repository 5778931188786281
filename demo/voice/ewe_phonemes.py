"""Ewe spelling to phonemes, in espeak-ng's ASCII notation for its voice `hi`.

    to_phonemes("ɖevi")   ->  ["d.", "e", "v", "i"]
    to_phonemes("etɔ\u0303")   ->  ["e", "t", "O~"]

Written for the demo's synthesiser, and not checked by a speaker of Ewe: a broad transcription
without tone. A letter is a sound (Wikipedia, "Ewe language", the table of its alphabet), with these
makeshifts: kp and gb are said one after the other, r is a tap, and ƒ, a sound that the voice does
not have, is p with h. `tests/golden/ewe_phonemes.tsv` shows every rule, one word per line.
"""

import re
import unicodedata

from data_manifests.normalization import normalize_for_training

TILDE = "\u0303"
VOWELS = {"a": "a", "e": "e", "ɛ": "E", "i": "i", "o": "o", "ɔ": "O", "u": "u"}
# Spelling -> phonemes; the longest spelling wins.
SPELLINGS = {
    **{letter: (vowel,) for letter, vowel in VOWELS.items()},
    **{letter + TILDE: (f"{vowel}~",) for letter, vowel in VOWELS.items()},
    "b": ("b",), "d": ("d",), "ɖ": ("d.",), "f": ("f",), "ƒ": ("p", "h"), "g": ("g",),
    "ɣ": ("Q",), "h": ("h",), "x": ("x",), "k": ("k",), "l": ("l",), "m": ("m",), "n": ("n",),
    "ŋ": ("N",), "p": ("p",), "r": ("*",), "s": ("s",), "t": ("t",), "v": ("v",), "ʋ": ("B",),
    "w": ("w",), "y": ("j",), "z": ("z",),
    "dz": ("d", "z"), "gb": ("g", "b"), "kp": ("k", "p"), "ny": ("n^",), "ts": ("t", "s"),
    # letters of names and loans
    "c": ("k",), "j": ("dZ;",), "q": ("k",),
}  # fmt: skip
_UNIT = re.compile("|".join(sorted(SPELLINGS, key=len, reverse=True)))


def to_phonemes(word: str) -> list[str]:
    """Phonemes of one word: tone marks and apostrophes dropped, then `SPELLINGS`.

    Raises:
        ValueError: letters or characters that no rule covers; they are named.
    """
    decomposed = unicodedata.normalize("NFD", normalize_for_training(word).lower())
    spelling = "".join(
        char
        for char in decomposed
        if char == TILDE or (char != "'" and not unicodedata.combining(char))
    )
    unknown = sorted(set(_UNIT.sub("", spelling)))
    if unknown or not spelling:
        named = ", ".join(map(repr, unknown)) or "no letter"
        hint = "; write numbers in words" if any(char.isdigit() for char in unknown) else ""
        raise ValueError(f"word {word!r}: cannot pronounce {named}{hint}")
    return [phoneme for unit in _UNIT.findall(spelling) for phoneme in SPELLINGS[unit]]
