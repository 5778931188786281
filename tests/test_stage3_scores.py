"""How answers are scored, and how tables become dialogues."""

import json

import pyarrow
import pyarrow.parquet
import pytest
import torch
from conftest import run

from commands.atomic_write import write_json_lines
from commands.errors import InputError
from commands.json_files import read_json_lines
from data_manifests.bootstrap import share_interval
from data_manifests.manifest import Utterance, write_manifest
from pipeline.report_sections import samples_section
from pipeline.samples import read_spoken_samples
from stage3_finetune import build_dialogues, evaluate
from stage3_finetune.answer_scores import chrf, exact_match
from stage3_finetune.dialogue_rows import parse_dialogue
from stage3_finetune.recorded_questions import RecordedQuestion, as_later, match_recordings


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


def test_a_share_has_an_interval():
    assert share_interval([True] * 20) == (1, 1)
    low, high = share_interval([True, False] * 50)
    assert 0.35 < low < 0.45 and 0.55 < high < 0.65


def test_later_questions_come_after_others_and_their_answers():
    frames_TD = torch.zeros(3, 4)
    questions = [RecordedQuestion(str(i), f"Q{i}", f"A{i}", "", frames_TD) for i in range(10)]
    written = [f" W{i} " for i in range(10)]
    for num_before in (1, 4):
        conversations = as_later(questions, written, num_before=num_before)
        for i, turns in enumerate(conversations):
            said = [turn.content for turn in turns]
            assert [turn.role for turn in turns] == ["user", "assistant"] * num_before + ["user"]
            assert said[-1] == f"Q{i}" and len({*said[::2]}) == num_before + 1
            assert said[1::2] == [text.replace("Q", "W") for text in said[:-1:2]]
    assert [len(turns) for turns in as_later(questions[:2], written[:2], num_before=4)] == [3, 3]
    assert [len(turns) for turns in as_later(questions[:1], written[:1], num_before=1)] == [1]


def test_english_is_passed_on_to_those_who_read_a_report(tmp_path):
    rows = [("1", "Ɛhe na ɔte?", "Where does he live?"), ("2", "Wo din de sɛn?", "")]
    dialogues = tmp_path / "dialogues.jsonl"
    with dialogues.open("w", encoding="utf-8") as file:
        for id_, question, english in rows:
            user = {"role": "user", "content": question} | ({"english": english} if english else {})
            answer = {"role": "assistant", "content": "Yoo."}
            file.write(json.dumps({"id": id_, "messages": [user, answer]}) + "\n")
    recordings = [
        Utterance(
            id=id_, audio="a.wav", text=question, duration_s=1, speaker="s", dialect="asante",
            corpus="c", split="test", license="CC0-1.0",
        )
        for id_, question, _ in rows
    ]  # fmt: skip
    write_manifest(tmp_path / "test.jsonl", recordings)
    matches = match_recordings(dialogues, tmp_path / "test.jsonl")
    assert matches.english == {"1": ("Where does he live?", ""), "2": ("", "")}
    questions = [
        RecordedQuestion(id_, question, answer, category, torch.zeros(1), *matches.english[id_])
        for id_, question, answer, category, _ in matches.rows
    ]
    written = tmp_path / "finetune-test" / "answers.jsonl"
    written.parent.mkdir()
    evaluate._write_answers(written, questions, {"spoken_after": ["Yoo.", "Yoo."]}, {})
    spoken = [{"id": id_, "text": "Yoo.", "audio": f"{id_}.wav"} for id_ in "12"]
    (tmp_path / "head-test").mkdir()
    write_json_lines(tmp_path / "head-test" / "utterances.jsonl", spoken)
    samples = read_spoken_samples(tmp_path / "head-test", written.parent, 10)
    assert [sample.english for sample in samples] == ["Where does he live?", ""]
    page = samples_section(tmp_path)
    assert page.count("in English") == 1 and "Where does he live?" in page


def test_english_must_be_text():
    turns = [{"role": "user", "content": "Yoo.", "english": 3}]
    with pytest.raises(InputError, match="'english' must be a string, got 3"):
        parse_dialogue({"messages": turns}, "1")


def test_semicolons_of_a_spreadsheet_are_read(tmp_path):
    path = tmp_path / "questions.csv"
    path.write_text("question;answer\nWo din de sɛn, Ama?;Me din de Ama.\n", encoding="utf-8-sig")
    words = ("--user", "question", "--assistant", "answer", "--out", tmp_path / "out")
    run(build_dialogues.main, "--table", path, *words)
    [row] = read_json_lines(tmp_path / "out" / "dialogues.jsonl")
    assert [m["content"] for m in row["messages"]] == ["Wo din de sɛn, Ama?", "Me din de Ama."]
