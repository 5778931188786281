"""How the benchmark of number reading finds numbers that are written both ways, and what it says of
the real ones."""

from collections import Counter
from itertools import takewhile
from pathlib import Path

import pytest
from conftest import run

from benchmarks import number_reading
from benchmarks.number_reading import (
    OUTCOMES,
    Pair,
    Text,
    find_pairs,
    format_pairs,
    format_patterns,
    read_texts,
    untokenize,
)
from commands.errors import InputError

EQUAL, SPELLED, PUT = OUTCOMES


@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        (Text("a", "Ɛsii wɔ afe mpem mmienu ne dunsia.", "It was in 2016."), [EQUAL]),
        (Text("a", "Ɛsii wɔ afe mpem mmienu ne dumien.", "It was in 2012."), [SPELLED]),
        (Text("a", "Ɛsii wɔ apem ne ahankron aduonum nson.", "It was in 1957."), [PUT]),
        (Text("a", "Nnipa baanan na ɛbaeɛ.", "4 people came."), [EQUAL]),
        (Text("a", "Nnipa baanan na ɛbaeɛ.", "5 people came."), []),
        (Text("m", "Wadi mfeɛ aduasa (30) na ɔte Kumase."), [EQUAL]),
        (Text("m", "Wadi mfeɛ du-nan (14)."), [SPELLED]),
        (Text("m", "Ɔpepem mmienu ($2millio)."), [PUT]),
        (Text("m", "Wadi mfeɛ aduasa (30"), [EQUAL]),
        (Text("m", "Mfeɛ 30 (London)"), []),
    ],
)
def test_numbers_written_both_ways(text: Text, outcomes: list[str]) -> None:
    assert [pair.outcome for pair in find_pairs(text)] == outcomes


def test_what_counts_as_another_spelling() -> None:
    text = Text("a", "")
    assert Pair(text, "15", "Du-num", "dunum").outcome == SPELLED
    assert Pair(text, "15", "Du num", "du num").outcome == EQUAL
    assert Pair(text, "120", "ɔha aduonu", "ɔha ne aduonu").outcome == PUT
    assert Pair(text, "120", "ɔha", "").outcome == PUT


def test_numbers_are_untokenized() -> None:
    assert untokenize("sika GH ¢ 1 , 292 , 180 ;") == "sika GH¢1,292,180;"
    assert untokenize("mfeɛ aduasa ( 30 ) , 4 . 05 % na du - num") == (
        "mfeɛ aduasa (30), 4.05% na du-num"
    )
    assert untokenize("Ayɛwohomumɔ 2 , 2021 no") == "Ayɛwohomumɔ 2, 2021 no"


def test_a_folder_without_the_corpora_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder afriqa_twi"):
        run(number_reading.main, "--data", tmp_path)


def test_real_numbers(real_data: Path) -> None:
    """Of AfriQA's questions every number is read as it was written, or in another spelling."""
    texts = takewhile(lambda text: text.corpus == "AfriQA", read_texts(real_data))
    pairs = [pair for text in dict.fromkeys(texts) for pair in find_pairs(text)]
    counts = Counter(pair.outcome for pair in pairs)
    assert counts[EQUAL] >= 70 and counts[SPELLED] <= 4 and not counts[PUT]
    table = format_pairs(pairs)
    assert "second half, AfriQA" in table and "mpem mmienu ne aduono" in table
    assert "patterns with digits: 1 read, 1 left" in format_patterns(
        [Text("a", "Wɔ 2021 mu, COVID-19 baeɛ.")]
    )
