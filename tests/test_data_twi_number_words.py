"""Numbers in words back to digits: every line of golden/twi_number_words.tsv, and that it undoes
`number_in_words`."""

import random
from pathlib import Path

import pytest

from data_manifests.twi_cardinals import MAX_NUMBER, Counting, number_in_words
from data_manifests.twi_number_forms import DIALECTS, number_forms, read_table, spellings
from data_manifests.twi_number_words import words_to_digits

GOLDEN = Path(__file__).parent / "golden" / "twi_number_words.tsv"
ROWS = [
    pytest.param(*line.split("\t"), id=f"line{number}")
    for number, line in enumerate(GOLDEN.read_text(encoding="utf-8").splitlines(), start=1)
    if line and not line.startswith("#")
]


@pytest.mark.parametrize(("text", "digits", "source"), ROWS)
def test_golden_row(text: str, digits: str, source: str) -> None:
    assert words_to_digits(text) == digits
    assert words_to_digits(digits) == digits
    assert source


@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_undoes_number_in_words(dialect: str) -> None:
    draws = random.Random(0)
    numbers = [*range(2001), *(draws.randrange(10 ** draws.randint(4, 12)) for _ in range(1500))]
    counting: tuple[Counting, ...] = ("numbers", "things", "people")
    for number in [*numbers, MAX_NUMBER]:
        words = number_in_words(number, dialect, counting=counting[number % 3])
        assert words_to_digits(words) == str(number), words


def test_two_numbers_beside_each_other_stay_two() -> None:
    draws = random.Random(1)
    for _ in range(1000):
        one, other = draws.randrange(1, 10), draws.randrange(1, 10**6)
        dialect = draws.choice(DIALECTS)
        words = f"{number_in_words(one, dialect)} {number_in_words(other, dialect)}"
        assert words_to_digits(words) == f"{one} {other}"


def test_texts_without_numbers_do_not_change() -> None:
    for text in ("", "Me nua, wo ho te sɛn?", "Nanso ɔno nnim.", "Kofi ne Ama", "\n \t"):
        assert words_to_digits(text) is text


def test_every_form_has_a_source_and_one_value() -> None:
    rows = list(read_table("twi_numbers.tsv"))
    assert all(row.source for row in rows)
    assert len(spellings()) > 140
    for dialect in DIALECTS:
        forms = number_forms(dialect)
        for table in (forms.units, forms.counted, forms.of_people, forms.teens, forms.tens):
            assert all(spellings()[word] == number for number, word in table.items())


@pytest.mark.parametrize("number", [-1, MAX_NUMBER + 1])
def test_a_number_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"number {number}: expected 0 to {MAX_NUMBER}"):
        number_in_words(number, "asante")


@pytest.mark.parametrize("dialect", ["ewe", "unknown", ""])
def test_a_dialect_without_forms_is_refused(dialect: str) -> None:
    with pytest.raises(ValueError, match="asante, akuapem and fante only"):
        number_in_words(1, dialect)
