"""Twi spelling to phonemes, in espeak-ng's ASCII notation for its voice `hi`.

    to_phonemes("gyata")   ->  ["dZ;", "a", "t", "a"]

Written for the demo's synthesiser: a broad transcription, without tone and nasal vowels, which the
spelling does not show. Rules follow Dolphyne (1988), The Akan (Twi-Fante) Language, and Paster
(2010) on vowel harmony. `tests/golden/twi_phonemes.tsv` shows every rule, one word per line.
"""

import re
import unicodedata

from data_manifests.normalization import normalize_for_training

VOWELS = frozenset("aeEIioOUu")

# Spelling -> phonemes; the longest spelling wins. Harmony decides e and o, the next letter decides
# n, and the next vowel decides hw and nw.
SPELLINGS = {
    "a": ("a",), "ɛ": ("E",), "i": ("i",), "ɔ": ("O",), "u": ("u",), "e": ("e",), "o": ("o",),
    "b": ("b",), "d": ("d",), "f": ("f",), "g": ("g",), "h": ("h",), "k": ("k",), "l": ("l",),
    "m": ("m",), "n": ("n",), "p": ("p",), "r": ("*",), "s": ("s",), "t": ("t",), "w": ("w",),
    "y": ("j",), "ŋ": ("N",),
    # palatal and rounded consonants; kw, gw, nk, ng, nky, ngy and nny need no entry
    "ky": ("tS;",), "gy": ("dZ;",), "hy": ("S;",), "ny": ("n^",), "tw": ("tS;", "w"),
    "dw": ("dZ;", "w"), "hw": ("h", "w"), "nw": ("N", "w"),
    # letters of names and loans
    "c": ("k",), "j": ("dZ;",), "q": ("k",), "v": ("v",), "x": ("k", "s"), "z": ("z",),
    "ch": ("tS;",), "sh": ("S;",),
}  # fmt: skip
RETRACTED = {"e": "I", "o": "U"}
BEFORE_FRONT_VOWEL = {"hw": ("S;", "w"), "nw": ("n^", "w")}

LOANS = {
    "abuja": "abugya", "accra": "akraa", "africa": "afrika", "bamako": "bamako",
    "banjul": "bangyul", "benin": "bɛniin", "cairo": "kairo", "dakar": "dakaa",
    "egypt": "igyipt", "england": "inglɛnd", "gambia": "gambia", "ghana": "gaana",
    "jesus": "yesu", "kenya": "kɛnya", "lagos": "legɔs", "lome": "lomee", "london": "lɔndɔn",
    "niamey": "niamee", "niger": "nigyɛɛ", "nigeria": "naigyiria", "paris": "paaris",
    "senegal": "sɛnɛgaal", "uganda": "yuganda",
}  # fmt: skip
"""Names whose spelling is not Twi, respelt as a Twi speaker might say them."""

_VOWEL_LETTERS = tuple("aeɛioɔu")
_UNIT = re.compile("|".join(sorted(SPELLINGS, key=len, reverse=True)))
_MARKS = "\u0300\u0301\u0302\u0303\u0304\u030c"  # tone, and the tilde of nasal vowels


def to_phonemes(word: str) -> list[str]:
    """Phonemes of one word, as if spoken alone.

    The rules, in order: `LOANS`; marks of tone and nasality and apostrophes are dropped (n'ani is
    one word); the longest match in `SPELLINGS`; e and o by harmony; u and o before another vowel
    become w (dua: d w a, but owuo keeps its u); n becomes N before k, g and N, and n^ before a
    palatal.

    Raises:
        ValueError: letters or characters that no rule covers; they are named.
    """
    spelling = _bare_letters(word)
    spelling = LOANS.get(spelling, spelling)
    unknown = sorted(set(_UNIT.sub("", spelling)))
    if unknown or not spelling:
        named = ", ".join(map(repr, unknown)) or "no letter"
        hint = "; write numbers in words" if any(char.isdigit() for char in unknown) else ""
        raise ValueError(f"word {word!r}: cannot pronounce {named}{hint}")
    units = _UNIT.findall(spelling)
    harmonic = _harmonize(units)
    phonemes: list[str] = []
    for i, unit in enumerate(units):
        following = units[i + 1] if i + 1 < len(units) else ""
        if unit in BEFORE_FRONT_VOWEL and following in ("i", "e", "ɛ"):
            phonemes += BEFORE_FRONT_VOWEL[unit]
        elif unit in "uo" and _is_glide(phonemes[-1:], unit, following):
            phonemes.append("w")
        else:
            phonemes += harmonic[i]
    # Backwards: in nng the second n becomes N, and then the first.
    for i in range(len(phonemes) - 2, -1, -1):
        phonemes[i] = assimilate(phonemes[i], phonemes[i + 1])
    return phonemes


def assimilate(phoneme: str, following: str) -> str:
    """What a phoneme becomes before another: n as N before k, g and N, and as n^ before a
    palatal."""
    if phoneme != "n":
        return phoneme
    if following in ("k", "g", "N"):
        return "N"
    return "n^" if following in ("tS;", "dZ;", "S;", "n^") else "n"


def _bare_letters(word: str) -> str:
    decomposed = unicodedata.normalize("NFD", normalize_for_training(word).lower())
    kept = "".join(char for char in decomposed if char not in _MARKS and char != "'")
    return unicodedata.normalize("NFC", kept)


def _harmonize(units: list[str]) -> list[tuple[str, ...]]:
    """Choose advanced e, o near i or u, but retracted I, U near ɛ or ɔ. The nearest of these four
    vowels decides; if two are equally near, the following one. `a` has no effect. Without any of
    the four the vowel is retracted, as in me, wo, no, de."""
    vowels = [i for i, unit in enumerate(units) if unit in _VOWEL_LETTERS]
    result = [SPELLINGS[unit] for unit in units]
    triggers = [place for place, i in enumerate(vowels) if units[i] in "iuɛɔ"]
    for place, i in enumerate(vowels):
        if units[i] in "eo":
            near = min(triggers, key=lambda t: (abs(t - place), -t), default=None)
            is_advanced = near is not None and units[vowels[near]] in "iu"
            result[i] = (units[i],) if is_advanced else (RETRACTED[units[i]],)
    return result


def _is_glide(previous: list[str], unit: str, following: str) -> bool:
    after_consonant = bool(previous) and previous[0] not in VOWELS and previous[0] != "w"
    return after_consonant and following in _VOWEL_LETTERS and following != unit
