"""Numbers in words: every line of golden/twi_numbers.tsv, and what must hold for any number."""

import json
import random
import re
from pathlib import Path

import pytest
from conftest import run

from commands.errors import InputError
from data_manifests import spell_numbers as spell_command
from data_manifests.normalization import normalize_for_training
from data_manifests.twi_number_forms import DIALECTS, number_forms, read_table
from data_manifests.twi_numbers import number_dialects, number_in_words, spell_numbers

GOLDEN = Path(__file__).parent / "golden" / "twi_numbers.tsv"
TWI_WORDS = re.compile("[abdeɛfghiklmnoɔprstuwy]+( [abdeɛfghiklmnoɔprstuwy]+)*")


def read_golden() -> list[tuple[int, str, str, str, str, str]]:
    rows = []
    for number, line in enumerate(GOLDEN.read_text(encoding="utf-8").split("\n"), start=1):
        if line and not line.startswith("#"):
            fields = line.split("\t")
            assert len(fields) == 5, f"{GOLDEN.name}:{number}: {len(fields)} columns"
            dialect, text, expected, left, source = fields
            rows.append((number, dialect, text, expected, left, source))
    return rows


GOLDEN_ROWS = read_golden()


@pytest.mark.parametrize(
    ("dialect", "text", "expected", "left", "source"),
    [pytest.param(*row, id=f"line{number}") for number, *row in GOLDEN_ROWS],
)
def test_golden_row(dialect: str, text: str, expected: str, left: str, source: str) -> None:
    spoken = spell_numbers(text, dialect)
    assert spoken.text == expected
    assert spoken.unknown == tuple(left.split(";") if left else ())
    assert spell_numbers(spoken.text, dialect) == spoken
    assert source
    if text.isdecimal() and not left:
        assert number_in_words(int(text), dialect) == expected


def test_golden_file_shows_every_form() -> None:
    for dialect in DIALECTS:
        rows = [row for row in GOLDEN_ROWS if row[1] == dialect]
        numbers = {int(row[2]) for row in rows if row[2].isdecimal()}
        assert numbers >= set(range(20))
        words = {word for row in rows for word in row[3].split()}
        assert words >= {
            *number_forms(dialect).units.values(),
            *number_forms(dialect).teens.values(),
        }
    words = {word for row in GOLDEN_ROWS for word in re.findall(r"\w+", row[3])}
    for dialect in ("asante", "fante"):
        forms = number_forms(dialect)
        tables = (forms.tens, forms.hundreds, forms.of_people)
        assert words >= {form for table in tables for form in table.values()}


def test_every_phrase_has_a_source() -> None:
    rows = list(read_table("twi_number_phrases.tsv"))
    assert len({row.key for row in rows}) == len(rows)
    assert all(row.source for row in rows)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_words_are_twi_letters_only(dialect: str) -> None:
    numbers = [*range(1, 3000), *random.Random(0).sample(range(10**9), 2000)]
    for number in numbers:
        assert TWI_WORDS.fullmatch(number_in_words(number, dialect)), number


def test_fante_is_among_the_dialects() -> None:
    assert number_dialects() == ("asante", "akuapem", "fante")


@pytest.mark.parametrize("dialect", ["ewe", "unknown", ""])
def test_a_dialect_without_forms_is_refused(dialect: str) -> None:
    with pytest.raises(ValueError, match="asante, akuapem and fante only"):
        spell_numbers("Aane.", dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_number_reads_the_same_with_separators_and_in_a_sentence(dialect: str) -> None:
    for number in [*range(1000, 2000), *random.Random(1).sample(range(1000, 1_000_000), 500)]:
        words = number_in_words(number, dialect)
        assert spell_numbers(f"({number}) {number:,}.", dialect).text == f"({words}) {words}."
        assert spell_numbers(f"GH¢{number:,}", dialect).text == f"sidi {words}"


def test_speaking_is_idempotent_and_drops_nothing() -> None:
    generator = random.Random(0)
    words = [
        *("5", "12", "0", "007", "1,000", "1,00", "5.50", "5.5", "1234567", "½", "²", "5,", "5."),
        *("GH¢", "GH¢5", "gh", "cedis", "sidi", "pɛsewa", "pesewas", "¢", "$", "US$", "10k", "€"),
        *(
            "%",
            "-",
            "–",
            "x",
            "/",
            ":",
            "million",
            "pm",
            "p.m.",
            "th",
            "3rd",
            "Kofi",
            "ne",
            "(",
            "😂",
        ),
        *(
            "March",
            "Ɔbɛnem",
            "da",
            "ɛtɔ",
            "so",
            "Samuel",
            "nnipa",
            "mfeɛ",
            "num",
            "baako",
            "apples",
        ),
        *("10:30", "1957", "0243333444", "km", "kilomita", "o'clock", "II", "COVID", "dɔla", "abɔ"),
    ]
    for _ in range(3000):
        chosen = generator.choices(words, k=generator.randint(1, 7))
        text = "".join(word + generator.choice([" ", " ", "", ", ", "\n"]) for word in chosen)
        dialect = generator.choice(DIALECTS)
        spoken = spell_numbers(text, dialect)
        assert spell_numbers(spoken.text, dialect) == spoken, text
        left = spoken.text
        for unknown in spoken.unknown:
            assert unknown in left, text
            left = left.split(unknown, 1)[1]
        assert sum(map(str.isnumeric, spoken.text)) == sum(
            sum(map(str.isnumeric, unknown)) for unknown in spoken.unknown
        ), text


def test_texts_without_numbers_return_at_once() -> None:
    text = "Me nua, wo ho te sɛn? Yɛn nyinaa kɔɔ fie anwummerɛ no."
    assert spell_numbers(text, "asante").text is text


def test_real_text(real_data: Path) -> None:
    num_lines = num_with_digits = 0
    for path in sorted(real_data.rglob("*")):
        if path.suffix not in {".jsonl", ".tsv", ".xml"} or path.name == "tensors.jsonl":
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


def test_the_command_lists_what_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("Bra 10:30.\nFa 3/4/2020 anaa MI6 bra.\n", encoding="utf-8")
    printed = run(spell_command.main, "--file", path, "--dialect", "akuapem")
    assert printed == "Bra nnɔn du abɔ apa ho simma aduasa.\nFa 3/4/2020 anaa MI6 bra.\n"
    left = "line 2: not read: 3/4/2020\nline 2: not read: MI6\n2 left in digits\n"
    assert capsys.readouterr().err == left
    words = ("--text", "Mfeɛ mpem mmienu ne dumien, kor", "--to-digits")
    assert run(spell_command.main, *words) == "Mfeɛ 2012, 1\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --text or --file"),
        (["--text", "5", "--file", "x.txt"], "give either --text or --file"),
        (
            ["--text", "5", "--dialect", "unknown"],
            "--dialect unknown: numbers have words in asante",
        ),
    ],
)
def test_the_command_refuses(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(spell_command.main, *words)
