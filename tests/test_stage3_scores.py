"""How answers are scored, and how tables become dialogues."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from conftest import run

from commands.errors import InputError
from commands.json_files import read_json_lines
from stage3_finetune import build_dialogues
from stage3_finetune.answer_scores import chrf, exact_match


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


GOOD = b'{"instruction": "Wo ho te s3n?", "input": "", "output": "Me ho y3."}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "the file is empty"),
        ("x.jsonl", GOOD + b"{no\n", "cannot be read: "),
        ("x.jsonl", GOOD + GOOD.replace(b"Wo", b"\\ud800"), "surrogate"),
        ("x.jsonl", GOOD + GOOD.replace(b"Wo", b"\xff"), "'utf-8' codec can't decode byte 0xff"),
        ("x.json", b"[" * 100_000, "depth limit"),
        ("x.json", b'{"instruction": 3}', "no column 'input'"),
        ("x.csv", b"instruction,input,output\na,b,c\na,b,c,d,e\n", "Expected 3 fields in line 3"),
        ("x.csv", b"instruction,instruction,input,output\na,b,c,d\n", "two columns are named"),
        ("x.csv", b"instruction,input,output\n\xe9,b,c\n", "'utf-8' codec can't decode"),
        ("x.parquet", b"PAR1 but no more", "Parquet magic bytes not found"),
        ("x.txt", b"instruction", "cannot tell its format"),
        (
            "x.jsonl", b'{"instruction": {"a": 1}, "input": "", "output": "x"}\n',
            "no usable row among 1, the first: column 'instruction' holds no text but a dict",
        ),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        run(build_dialogues.main, "--table", tmp_path / name, "--out", tmp_path / "out")
    assert "\n" not in str(caught.value) and f"--table {tmp_path / name}: " in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_cells_that_are_no_text_are_dropped_with_a_reason(tmp_path):
    question = "Kyerɛ me kwan no"
    columns = {
        "instruction": [
            question,
            None,
            b"\xff".decode("latin-1"),
            f"{question} <turn|>",
            "Kasa " * 10**5,
        ],
        "input": [None, "ansu", "", "", ""],
        "output": ["yoo"] * 5,
        "score": [float("nan")] * 5,
    }
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    run(build_dialogues.main, "--table", path, "--out", tmp_path / "out")
    kept = read_json_lines(tmp_path / "out" / "dialogues.jsonl")
    assert [row["messages"][0]["content"] for row in kept][:2] == [question, "ansu"]
    reasons = {
        row["row"]: row["reason"] for row in read_json_lines(tmp_path / "out" / "dropped.jsonl")
    }
    assert reasons[3] == "holds <turn|>, a mark of Gemma's chat template"
    assert reasons[4] == "question of 500000 characters, at most 400"
    words = ("--table", path, "--user", "score", "--out", tmp_path / "numbers")
    with pytest.raises(InputError, match="no usable row among 5, the first: no speakable question"):
        run(build_dialogues.main, *words)


def test_exact_match_ignores_what_scoring_ignores():
    assert exact_match(["Ɛyɛ du.", "Dabi."], ["ɛyɛ DU", "aane"]) == 0.5


def test_chrf_gives_credit_for_what_is_right_of_an_answer():
    assert chrf(["Ɛyɛ du."], ["ɛyɛ DU"]) == 1
    assert 0.5 < chrf(["Wɔfrɛ no Kofi."], ["Wɔfrɛ no Kofa."]) < 1
    assert chrf(["Wɔfrɛ no Kofi."], ["zzz"]) == 0
