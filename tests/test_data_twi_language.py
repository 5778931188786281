"""Guesses of the language: every line of golden/twi_language.tsv, and real texts."""

import json
import xml.etree.ElementTree
from pathlib import Path

import pytest
from conftest import ROOT

from data_manifests.language_guess import guess_language, untranslated_english
from data_manifests.normalization import normalize_for_training

GOLDEN = Path(__file__).parent / "golden" / "twi_language.tsv"
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="no real texts (../shared/data)")


def golden_rows():
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(("language", "text"), golden_rows())
def test_golden_row(language, text):
    assert guess_language(text) == language
    assert guess_language(normalize_for_training(text)) == language


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("planting seedlings next to So me kokoo befi aduane?", "planting seedlings next"),
        ("Ɔkaa sɛ this is the best way na ɔkɔe.", "this is the best"),
        ("Me papa di dwuma wɔ Ghana Cocoa Board wɔ Accra.", ""),
        ("Fa computer no ma me.", ""),
        ("Mede me phone number no maa no.", ""),
        ("Yɛnom nsuo.", ""),
        ("", ""),
    ],
)
def test_what_is_left_in_english(text, english):
    assert untranslated_english(text).startswith(english)
    assert bool(untranslated_english(text)) == bool(english)


def texts_of(name):
    if name.startswith("udhr"):
        tree = xml.etree.ElementTree.parse(SHARED / "udhr" / f"{name}.xml")
        return [e.text for e in tree.iter() if e.tag.endswith("para") and e.text]
    folder, _, column = name.partition(" ")
    files = sorted((SHARED / folder).glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    return [row[column] for row in rows if row[column].strip()]


@needs_shared
@pytest.mark.parametrize(
    ("name", "language", "least"),
    [
        ("udhr_aka_asante", "twi", 1), ("udhr_aka_akuapem", "twi", 1),
        ("udhr_aka_fante", "twi", 0.98), ("waxal_aka_text text", "twi", 1),
        ("afriqa_twi question", "twi", 0.99), ("afriqa_twi translated_question", "english", 0.99),
    ],
)  # fmt: skip
def test_real_texts(name, language, least):
    texts = texts_of(name)
    right = [text for text in texts if guess_language(text) == language]
    assert len(right) / len(texts) >= least
    if language == "twi":  # spontaneous speech is full of English words: few are a piece of it
        pieces = [text for text in texts if untranslated_english(text)]
        assert len(pieces) / len(texts) < 0.005
