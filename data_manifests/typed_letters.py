"""Letters that are typed as a digit or a bracket: in Twi `3` for ɛ and `)` for ɔ.

    TypedLetters(language()).replace("wop3 s3 wok) Class 3B")  ->  "wopɛ sɛ wokɔ Class 3B"

The question is what is a letter and what is a number or a bracket. Three things answer it: what the
text shows by itself (a `)` that closes a `(`, other digits, the markers of a list, a smiley); the
shape that words of the language have (`word_shape.py`), because `3hrs`, `JHS3` and `Ghana).` would
be no words with the letter in them; and a short table of words that have such a shape and are
numbers all the same (`numbers_with_unit`).
"""

import itertools
import re
from collections.abc import Iterator

from data_manifests.language import Language
from data_manifests.word_shape import shape_test

_CURRENCY = "$¢£€₵"
# "3)Kofi", "a)", "iv)"
_LIST_MARKER = re.compile(r"\d+\).*|[aceiouvx]+\)+", re.IGNORECASE)
_LETTER_MARKER = re.compile(r"(?<!\S)[a-zA-Z](?=\))")


class TypedLetters:
    """The rules of one language, compiled."""

    def __init__(self, of: Language) -> None:
        self.typed = of.typed_letters
        self._numbers_with_unit = frozenset(of.numbers_with_unit)
        self._to_letters = str.maketrans(of.typed_letters)
        self._could_be_word = shape_test(of.word_shape, of.vowels) if of.word_shape else None
        # A smiley; or a run of letters, digits, tone marks and a typed `)`, where a number keeps
        # its separators (1.3m) and its currency sign ($3m).
        self._closing = ")" if ")" in of.typed_letters else ""
        self._word = re.compile(
            rf"[:;=][-'^]?\)+|"
            rf"[{_CURRENCY}]?(?:[^\W_]|[\u0300-\u036f{self._closing}]|(?<=\d)[.,:/](?=\d))+"
        )

    def replace(self, text: str) -> str:
        """Replace what is typed for letters. Idempotent.

        Args:
            text: in NFC, after look-alikes were replaced.
        """
        if not any(typed in text for typed in self.typed):
            return text
        letter = self.typed.get(")", "")
        # Whoever has the letter on the keyboard types no bracket for it.
        closes = bool(letter) and letter in text.lower()

        def replace(match: re.Match[str]) -> str:
            return self._replace_in_word(match[0], closes=closes)

        pieces = _split_at_brackets(text)
        return ")".join(self._word.sub(replace, piece) for piece in pieces)

    def _replace_in_word(self, word: str, *, closes: bool) -> str:
        """Args:
        word: what `self._word` matches.
        closes: a `)` at the end is a bracket, unless the word has another one.
        """
        is_number = any(
            c in _CURRENCY + ".,:/" or (c.isnumeric() and c not in self.typed) for c in word
        )
        if is_number or not any(c.isalpha() for c in word) or _LIST_MARKER.fullmatch(word):
            return word
        stem = word.rstrip(self._closing) if self._closing else word
        if closes and len(stem) < len(word) and ")" not in stem:
            return self._replace_in_word(stem, closes=False) + word[len(stem) :]
        if self._is_word(word):
            return self._with_letters(word)
        if len(stem) < len(word):
            return self._replace_in_word(stem, closes=False) + word[len(stem) :]
        if ")" in word[1:]:
            parts = word.split(")")
            return ")".join(self._replace_in_word(part, closes=False) for part in parts)
        return word

    def _is_word(self, word: str) -> bool:
        """Whether a string is a word of the language, once all typed letters are replaced."""
        if word in self._numbers_with_unit or word.lower() in self._numbers_with_unit:
            return False
        if self._could_be_word is None:
            return True
        typed = "".join(self.typed)
        first = word.lstrip(typed)
        if len(first) == 1 and len(first) < len(word) and first.isupper():
            return False  # Class 3B
        if not word.isupper() and any(
            a == ")" and b.isupper() for a, b in itertools.pairwise(word)
        ):
            return False  # a)Kofi
        if self._could_be_word(word.translate(self._to_letters)):
            return True
        ends = typed + "".join(self.typed.values())
        num_capitals = sum(char.isupper() for char in word)
        # b3pick: a letter between letters is one, but not in W3C.
        return word[0].lower() not in ends and word[-1].lower() not in ends and num_capitals < 2

    def _with_letters(self, word: str) -> str:
        # S3 opens a sentence: Sɛ, not SƐ
        is_capitalised = word[1:].strip("".join(self.typed)) == ""
        in_capitals = word.isupper() and not is_capitalised
        for typed, letter in self.typed.items():
            word = word.replace(typed, letter.upper() if in_capitals else letter)
        return word


def _split_at_brackets(text: str) -> list[str]:
    """Split a text at every `)` that is a bracket, whatever stands before it."""
    pieces = []
    start = 0
    for position in sorted({*_closing_brackets(text), *_list_markers(text)}):
        pieces.append(text[start:position])
        start = position + 1
    return [*pieces, text[start:]]


def _closing_brackets(text: str) -> Iterator[int]:
    """Where a `)` closes a `(`; of several in a row, the last does: "(Kofi w))" is (Kofi wɔ)."""
    num_open = 0
    for match in re.finditer(r"\(|\)+", text):
        if match[0] == "(":
            num_open += 1
            continue
        num_closing = min(num_open, len(match[0]))
        num_open -= num_closing
        yield from range(match.end() - num_closing, match.end())


def _list_markers(text: str) -> Iterator[int]:
    """Where a `)` follows a letter that is the next of a list: a) b) c), in this order."""
    last = ""
    for match in _LETTER_MARKER.finditer(text):
        if match[0] in "aA" or (last and match[0] == chr(ord(last) + 1)):
            last = match[0]
            yield match.end()
