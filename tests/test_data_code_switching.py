"""English words in Twi: golden/code_switching.tsv, and words of real texts labelled by hand."""

import json
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from languages import in_language

from commands.errors import InputError
from data_manifests import code_switching, english_dictionary
from data_manifests.code_switching import (
    EnglishShare,
    english_words,
    mark_english,
    mark_english_words,
)
from data_manifests.language import language
from data_manifests.normalization import normalize_for_scoring

GOLDEN = ROOT / "tests" / "golden"


def read_rows(name: str) -> list[list[str]]:
    lines = (GOLDEN / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(("text", "english"), read_rows("code_switching.tsv"))
def test_golden_row(text: str, english: str) -> None:
    assert english_words(text) == ([] if english == "-" else english.split())


@given(st.text(alphabet="abdeɛikmnoɔstwy '3.,AE ", max_size=60))
def test_each_word_has_one_mark_whatever_was_done_to_the_text_before(text: str) -> None:
    words = normalize_for_scoring(text).split()
    marks = mark_english(text)
    assert len(marks) == len(words)
    assert marks == mark_english(normalize_for_scoring(text)) == mark_english_words(words)


def test_lists_of_the_language_are_normalised_and_each_word_is_in_one() -> None:
    lists = language().code_switching
    assert lists is not None
    listed = [*lists.own_words, *lists.shared_words]
    assert len(listed) == len(set(listed))
    assert all(normalize_for_scoring(word) == word for word in listed)
    english = english_dictionary.word_counts().keys()
    assert {*lists.own_words} <= english  # others are not taken for English anyway
    assert code_switching._names() <= english


def test_a_language_without_lists_is_refused() -> None:
    with (
        in_language("ewe"),
        pytest.raises(InputError, match=r"nothing tells Ewe words from English"),
    ):
        mark_english("Mele table la ŋu.")


def test_a_missing_list_of_words_says_what_to_install() -> None:
    with pytest.raises(InputError, match="pip install no-such-package"):
        english_dictionary._data_file("no-such-package", "words.txt")


def test_the_share_of_english_is_counted() -> None:
    share = EnglishShare()
    for text in ("Table no so na table no wɔ.", "Kofi te dan mu."):
        share.add(text)
    assert share.as_dict() == {"num_words": 11, "num_english": 2, "most_frequent": {"table": 2}}
    assert share.format_line() == "English: 18.2 % of 11 words: table 2"
    with in_language("ewe"):
        share.add("Mele table la ŋu.")
    assert share.num_words == 11


def test_words_labelled_by_hand(real_data: Path) -> None:
    """On the half of the labelled lines that no rule was made on: of 75 English words among 1,049,
    73 are found, and 2 others."""
    counts: Counter[str] = Counter()
    for file, number, num_words, english, undecided, half in read_rows("english_words.tsv"):
        text = read_line(real_data / file, int(number))
        marks = mark_english(text)
        assert len(marks) == int(num_words), f"{file}:{number} is normalised in another way"
        if half == "test":
            truth = {int(place) for place in english.split()}
            left_out = {int(place) for place in undecided.split()}
            counts.update(
                f"{is_english} for {place in truth}"
                for place, is_english in enumerate(marks, start=1)
                if place not in left_out
            )
    found, missed = counts["True for True"], counts["False for True"]
    wrong = counts["True for False"]
    assert counts.total() > 1_000 and found + missed == 75
    print(f"precision {found / (found + wrong):.3f}, recall {found / (found + missed):.3f}")
    assert wrong <= 2 and missed <= 2


def read_line(path: Path, number: int) -> str:
    line = path.read_text(encoding="utf-8").split("\n")[number - 1]
    if path.suffix == ".jsonl":
        return str(json.loads(line)["text"])
    return line.rsplit("\t", 1)[0]
