"""The prefix that Speechless is given: dialect, speaking rate, and the text's characters.

    [dialect][rate][m][e][ ][d][i][n]...[start]

Texts are normalised for scoring: lower case, no punctuation, no tone marks. Those are the letters
that a model can learn to pronounce from a few hours of speech, and by which the recogniser is
evaluated.
"""

# S prefix positions

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from commands.errors import InputError, nearest_name
from commands.schema import shorten
from data_manifests.language import language
from data_manifests.normalization import normalize_for_scoring

# Characters per second, spaces included, in bins of 1; fast Twi reaches 17. WhisperSpeech
# conditions on the same quantity in 32 bins of 0.625 (collabora, t2s_up_wds_mlang_enclm.py).
NUM_RATES = 24

NOTHING = 0  # has a zero embedding: padding, and unused columns of a prefix position
START = 1
NUM_CONDITIONS = 2  # dialect and rate, before the first character
PREFIX_EXTRA = NUM_CONDITIONS + 1  # positions of a prefix beside its characters: `START` as well


def all_characters() -> str:
    """Every character that is left in a text of the language once it is normalised for scoring: its
    letters, those of loanwords and names, and digits, which corpora contain and speakers read
    out."""
    return f" {language().characters}"


def all_dialects() -> tuple[str, ...]:
    """The dialects of the language, and "unknown"."""
    return language().all_dialects


def without_text(prefix: Sequence[int]) -> list[int]:
    """A prefix in which nothing stands in place of every character."""
    hidden = [NOTHING] * (len(prefix) - PREFIX_EXTRA)
    return [*prefix[:NUM_CONDITIONS], *hidden, prefix[-1]]


@dataclass(frozen=True)
class Vocabulary:
    """Token numbers of everything that can occur in a prefix. Code tokens are numbered after them.

    Attributes:
        characters: the characters allowed; anything else in a text is refused.
        dialects: names of dialects; in training, "unknown" is also used at random.
        num_rates: number of bins of speaking rate, 1 character per second each.
    """

    characters: str = field(default_factory=all_characters)
    dialects: tuple[str, ...] = field(default_factory=all_dialects)
    num_rates: int = NUM_RATES

    @property
    def size(self) -> int:
        """Number of prefix tokens, including `NOTHING` and `START`."""
        return 2 + len(self.dialects) + self.num_rates + len(self.characters)

    def encode(self, text: str, dialect: str, rate_cps: float) -> list[int]:
        """Encode a prefix as token numbers.

        Args:
            text: what is to be said; normalised here.
            dialect: one of `dialects`.
            rate_cps: speaking rate in characters per second; rates beyond the last bin are put in
                that bin.

        Returns:
            S = 3 + characters numbers in [1, size).

        Raises:
            InputError: as `spoken_characters`, an unknown dialect, or a rate that is not positive.
        """
        if dialect not in self.dialects:
            raise InputError(f"dialect {dialect!r}: {nearest_name(dialect, self.dialects)}")
        first_rate = 2 + len(self.dialects)
        first_character = first_rate + self.num_rates
        characters = self.spoken_characters(text)
        return [
            2 + self.dialects.index(dialect),
            first_rate + self._rate_bin(rate_cps),
            *(first_character + self.characters.index(char) for char in characters),
            START,
        ]

    def spoken_characters(self, text: str) -> str:
        """A text as Speechless reads it.

        Raises:
            InputError: no letter in it, or a character outside the inventory.
        """
        characters = normalize_for_scoring(text)
        if not any(char.isalpha() for char in characters):
            raise InputError(f"no letter to pronounce in {shorten(text)}")
        if unknown := sorted(set(characters) - set(self.characters)):
            raise InputError(f"no sound for {' '.join(unknown)} in {shorten(text)}")
        return characters

    def _rate_bin(self, rate_cps: float) -> int:
        if not (math.isfinite(rate_cps) and rate_cps > 0):
            raise InputError(f"rate must be a positive number of characters/s, got {rate_cps}")
        return min(max(round(rate_cps), 1), self.num_rates) - 1
