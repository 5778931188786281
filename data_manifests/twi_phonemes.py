"""Twi spelling to phonemes, in IPA.

    to_phonemes("gyata")                      ->  ["dʑ", "a", "t", "a"]
    to_phonemes("agua", dialect="akuapem")    ->  ["a", "ɡ", "u", "a"]

A broad transcription by rule, of one word as if spoken alone. Sources: Dolphyne (1988), The Akan
(Twi-Fante) Language, for consonants, glides and assimilation; Paster (2010) and Dolphyne for vowel
harmony; Wikipedia, "Akan language", for what differs between dialects.
`tests/golden/twi_phonemes.tsv` shows every rule, one word per line, with its source.

What the spelling does not show is left open: tone, which is lexical and grammatical; nasal vowels,
but for those with a tilde; the raised a before an advanced vowel in Asante and Akuapem; downstep.
"""

import re
import unicodedata

from data_manifests.normalization import normalize_for_training

TILDE = "\u0303"
ROUNDING = "ʷ"
VOWELS = frozenset("aeɛiɪoɔuʊ")

# Spelling -> phonemes; the longest spelling wins. Harmony decides e and o, the next letter decides
# n, and the next vowel decides hw and nw.
SPELLINGS = {
    "a": ("a",), "ɛ": ("ɛ",), "i": ("i",), "ɔ": ("ɔ",), "u": ("u",), "e": ("e",), "o": ("o",),
    "b": ("b",), "d": ("d",), "f": ("f",), "g": ("ɡ",), "h": ("h",), "k": ("k",), "l": ("l",),
    "m": ("m",), "n": ("n",), "p": ("p",), "r": ("ɾ",), "s": ("s",), "t": ("t",), "w": ("w",),
    "y": ("j",), "ŋ": ("ŋ",),
    # palatal and rounded consonants; kw, gw, nk, ng, nky, ngy and nny need no entry
    "ky": ("tɕ",), "gy": ("dʑ",), "hy": ("ɕ",), "ny": ("ɲ",), "tw": ("tɕ", "w"),
    "dw": ("dʑ", "w"), "hw": ("h", "w"), "nw": ("ŋ", "w"),
    # Fante before front vowels
    "ts": ("ts",), "dz": ("dz",),
    # letters of names and loans
    "c": ("k",), "j": ("dʑ",), "q": ("k",), "v": ("v",), "x": ("k", "s"), "z": ("z",),
    "ch": ("tɕ",), "sh": ("ɕ",),
}  # fmt: skip
RETRACTED = {"e": "ɪ", "o": "ʊ"}
BEFORE_FRONT_VOWEL = {"hw": ("ɕ", "w"), "nw": ("ɲ", "w")}
ROUNDED = frozenset(("k", "ɡ", "h", "ŋ", "ɲ", "ɕ", "tɕ", "dʑ"))
"""Consonants that are one phoneme together with a w after them: kʷ, tɕʷ."""

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
_NASAL_VOWEL = f"[{''.join(_VOWEL_LETTERS)}]{TILDE}"
_UNIT = re.compile("|".join([_NASAL_VOWEL, *sorted(SPELLINGS, key=len, reverse=True)]))
_TONES = "\u0300\u0301\u0302\u0304\u030c"


def to_phonemes(word: str, *, dialect: str = "unknown") -> list[str]:
    """Phonemes of one word, as if spoken alone.

    The rules, in order: `LOANS`; marks of tone and apostrophes are dropped (n'ani is one word); the
    longest match in `SPELLINGS`; e and o by harmony; u and o before another vowel become w (dua:
    d w a, but owuo keeps its u); n becomes ŋ before k, ɡ and ŋ, and ɲ before a palatal; a consonant
    of `ROUNDED` and w are one phoneme; a vowel with a tilde is nasal.

    Args:
        word: in Twi spelling.
        dialect: in "akuapem", u stays a vowel between g and another vowel (agua: a ɡ u a); no other
            rule depends on it, because the dialects' spellings differ already.

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
    spelt = _UNIT.findall(spelling)
    units = [unit.removesuffix(TILDE) for unit in spelt]
    harmonic = _harmonize(units)
    phonemes: list[str] = []
    for i, unit in enumerate(units):
        following = units[i + 1] if i + 1 < len(units) else ""
        if unit in BEFORE_FRONT_VOWEL and following in ("i", "e", "ɛ"):
            phonemes += BEFORE_FRONT_VOWEL[unit]
        elif unit in "uo" and _is_glide(phonemes[-1:], unit, following, dialect):
            phonemes.append("w")
        else:
            phonemes += harmonic[i]
            if spelt[i] != unit:
                phonemes[-1] += TILDE
    # Backwards: in nng the second n becomes ŋ, and then the first.
    for i in range(len(phonemes) - 2, -1, -1):
        phonemes[i] = assimilate(phonemes[i], phonemes[i + 1])
    return _join_rounded(phonemes)


def assimilate(phoneme: str, following: str) -> str:
    """What a phoneme becomes before another: n as ŋ before k, ɡ and ŋ, and as ɲ before a palatal,
    rounded or not."""
    if phoneme != "n":
        return phoneme
    following = following.removesuffix(ROUNDING)
    if following in ("k", "ɡ", "ŋ"):
        return "ŋ"
    return "ɲ" if following in ("tɕ", "dʑ", "ɕ", "ɲ") else "n"


def _bare_letters(word: str) -> str:
    """Lower-case letters without marks of tone; nasal vowels in two characters."""
    decomposed = unicodedata.normalize("NFD", normalize_for_training(word).lower())
    kept = "".join(char for char in decomposed if char not in _TONES and char != "'")
    pieces = unicodedata.normalize("NFC", kept)
    return "".join(
        unicodedata.normalize("NFD", char) if TILDE in unicodedata.normalize("NFD", char) else char
        for char in pieces
    )


def _harmonize(units: list[str]) -> list[tuple[str, ...]]:
    """Choose advanced e, o near i or u, but retracted ɪ, ʊ near ɛ or ɔ. The nearest of these four
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


def _is_glide(previous: list[str], unit: str, following: str, dialect: str) -> bool:
    after_consonant = bool(previous) and previous[0][0] not in VOWELS and previous[0] != "w"
    if dialect == "akuapem" and previous == ["ɡ"] and unit == "u":
        return False
    return after_consonant and following in _VOWEL_LETTERS and following != unit


def _join_rounded(phonemes: list[str]) -> list[str]:
    joined: list[str] = []
    for phoneme in phonemes:
        if phoneme == "w" and joined and joined[-1] in ROUNDED:
            joined[-1] += ROUNDING
        else:
            joined.append(phoneme)
    return joined
