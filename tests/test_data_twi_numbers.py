"""Numbers in words: every line of golden/twi_numbers.tsv, and what must hold for any number."""

import json
import random
import re
from pathlib import Path

import pytest

from data_manifests import twi_numbers
from data_manifests.normalization import normalize_for_training
from data_manifests.twi_numbers import number_in_words, spell_numbers

GOLDEN = Path(__file__).parent / "golden" / "twi_numbers.tsv"
DIALECTS = ("asante", "akuapem")
TWI_WORDS = re.compile("[abdeɛfghiklmnoɔprstuwy]+( [abdeɛfghiklmnoɔprstuwy]+)*")


def read_golden() -> list[tuple[int, str, str, str, str]]:
    rows = []
    for number, line in enumerate(GOLDEN.read_text(encoding="utf-8").split("\n"), start=1):
        if line and not line.startswith("#"):
            fields = line.split("\t")
            assert len(fields) in (3, 4), f"{GOLDEN.name}:{number}: {len(fields)} columns"
            dialect, text, expected, note = [*fields, ""][:4]
            rows.append((number, dialect, text, expected, note))
    return rows


GOLDEN_ROWS = read_golden()


@pytest.mark.parametrize(
    ("dialect", "text", "expected", "note"),
    [pytest.param(*row, id=f"line{number}") for number, *row in GOLDEN_ROWS],
)
def test_golden_row(dialect: str, text: str, expected: str, note: str) -> None:
    spoken = spell_numbers(text, dialect)
    assert spoken.text == expected
    left = note.removeprefix("left: ").split(";") if note.startswith("left: ") else []
    assert spoken.unknown == tuple(left)
    assert spell_numbers(spoken.text, dialect) == spoken
    if text.isdecimal():
        assert number_in_words(int(text), dialect) == expected


def test_golden_file_shows_every_form() -> None:
    assert len(GOLDEN_ROWS) >= 80
    for dialect in DIALECTS:
        numbers = {int(row[2]) for row in GOLDEN_ROWS if row[1] == dialect and row[2].isdecimal()}
        assert numbers >= set(range(20))
    words = {word for row in GOLDEN_ROWS for word in row[3].split()}
    tables = (twi_numbers.TENS, twi_numbers.HUNDREDS, twi_numbers.UNITS_AFTER_TEN["asante"])
    assert words >= {form for table in tables for form in table}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_number_has_words_of_its_own(dialect: str) -> None:
    words = {number_in_words(number, dialect) for number in range(1_000_000)}
    assert len(words) == 1_000_000


@pytest.mark.parametrize("dialect", DIALECTS)
def test_words_are_twi_letters_only(dialect: str) -> None:
    numbers = [*range(10_000), *random.Random(0).sample(range(1_000_000), 10_000)]
    for number in numbers:
        assert TWI_WORDS.fullmatch(number_in_words(number, dialect)), number


@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_a_number_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"number {number}: expected 0 to 999999"):
        number_in_words(number, "asante")


@pytest.mark.parametrize("dialect", ["fante", "unknown", ""])
def test_a_dialect_without_forms_is_refused(dialect: str) -> None:
    with pytest.raises(ValueError, match="asante and akuapem only"):
        number_in_words(1, dialect)
    with pytest.raises(ValueError, match="asante and akuapem only"):
        spell_numbers("Aane.", dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_number_reads_the_same_with_separators_and_in_a_sentence(dialect: str) -> None:
    for number in [*range(1000, 3000), *random.Random(1).sample(range(1000, 1_000_000), 2000)]:
        words = number_in_words(number, dialect)
        assert spell_numbers(f"({number}) {number:,}.", dialect).text == f"({words}) {words}."
        assert spell_numbers(f"GH¢{number:,}", dialect).text == f"sidi {words}"


def test_speaking_is_idempotent_and_drops_nothing() -> None:
    generator = random.Random(0)
    words = [
        *("5", "12", "0", "007", "1,000", "1,00", "5.50", "5.5", "1234567", "½", "²", "5,", "5."),
        *("GH¢", "GH¢5", "gh", "cedis", "sidi", "pɛsewa", "pesewas", "¢", "$", "5.50,", "10k"),
        *("%", "-", "–", "x", "/", ":", "million", "pm", "th", "3rd", "Kofi", "ne", "(", "😂"),
    ]
    for _ in range(20_000):
        chosen = generator.choices(words, k=generator.randint(1, 7))
        text = "".join(word + generator.choice([" ", " ", "", "\n"]) for word in chosen)
        spoken = spell_numbers(text, "asante")
        assert spell_numbers(spoken.text, "asante") == spoken
        left = spoken.text
        for unknown in spoken.unknown:
            assert unknown in left
            left = left.split(unknown, 1)[1]
        assert sum(map(str.isnumeric, spoken.text)) == sum(
            sum(map(str.isnumeric, unknown)) for unknown in spoken.unknown
        )


def test_real_text(real_data: Path) -> None:
    num_lines = num_with_digits = 0
    for path in sorted(real_data.rglob("*")):
        if path.suffix not in {".jsonl", ".tsv", ".xml"}:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line).values() if path.suffix == ".jsonl" else line.split("\t")
            for text in map(normalize_for_training, map(str, fields)):
                spoken = spell_numbers(text, "asante")
                assert spell_numbers(spoken.text, "asante") == spoken
                if any(map(str.isnumeric, text)):
                    num_with_digits += 1
                else:
                    assert spoken.text == text
                num_lines += 1
    assert num_lines > 10_000
    assert num_with_digits > 100
