"""What is done to a reference and to a transcript before they are compared.

TextRules().apply("N'ani y3 d3.")                                   ->  "nani yɛ dɛ"
TextRules(numbers_as_digits=True).apply("mfeɛ aduonu baako")        ->  "mfeɛ 21"
TextRules(leave_out_tags=True).apply("Aane [noise] <unk> (laughs)") ->  "aane"
"""

import re
from dataclasses import dataclass

from commands.errors import InputError
from data_manifests.language import language
from data_manifests.normalization import normalize_for_scoring
from data_manifests.twi_number_words import words_to_digits

# As Whisper's and the Open ASR Leaderboard's normalisers leave them out, but for three things: a
# tag is no longer than this, its two brackets are of one kind, and it leaves a space.
MAX_TAG_CHARACTERS = 80
_TAG = re.compile(
    rf"\[[^\[\]]{{0,{MAX_TAG_CHARACTERS}}}\]"
    rf"|<[^<>]{{0,{MAX_TAG_CHARACTERS}}}>"
    rf"|\([^()]{{0,{MAX_TAG_CHARACTERS}}}\)"
)


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """Rules for both texts, in the order in which they are applied.

    Attributes:
        leave_out_tags: what stands in [ ], < > or ( ) is no word: [noise], <unk>, (laughs). What
            was said is lost where it stands in brackets.
        numbers_as_digits: numbers in words become their digits, as in `twi_number_words.py`, so
            that aduonu baako and 21 are the same; digits are compared without separators.
        normalize: as `normalize_for_scoring`; otherwise only white space is unified.
    """

    leave_out_tags: bool = False
    numbers_as_digits: bool = False
    normalize: bool = True

    def apply(self, text: str) -> str:
        """The text that is compared.

        Raises:
            InputError: `numbers_as_digits` for a language whose number words are not known.
        """
        if self.leave_out_tags:
            text = _TAG.sub(" ", text)
        if self.numbers_as_digits:
            if language().numbers != "twi":
                raise InputError(f"numbers as digits: {language().name}'s number words are unknown")
            text = words_to_digits(text)
        return normalize_for_scoring(text) if self.normalize else " ".join(text.split())

    @property
    def name(self) -> str:
        """What error rates carry: "twi-2", "twi-2, numbers as digits, without tags", "none"."""
        parts = [language().normalization if self.normalize else "none"]
        parts += ["numbers as digits"] if self.numbers_as_digits else []
        parts += ["without tags"] if self.leave_out_tags else []
        return ", ".join(parts)
