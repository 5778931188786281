"""Normalise text, for models to read and for error rates to compare.

    normalize_for_training("De3  w'abɛn\\u200b no")  ->  "Deɛ w'abɛn no"
    normalize_for_scoring("De3  w'abɛn\\u200b no.")  ->  "deɛ wabɛn no"

Unicode has more than a dozen letters that look like ɛ and ɔ, and people whose keyboards have
neither type `3` and `)` for them. NFC repairs none of this, so one spoken word would count as
several written ones. `tests/golden/twi_text.tsv` and `ewe_text.tsv` show every rule at work, one
example per line.

What differs between languages is in `languages/*.toml`: letters, further look-alikes, what is typed
for letters, and which marks count. Dialect spellings (adeɛ / ade / adze), loan letters and digits
are kept: numbers are not spelt out.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

from data_manifests.language import Language, language
from data_manifests.typed_letters import TypedLetters

# Found in Common Voice, WAXAL, MasakhaPOS, AfriQA, MAFAND and tweets. Those marked * were not
# found, but have the shape, or are the other case, of one that was. In decomposed text: έ is ε and
# an accent.
LOOK_ALIKES = {
    # ----- ɛ U+025B, Ɛ U+0190
    "\N{GREEK SMALL LETTER EPSILON}": "ɛ",  # U+03B5 ε
    "\N{GREEK CAPITAL LETTER EPSILON}": "Ɛ",  # U+0395 Ε *
    "\N{CYRILLIC SMALL LETTER REVERSED ZE}": "ɛ",  # U+0511 ԑ
    "\N{CYRILLIC CAPITAL LETTER REVERSED ZE}": "Ɛ",  # U+0510 Ԑ
    "\N{EULER CONSTANT}": "Ɛ",  # U+2107 ℇ
    "\N{LATIN SMALL LETTER REVERSED OPEN E}": "ɛ",  # U+025C ɜ
    "\N{LATIN CAPITAL LETTER REVERSED OPEN E}": "Ɛ",  # U+A7AB Ɜ *
    "\N{LATIN SMALL LETTER EZH REVERSED}": "ɛ",  # U+01B9 ƹ *
    "\N{LATIN CAPITAL LETTER EZH REVERSED}": "Ɛ",  # U+01B8 Ƹ
    "\N{LATIN SMALL LETTER TRESILLO}": "ɛ",  # U+A72B ꜫ *
    "\N{LATIN CAPITAL LETTER TRESILLO}": "Ɛ",  # U+A72A Ꜫ
    # ----- ɔ U+0254, Ɔ U+0186
    "\N{LATIN SMALL LETTER REVERSED C}": "ɔ",  # U+2184 ↄ
    "\N{ROMAN NUMERAL REVERSED ONE HUNDRED}": "Ɔ",  # U+2183 Ↄ
    "\N{GREEK SMALL REVERSED LUNATE SIGMA SYMBOL}": "ɔ",  # U+037B ͻ
    "\N{GREEK CAPITAL REVERSED LUNATE SIGMA SYMBOL}": "Ɔ",  # U+03FD Ͻ
    "\N{LATIN LETTER SMALL CAPITAL OPEN O}": "ɔ",  # U+1D10 ᴐ
    "\N{LISU LETTER CHA}": "Ɔ",  # U+A4DB ꓛ
    # ----- a
    "\N{LATIN SMALL LETTER ALPHA}": "a",  # U+0251 ɑ
    "\N{LATIN CAPITAL LETTER ALPHA}": "A",  # U+2C6D Ɑ *
    # ----- the cedi sign, as in GH¢ 5
    "\N{LATIN SMALL LETTER C WITH STROKE}": "¢",  # U+023C ȼ
    "\N{LATIN CAPITAL LETTER C WITH STROKE}": "¢",  # U+023B Ȼ *
    # ----- apostrophe, as in n'ani; a quotation mark of the same shape becomes an apostrophe too
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",  # U+2019 ’
    "\N{LEFT SINGLE QUOTATION MARK}": "'",  # U+2018 ‘
    "\N{MODIFIER LETTER APOSTROPHE}": "'",  # U+02BC ʼ
    "\N{MODIFIER LETTER TURNED COMMA}": "'",  # U+02BB ʻ *
    "\N{MODIFIER LETTER PRIME}": "'",  # U+02B9 ʹ
    "\N{PRIME}": "'",  # U+2032 ′ *
    "\N{ACUTE ACCENT}": "'",  # U+00B4 ´ *
    "\N{GRAVE ACCENT}": "'",  # U+0060 ` *
}

_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e"  # soft hyphen, Arabic letter mark, Mongolian vowel separator
    "\u200b-\u200f\u202a-\u202e"  # zero-width space, (non-)joiner, direction marks
    "\u2060-\u206f\ufeff"  # word joiner, invisible operators, direction isolates; byte order mark
    "\ufe00-\ufe0f]"  # variation selectors, as in emoji
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
# "N.D.C.", "p.m", "3p.m.", but not the full stop in "aba.Na"
_INITIALS = re.compile(r"(?<![^\W\d])[^\W\d_](?:\.[^\W\d_])+(?!\w)\.?")
_DIGIT = re.compile(r"\d")
_NUMBER_EDGE = re.compile(r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)")


def normalize_for_training(text: str) -> str:
    """Make the spelling of a text consistent, and keep everything a reader or a voice could use.

    NFC; invisible characters removed; `LOOK_ALIKES` and those of the language replaced; what is
    typed for letters inside a word (in Twi `3` for ɛ and `)` for ɔ) replaced by them; control
    characters and runs of white space become one space. Case, punctuation, apostrophes, hyphens,
    tone and nasal marks stay.

    Where `3` and `)` are typed, they are letters only in a run of letters that holds no other
    digit and has the shape of a word: s3, de3, w), 3y3, p333; not 3hrs, JHS3 or Ghana). Plain
    numbers (3, 13, 3%, 1.3m, $3m), the language's `numbers_with_unit`, a `)` that closes a `(`,
    smileys and list markers (a) b), 3)) stay. In a word of capitals the letter is one: Y3N -> YƐN.
    `typed_letters.py` has the rules.

    Idempotent. Never raises for a text; the empty string gives the empty string.
    """
    return _rules(language()).for_training(text)


def normalize_for_scoring(text: str) -> str:
    """Reduce a text to the words that WER and CER compare.

    All of `normalize_for_training`; then lower case, apostrophes removed without a space (n'ani ->
    nani), marks dropped (á ń ẽ -> a n e; ɛ and ɔ are letters and stay) but for those on vowels that
    tell the language's words apart (Ewe's tilde: ã stays ã), dotted initials joined if the language
    says so (N.D.C. -> ndc), everything else that is not a letter or a digit (hyphen, punctuation,
    emoji) a space, and a number apart from the letters beside it (10k -> 10 k; Covid19 and
    Covid-19 -> covid 19).

    Idempotent, and the same whether or not the text was normalised for training before. It has none
    of the rules of English normalisers that rewrite words: contractions, fillers, spellings,
    numbers.
    """
    return _rules(language()).for_scoring(text)


def is_speakable(text: str) -> bool:
    """Whether a text has at least one letter to pronounce; "", "...", "😂" and "2024" do not."""
    return any(char.isalpha() for char in normalize_for_scoring(text))


class _Rules:
    """The rules of one language, compiled."""

    def __init__(self, of: Language) -> None:
        own = of.alphabet + of.alphabet.upper()
        alike = {char: letter for char, letter in LOOK_ALIKES.items() if char not in own}
        self.look_alikes = str.maketrans({**alike, **of.look_alikes})
        self.typed_letters = TypedLetters(of)
        self.vowels, self.kept_marks = of.vowels, of.kept_marks
        self.joins_initials = of.joins_initials
        # What most sentences consist of: no rule changes it (possessive: never tried again).
        marked = of.marked_vowels + of.marked_vowels.upper()
        digits = "".join(sorted(set("0123456789").difference(of.typed_letters)))
        plain = f"[A-Za-z{digits}{own}{marked}.,;:!?'\"(“”«»–—…-]++"
        self.plain = re.compile(f"{plain}(?: {plain})*+")
        self.not_in_words = re.compile(rf"[^\w{of.kept_marks}]|_" if of.kept_marks else r"[\W_]")
        # A row's text is needed several times while it is at hand.
        self.for_scoring = functools.lru_cache(maxsize=256)(self._score)

    def for_training(self, text: str) -> str:
        """As `normalize_for_training`."""
        if self.plain.fullmatch(text):
            return text
        text = _CONTROL.sub(" ", _INVISIBLE.sub("", text))
        text = unicodedata.normalize("NFD", text).translate(self.look_alikes)
        text = self.typed_letters.replace(unicodedata.normalize("NFC", text))
        return " ".join(text.split())

    def _score(self, text: str) -> str:
        text = self.for_training(text)
        if self.joins_initials and "." in text:
            text = _INITIALS.sub(lambda initials: f"{initials[0].replace('.', '')} ", text)
        text = text.lower()
        if self.plain.fullmatch(text) is None:  # it may hold marks
            text = unicodedata.normalize("NFD", text)
            text = unicodedata.normalize("NFC", "".join(self._without_marks(text)))
        text = self.not_in_words.sub(" ", text.replace("'", ""))
        if _DIGIT.search(text):
            text = _NUMBER_EDGE.sub(" ", text)
        return " ".join(text.split())

    def _without_marks(self, decomposed: str) -> Iterator[str]:
        """The characters of a text without marks, but for a kept mark on a vowel, once each."""
        kept = ""
        for char in decomposed:
            if not unicodedata.category(char).startswith("M"):
                kept = self.kept_marks if char in self.vowels else ""
                yield char
            elif char in kept:
                kept = kept.replace(char, "")
                yield char


_rules = functools.cache(_Rules)
