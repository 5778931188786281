"""How answers are scored, and how tables become dialogues."""

import json

import pytest
from conftest import run

from data_manifests.errors import InputError
from stage3_finetune import build_dialogues, evaluate


def test_any_table_becomes_dialogues(tmp_path):
    rows = [
        {"instruction": "Kyerɛ ase", "input": "ansu", "output": "Ɛkyerɛ nsuo."},
        {"instruction": "Kyerɛ ase", "input": "ansu", "output": "Bio."},
        {"instruction": "Wo ho te s3n?", "input": None, "output": "Me ho yɛ."},
        {"instruction": "...", "input": "", "output": "x"},
        {"instruction": "Kasa " * 200, "input": "", "output": "x"},
        {"instruction": "Me ma wo akwaaba", "input": "", "output": ""},
    ]
    path = tmp_path / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(build_dialogues.main, "--table", path, "--out", tmp_path / "out")
    lines = (tmp_path / "out" / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    messages = [json.loads(line)["messages"] for line in lines]
    assert [m[0]["content"] for m in messages] == ["Kyerɛ ase ansu", "Wo ho te sɛn?"]
    assert messages[0] == [
        {"role": "user", "content": "Kyerɛ ase ansu", "spoken": True},
        {"role": "assistant", "content": "Ɛkyerɛ nsuo."},
    ]
    dropped = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").open()]
    assert [row["row"] for row in dropped] == [1, 3, 4, 5]
    assert "asked before" in dropped[0]["reason"] and "characters" in dropped[2]["reason"]
    words = ("--table", path, "--user", "instructions", "--out", tmp_path / "b")
    with pytest.raises(InputError, match="no column 'instructions': did you mean 'instruction'"):
        run(build_dialogues.main, *words)
    (tmp_path / "broken.jsonl").write_text("{no\n")
    with pytest.raises(InputError, match="cannot be read"):
        run(build_dialogues.main, "--table", tmp_path / "broken.jsonl", "--out", tmp_path / "b")


def test_exact_match_ignores_what_scoring_ignores():
    assert evaluate.exact_match(["Ɛyɛ du.", "Dabi."], ["ɛyɛ DU", "aane"]) == 0.5


def test_chrf_gives_credit_for_what_is_right_of_an_answer():
    assert evaluate.chrf(["Ɛyɛ du."], ["ɛyɛ DU"]) == 1
    assert 0.5 < evaluate.chrf(["Wɔfrɛ no Kofi."], ["Wɔfrɛ no Kofa."]) < 1
    assert evaluate.chrf(["Wɔfrɛ no Kofi."], ["zzz"]) == 0
