"""Ewe spelling to phonemes, in IPA.

    to_phonemes("ɖevi")   ->  ["ɖ", "e", "v", "i"]
    to_phonemes("etɔ\u0303")   ->  ["e", "t", "ɔ\u0303"]

Not checked by a speaker of Ewe: a broad transcription in which a letter is a sound (Wikipedia, "Ewe
language", the table of its alphabet). Tone, which only a few words are written with, is left open.
`tests/golden/ewe_phonemes.tsv` shows every rule, one word per line.
"""

import re
import unicodedata

from data_manifests.normalization import normalize_for_training

TILDE = "\u0303"
VOWELS = "aeɛioɔu"
# Spelling -> phonemes; the longest spelling wins.
SPELLINGS = {
    **{vowel: vowel for vowel in VOWELS},
    **{vowel + TILDE: vowel + TILDE for vowel in VOWELS},
    "b": "b", "d": "d", "ɖ": "ɖ", "f": "f", "ƒ": "ɸ", "g": "ɡ", "ɣ": "ɣ", "h": "h", "x": "x",
    "k": "k", "l": "l", "m": "m", "n": "n", "ŋ": "ŋ", "p": "p", "r": "ɾ", "s": "s", "t": "t",
    "v": "v", "ʋ": "β", "w": "w", "y": "j", "z": "z",
    "dz": "dz", "gb": "ɡ͡b", "kp": "k͡p", "ny": "ɲ", "ts": "ts",
    # letters of names and loans
    "c": "k", "j": "dʑ", "q": "k",
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
    return [SPELLINGS[unit] for unit in _UNIT.findall(spelling)]
