"""Which words of a text are English: Ghanaians mix both languages in one sentence.

    mark_english("Na bowls bebree sisi hɔ.")     ->  [False, True, False, False, False]
    english_words("Na bowls bebree sisi hɔ.")    ->  ["bowls"]

A word is English if it is spelt as in English and used as such. Not English are names (Kofi, Kenya,
John), and loans that are spelt as the language spells them (sukuu, kaa, ambrɛla). The language's
file has, in `[code_switching]`, its own words that English spells alike (kan, kwan, asa), and those
that are frequent in both (me, so, no, to): the latter are English only before an English word, and
not after one of the language.
`tests/test_data_code_switching.py` measures it on words labelled by hand.
"""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from commands.errors import InputError
from data_manifests.english_dictionary import CONTRACTIONS, word_counts
from data_manifests.language import Language, language
from data_manifests.normalization import normalize_for_scoring

ENGLISH, OWN, SHARED, NAME = "english", "own", "shared", "name"

# Words of at most two letters are English only if they are one of these, or shared.
SHORT_WORDS = frozenset(
    ("in", "of", "on", "at", "it", "is", "if", "my", "by", "or", "as", "up", "us", "go")
)
# Written in Ghana's English, and in no dictionary.
GHANAIAN_ENGLISH = frozenset(("okro", "okros", "trotro", "smartphone", "smartphones", "selfie"))
NUM_FREQUENT, NUM_SHOWN = 50, 10
"""English words that are listed in reports, and printed."""
MIN_COUNT = 50_000
"""How often a word must be in the books if its letters show that it is none of the language."""
MIN_COUNTS_IF_LIKE_OWN = {3: 5_000_000, 4: 1_500_000, 5: 1_500_000}
"""As above, of words that could be of the language, by their length: short ones are alike by
chance. Longer ones need `MIN_COUNT_IF_LONG_AND_LIKE_OWN`."""
MIN_COUNT_IF_LONG_AND_LIKE_OWN = 200_000


def mark_english(text: str) -> list[bool]:
    """Whether each word of `normalize_for_scoring(text).split()` is English.

    Raises:
        InputError: the language's file has no `[code_switching]`.
    """
    return mark_english_words(normalize_for_scoring(text).split())


def mark_english_words(words: Sequence[str]) -> list[bool]:
    """Whether each of the words is English.

    Args:
        words: neighbours in a text, normalised for scoring.

    Raises:
        InputError: the language's file has no `[code_switching]`.
    """
    used = language()
    if used.code_switching is None:
        raise InputError(f"nothing tells {used.name} words from English: [code_switching] is empty")
    kinds = [_kind_of(word, used) for word in words]
    marked = [kind == ENGLISH for kind in kinds]
    if SHARED not in kinds:
        return marked
    before, after = _last_certain(kinds), _last_certain(kinds[::-1])[::-1]
    for place, kind in enumerate(kinds):
        if kind == SHARED:
            # Not after an English word only: "table no" is Twi, the table.
            marked[place] = after[place] == ENGLISH and before[place] != OWN
    return marked


def english_words(text: str) -> list[str]:
    """The English words of a text, normalised for scoring, in order.

    Raises:
        InputError: the language's file has no `[code_switching]`.
    """
    words = normalize_for_scoring(text).split()
    return [word for word, marked in zip(words, mark_english_words(words), strict=True) if marked]


class EnglishShare:
    """How many of the words of texts are English, and which; in languages where nothing tells,
    none is counted.

    Attributes:
        num_words: words of all texts, as normalised for scoring.
        counts: how often each English word occurs.
    """

    def __init__(self) -> None:
        self.num_words = 0
        self.counts: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """Count the words of a text."""
        if language().code_switching is not None:
            self.add_counted(len(normalize_for_scoring(text).split()), english_words(text))

    def add_counted(self, num_words: int, english: Iterable[str]) -> None:
        """Count the words of a text of which the English ones are known."""
        self.num_words += num_words
        self.counts.update(english)

    def as_dict(self) -> dict[str, Any]:
        """The share and the most frequent English words, ready for JSON."""
        frequent = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            "num_words": self.num_words,
            "num_english": self.counts.total(),
            "most_frequent": dict(frequent[:NUM_FREQUENT]),
        }

    def format_line(self) -> str:
        """As `format_english`."""
        return format_english(self.as_dict())


def format_english(found: Mapping[str, Any]) -> str:
    """`EnglishShare.as_dict` as a line: "English: 2.0 % of 72,103 words: table 76, blue 60"."""
    share = 100 * found["num_english"] / max(1, found["num_words"])
    frequent = [*found["most_frequent"].items()][:NUM_SHOWN]
    shown = ", ".join(f"{word} {count}" for word, count in frequent)
    return f"English: {share:.1f} % of {found['num_words']:,} words" + (shown and f": {shown}")


def _last_certain(kinds: Sequence[str]) -> list[str]:
    """For each word the kind of the last one up to it that says something of the language; "" if
    there is none."""
    certain = itertools.accumulate(
        kinds, lambda last, kind: kind if kind in (ENGLISH, OWN) else last, initial=""
    )
    return list(certain)[1:]


@functools.lru_cache(maxsize=2**14)
def _kind_of(word: str, of: Language) -> str:
    lists = of.code_switching
    assert lists is not None
    if word in _words(lists.shared_words):
        return SHARED
    if word in _words(lists.own_words) or not word.isascii() or not word.isalpha():
        return NAME if word.isnumeric() else OWN
    if word in SHORT_WORDS or word in GHANAIAN_ENGLISH or word in CONTRACTIONS:
        return ENGLISH
    if word in _names():
        return NAME
    if len(word) <= 2:
        return OWN
    return ENGLISH if word_counts().get(word, 0) >= _min_count(word, of) else OWN


def _min_count(word: str, of: Language) -> int:
    if of.cues is None or _unlike_own(of.cues.absent, of.cues.never_final).fullmatch(word):
        return MIN_COUNT
    return MIN_COUNTS_IF_LIKE_OWN.get(len(word), MIN_COUNT_IF_LONG_AND_LIKE_OWN)


@functools.cache
def _unlike_own(absent: str, never_final: str) -> re.Pattern[str]:
    """Words with a letter that no word of the language has, or that ends none."""
    shapes = [rf"\w*[{absent}]\w*"] if absent else []
    shapes += [rf"\w+[{never_final}]"] if never_final else []
    return re.compile("|".join(shapes) or "(?!)")


@functools.cache
def _names() -> frozenset[str]:
    lines = files("data_manifests").joinpath("english_names.txt").read_text(encoding="utf-8")
    rows = (line for line in lines.splitlines() if not line.startswith("#"))
    return frozenset(name for row in rows for name in row.split())


_words = functools.cache(frozenset[str])
