"""Twi text normalisation: every line of golden/twi_text.tsv, and what must hold for any text."""

import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_manifests.language import language
from data_manifests.normalization import (
    LOOK_ALIKES,
    is_speakable,
    normalize_for_scoring,
    normalize_for_training,
)

GOLDEN = Path(__file__).parent / "golden" / "twi_text.tsv"
NORMALIZE = {"training": normalize_for_training, "scoring": normalize_for_scoring}


def unescape(field: str) -> str:
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), field)


def read_golden() -> list[tuple[int, str, str, str]]:
    rows = []
    for number, line in enumerate(GOLDEN.read_text(encoding="utf-8").split("\n"), start=1):
        if line and not line.startswith("#"):
            fields = line.split("\t")
            assert len(fields) == 3, f"{GOLDEN.name}:{number}: {len(fields)} columns, expected 3"
            level, text, expected = fields
            rows.append((number, level, unescape(text), unescape(expected)))
    return rows


GOLDEN_ROWS = read_golden()


def assert_invariants(text: str) -> None:
    trained, scored = normalize_for_training(text), normalize_for_scoring(text)
    assert normalize_for_training(trained) == trained
    assert normalize_for_scoring(scored) == scored
    assert normalize_for_scoring(trained) == scored
    assert normalize_for_training(scored) == scored
    assert trained == unicodedata.normalize("NFC", trained)
    assert all(char.isalnum() or char == " " for char in scored)


@pytest.mark.parametrize(
    ("level", "text", "expected"),
    [pytest.param(*row, id=f"line{number}") for number, *row in GOLDEN_ROWS],
)
def test_golden_row(level: str, text: str, expected: str) -> None:
    assert NORMALIZE[level](text) == expected
    assert_invariants(text)


def test_golden_rows_cover_every_look_alike_and_unit() -> None:
    assert len(GOLDEN_ROWS) >= 200
    inputs = " ".join(text for _, _, text, _ in GOLDEN_ROWS)
    assert not {*LOOK_ALIKES, *language().look_alikes} - set(inputs)
    units = {unit.lower() for unit in language().numbers_with_unit}
    assert not units - set(re.findall(r"\w+", inputs.lower()))


def test_look_alikes_come_in_both_cases() -> None:
    """Otherwise lower-casing for scoring would bring look-alikes back."""
    cased = {char: letter for char, letter in LOOK_ALIKES.items() if char.lower() != char}
    assert len(cased) > 5
    for look_alike, letter in cased.items():
        assert LOOK_ALIKES[look_alike.lower()] == letter.lower()


def test_invariants_hold_beside_every_character() -> None:
    for code_point in [*range(0x3000), *range(0xA4D0, 0xAB70), *range(0xFB00, 0x10000)]:
        char = chr(code_point)
        assert_invariants(f"s{char}3 {char} {char}a3) ({char})")


def test_invariants_hold_for_random_text() -> None:
    generator = random.Random(0)
    alphabet = "aɛɔwkyEKBn3)(13'-.,:;=$¢ \u0301\u0303\u200bε’ↄ_/hrdgc2³"
    pieces = "a) b) B) w) k) ) ( (w )) 3 3y3 JHS3 MP3 3hrs Ghana). )baa )K xk)k3 N)N ɔno"
    for _ in range(5_000):
        assert_invariants("".join(generator.choices(alphabet, k=generator.randint(0, 14))))
        glue = generator.choice(["", " "])
        assert_invariants(glue.join(generator.choices(pieces.split(), k=generator.randint(1, 7))))


def test_plain_numbers_never_become_letters() -> None:
    for number in [*range(4000), 33_333, 333_333]:
        for text in (f"{number}", f"({number})", f"{number}%", f"{number}.", f"GH¢{number}"):
            assert normalize_for_training(f"nkorɔfoɔ {text} na") == f"nkorɔfoɔ {text} na"


def read_real_lines(folder: Path) -> Iterator[str]:
    """Every line of every text file, field by field where it has fields."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in {".jsonl", ".tsv", ".conll", ".xml"}:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line).values() if path.suffix == ".jsonl" else line.split("\t")
            yield from map(str, fields)


def test_invariants_hold_on_real_text(real_data: Path) -> None:
    num_lines = 0
    for text in read_real_lines(real_data):
        assert_invariants(text)
        assert not set(LOOK_ALIKES) & set(normalize_for_training(text))
        num_lines += 1
    assert num_lines > 10_000


def test_what_is_typed_for_letters_in_real_text_becomes_letters(real_data: Path) -> None:
    """Of the words with ɛ or ɔ in 400 transcripts, all but one in a hundred come back."""
    lines = (real_data / "waxal_aka_text" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    num_words = num_back = 0
    for line in lines[:400]:
        text = normalize_for_scoring(json.loads(line)["text"])
        typed = text.translate(str.maketrans("ɛɔ", "3)"))
        for word, back in zip(text.split(), normalize_for_training(typed).split(), strict=True):
            if set(word) & set("ɛɔ") and len(word) > 1:
                num_words += 1
                num_back += word == back
    assert num_words > 3000 and num_back > 0.99 * num_words


def test_a_long_word_takes_no_longer() -> None:
    """The shape of a word is read in one way only: no rule tries all."""
    for syllable in ("na", "aw", "nw", "mmɛ"):
        assert normalize_for_training(f"{syllable * 20_000}q3").endswith("q3")


def test_plain_numbers_of_real_text_stay(real_data: Path) -> None:
    num_numbers = 0
    for text in read_real_lines(real_data):
        numbers = Counter(re.findall(r"(?<!\S)[0-9]+(?!\S)", text))
        trained, scored = normalize_for_training(text), normalize_for_scoring(text)
        assert numbers <= Counter(trained.split())
        assert numbers <= Counter(scored.split())
        num_numbers += numbers.total()
    assert num_numbers > 1000


@pytest.mark.parametrize("text", ["Aane", "w)", "3y3", "\u2107", "10k", "n'"])
def test_speakable(text: str) -> None:
    assert is_speakable(text)


@pytest.mark.parametrize(
    "text", ["", " ", "...", "2024", "3", "(3)", "😂", "\u200b", "'", "\u0301"]
)
def test_not_speakable(text: str) -> None:
    assert not is_speakable(text)
