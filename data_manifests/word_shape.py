"""Whether a string could be a word of the language: by its syllables, not by a list of words.

could_be_word = shape_test(language().word_shape, language().vowels)
could_be_word("wɔbɛba")   ->  True
could_be_word("ɛhrs")     ->  False: no Twi syllable has "hrs"
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, eq=False)
class WordShape:
    """What words of the language may consist of; all in lower case, without marks.

    A word is a row of syllables: a vowel with or without an onset, or one of `syllabic`. A vowel
    may be followed by one of `codas`, the last syllable by one of `final_codas`, drawn out or not.

    Attributes:
        onsets: what may stand before a vowel: "b", "ky", "br".
        syllabic: consonants that need no vowel.
        codas: consonants that may close a syllable.
        final_codas: consonants that may close the last syllable only.
        absent_pairs: two letters that never stand side by side.
        absent_beginnings: what no word begins with.
        shorthand: letters by what is typed for them and not replaced, because it is a letter too;
            it is read so unless a vowel or an h follows, as in English words.
    """

    onsets: tuple[str, ...]
    syllabic: str = ""
    codas: str = ""
    final_codas: str = ""
    absent_pairs: tuple[str, ...] = ()
    absent_beginnings: tuple[str, ...] = ()
    shorthand: dict[str, str] = field(default_factory=dict)

    def parts(self) -> Iterator[str]:
        """Its texts, all of which must be letters of the language."""
        yield from (*self.onsets, self.syllabic, self.codas, self.final_codas)
        yield from (*self.absent_pairs, *self.absent_beginnings)
        yield from (*self.shorthand, *self.shorthand.values())


def shape_test(shape: WordShape, vowels: str) -> Callable[[str], bool]:
    """A function that says whether a string of letters, in any case and with any marks, has the
    shape of a word."""
    onset = "|".join(sorted(shape.onsets, key=len, reverse=True))
    coda = f"(?:[{shape.codas}](?![{vowels}]))?" if shape.codas else ""
    syllabic = f"|[{shape.syllabic}]" if shape.syllabic else ""
    final_coda = f"[{shape.final_codas}]*" if shape.final_codas else ""
    # Possessive (++): one way to read a word is enough, and a long one takes no longer.
    word = re.compile(f"(?:(?:{onset})?[{vowels}]{coda}{syllabic})++{final_coda}")
    absent = [*shape.absent_pairs, *(f"^{beginning}" for beginning in shape.absent_beginnings)]
    is_absent = re.compile("|".join(absent) or "(?!)")
    typed = "".join(shape.shorthand)
    shorthand = re.compile(f"[{typed}](?![{vowels}h])" if typed else "(?!)")

    @functools.lru_cache(maxsize=4096)
    def could_be_word(text: str) -> bool:
        decomposed = unicodedata.normalize("NFD", text.lower())
        plain = "".join(char for char in decomposed if not unicodedata.combining(char))
        plain = shorthand.sub(lambda match: shape.shorthand[match[0]], plain)
        return word.fullmatch(plain) is not None and is_absent.search(plain) is None

    return could_be_word
