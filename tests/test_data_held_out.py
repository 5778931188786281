"""What is held out: decided by the text alone, for good, and never trained on under another
spelling."""

import itertools
import json
import random
from pathlib import Path

import pytest
from conftest import ROOT
from miniature_texts import PAIRS

from data_manifests import held_out
from data_manifests.held_out import (
    HELD_OUT_QUESTIONS,
    HELD_OUT_SENTENCES,
    MIN_SIMILARITY,
    NearDuplicates,
    comparison_key,
    is_held_out,
)
from data_manifests.held_out_rows import count_corpora, rows_kept_apart
from data_manifests.left_out_rows import LeftOutRows
from data_manifests.line_writer import lines_written_aside

GOLDEN = Path(__file__).parent / "golden" / "held_out.tsv"
AFRIQA = ROOT.parent / "shared" / "data" / "afriqa_twi"
SIDES = {"no": (), "questions": (HELD_OUT_QUESTIONS,),
         "questions, sentences": (HELD_OUT_QUESTIONS, HELD_OUT_SENTENCES)}  # fmt: skip


def golden_rows():
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(("side", "text"), golden_rows())
def test_no_question_ever_changes_its_side(side, text):
    held_out_of = [
        s for s in (HELD_OUT_QUESTIONS, HELD_OUT_SENTENCES) if is_held_out(text, share=s)
    ]
    assert held_out_of == list(SIDES[side])


@pytest.mark.parametrize(
    "text",
    ["PAANOO BO YƐ SƐN", "  paanoo bo yε sεn?! ", "Paanoo bo y3 s3n?", "Paanoo boyɛ sɛn.",
     "Pàánoo bo ye sen?"],
)  # fmt: skip
def test_other_spellings_are_the_same_question(text):
    assert comparison_key(text) == comparison_key("Paanoo bo yɛ sɛn?")
    assert is_held_out(text, share=HELD_OUT_QUESTIONS)


def test_shares_are_nested_and_kept():
    texts = [f"asɛm {i}" for i in range(4000)]
    previous: set[str] = set()
    for share in (0.0, 0.01, 0.05, 0.5, 1.0):
        out = {text for text in texts if is_held_out(text, share=share)}
        assert previous <= out and abs(len(out) / 4000 - share) < 0.03
        previous = out
    assert len(previous) == 4000


def similarity(one, other):
    a, b = (held_out._pieces(text) for text in (one, other))
    return len(a & b) / len(a | b)


def test_near_duplicates_are_found_as_by_comparing_all():
    random_ = random.Random(0)
    words = (
        "na",
        "wo",
        "mu",
        "nsuo",
        "aduane",
        "sukuu",
        "adwuma",
        "abofra",
        "kookoo",
        "dua",
        "fie",
    )
    texts = [" ".join(random_.choices(words, k=random_.randint(1, 12))) for _ in range(400)]
    out, others = texts[:100], [*texts[100:], *texts[:20], "", "a", "ab cd"]
    near, num_found = NearDuplicates(out), 0
    for text in others:
        similarities = [similarity(text, one) for one in out]
        best = max(similarities)
        expected = similarities.index(best) if best >= MIN_SIMILARITY else None
        assert near.find(text) == expected, text
        num_found += expected is not None
    assert num_found > 25
    assert NearDuplicates([]).find("Wo din de sɛn?") is None


def write(folder, rows, share=HELD_OUT_QUESTIONS):
    """Rows of (corpus, text) -> the texts of both files, and the reasons."""
    folder.mkdir(exist_ok=True)
    with lines_written_aside(folder / "dropped.jsonl") as lines:
        left_out = LeftOutRows(lines)
        with rows_kept_apart(folder, "kept", share=share, left_out=left_out) as apart:
            for number, (corpus, text) in enumerate(rows):
                apart.add(text, {"text": text, "corpus": corpus}, corpus=corpus, number=number)
    kept, out = (
        [json.loads(line)["text"] for line in (folder / f"{name}.jsonl").open(encoding="utf-8")]
        for name in ("kept", "held_out")
    )
    licenses = dict.fromkeys(dict.fromkeys(corpus for corpus, _ in rows), "MIT")
    return kept, out, count_corpora(licenses, apart, left_out)


def test_no_corpus_brings_back_what_another_holds_out(tmp_path):
    """In any order: a corpus of questions, and another of the same with a word more."""
    first = [("a", question) for question, _ in PAIRS]
    second = [("b", f"{question[:-1]} yiye?") for _, question in first]
    kept, out, counts = write(tmp_path / "one", first + second)
    assert out and counts["a"].held_out and counts["b"].held_out
    assert counts["b"].left_out["nearly one that is held out"] > 0
    for one, other in itertools.product(kept, out):
        assert similarity(one, other) < MIN_SIMILARITY
    again = write(tmp_path / "two", second + first)
    assert set(again[0]) == set(kept) and set(again[1]) == set(out)
    alone = write(tmp_path / "three", second)
    assert set(alone[1]) == {text for text in out if text.endswith(" yiye?")}
    assert not list(tmp_path.glob("*/*.tmp"))


def test_a_failure_leaves_no_file_behind(tmp_path):
    with (
        pytest.raises(KeyError),
        lines_written_aside(tmp_path / "dropped.jsonl") as lines,
        rows_kept_apart(tmp_path, "kept", share=0.05, left_out=LeftOutRows(lines)) as apart,
    ):
        apart.add("Wo din de sɛn?", {}, corpus="a", number=0)
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not AFRIQA.exists(), reason="real AfriQA is not here (../shared/data)")
def test_the_questions_of_afriqa(tmp_path):
    rows = [
        ("afriqa", json.loads(line)["question"])
        for name in ("train", "dev")
        for line in (AFRIQA / f"{name}.jsonl").open(encoding="utf-8")
    ]
    kept, out, counts = write(tmp_path, [row for row in rows if row[1].strip()])
    assert 0.04 < len(out) / len(kept) < 0.07
    assert max(similarity(a, b) for a, b in itertools.product(kept, out)) < MIN_SIMILARITY
    assert counts["afriqa"].left_out["nearly one that is held out"] >= 1
