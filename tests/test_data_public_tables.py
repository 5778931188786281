"""Public tables by name: from files and folders, in the layouts that they are known to have."""

import json

import datasets
import pytest
from miniature_texts import (
    afriqa_folder,
    afriqa_row,
    farmer_row,
    oasst_rows,
    write_json_rows,
    write_parquet,
)

from commands.errors import InputError
from data_manifests.corpora.instruction_sets import INSTRUCTION_SETS, Pair, read_pairs
from data_manifests.corpora.public_tables import named_tables, open_public_table
from data_manifests.corpora.text_sets import TEXT_SETS, read_texts
from data_manifests.left_out_rows import LeftOut


def pairs_of(name, path):
    table = INSTRUCTION_SETS[name]
    return dict(read_pairs(table, open_public_table(table, str(path))))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["afriqa"], r"--corpus 'afriqa': unknown corpus 'afriqa': did you mean 'afriqa_twi'\?"),
        (["afriqa_twi="], "--corpus 'afriqa_twi=' is not like afriqa_twi=PATH"),
        (["afriqa_twi=a", "afriqa_twi=b"], "--corpus 'afriqa_twi' is repeated"),
        (["afriqa_twi=a\0b"], "--corpus afriqa_twi=... must be a path"),
    ],
)
def test_names_that_cannot_be(words, message):
    with pytest.raises(InputError, match=message):
        named_tables(words, INSTRUCTION_SETS)


def test_names_in_any_order():
    named = named_tables(["alpaca_twi", "afriqa_twi=x"], INSTRUCTION_SETS)
    assert [(table.name, path) for table, path in named] == [
        ("afriqa_twi", "x"),
        ("alpaca_twi", ""),
    ]
    with pytest.raises(InputError, match=r"bible_asante: needs its path: bible_asante=PATH; it is"):
        named_tables(["bible_asante"], TEXT_SETS)


def test_a_clone_without_its_test_split(tmp_path):
    rows = [afriqa_row(0, "Ɛhe na wɔwoo no?", "['Sunyani,']")]
    pairs = pairs_of("afriqa_twi", afriqa_folder(tmp_path / "test", rows))
    assert pairs == {
        0: Pair("Ɛhe na wɔwoo no?", "Sunyani", "Which one is it?", "It is so"),
    }


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_format(tmp_path, ending):
    row = {"instruction": "Kyerɛ ase", "input": "ansu", "output": "Ɛkyerɛ nsuo."}
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        write_parquet(path, [row])
    elif ending == "json":
        path.write_text(json.dumps([row]), encoding="utf-8")
    elif ending == "jsonl":
        write_json_rows(path, [row])
    else:
        mark = "," if ending == "csv" else "\t"
        path.write_text(mark.join(row) + "\n" + mark.join(row.values()) + "\n", encoding="utf-8")
    assert pairs_of("alpaca_twi", path) == {0: Pair("Kyerɛ ase\nansu", "Ɛkyerɛ nsuo.")}


def test_several_files_are_one_table(tmp_path):
    for part in range(2):
        rows = [farmer_row(f"asɛm {part}", "mmuaeɛ")]
        write_parquet(tmp_path / "data" / f"train-0000{part}-of-00002.parquet", rows)
    (tmp_path / "README.md").write_text("---\n")
    (tmp_path / "dataset_infos.json").write_text("{}")
    pairs = pairs_of("ghana_farmer_qa", tmp_path)
    assert [(n, p.question) for n, p in pairs.items()] == [(0, "asɛm 0"), (1, "asɛm 1")]


def test_other_columns_are_named(tmp_path):
    path = write_json_rows(tmp_path / "x.jsonl", [{"q": "a", "a": "b"}])
    with pytest.raises(InputError) as caught:
        open_public_table(INSTRUCTION_SETS["ghana_farmer_qa"], str(path))
    message = str(caught.value)
    assert message.startswith(f"--corpus ghana_farmer_qa={path}: its columns are q, a; expected ")
    assert "question_ak + answer_ak or question_twi + answer_twi" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", "no such file or folder"),
        ("x.jsonl", b"", "the file is empty"),
        ("x.jsonl", b"{no\n", "cannot be read: "),
        ("x.xlsx", b"PK", "cannot tell its format, known endings: .json, .jsonl"),
        ("folder/x.xlsx", b"PK", "no table in it"),
        ("x.parquet", b"PAR1", "cannot be read: "),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, message):
    path = tmp_path / (name or "absent")
    if name:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    given = path.parent if "folder" in str(name) else path
    with pytest.raises(InputError) as caught:
        open_public_table(INSTRUCTION_SETS["alpaca_twi"], str(given))
    assert str(caught.value).startswith(f"--corpus alpaca_twi={given}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_hub_it_is_one_line():
    with pytest.raises(InputError, match="--corpus alpaca_twi: cannot be read: "):
        open_public_table(INSTRUCTION_SETS["alpaca_twi"], "")


@pytest.mark.parametrize("table", [*INSTRUCTION_SETS.values(), *TEXT_SETS.values()])
def test_from_the_hub(table, monkeypatch):
    """As `datasets` would give it: every split but test, by the name and configuration."""
    asked = []

    def load(*words, **options):
        asked.append((*words, options.get("data_files")))
        columns = {column: ["x"] for column in table.layouts[0].columns.values()}
        dataset = datasets.Dataset.from_dict(columns)
        return datasets.DatasetDict({"train": dataset, "validation": dataset, "test": dataset})

    if not table.hub:
        with pytest.raises(InputError, match="needs its path"):
            named_tables([table.name], TEXT_SETS)
        return
    monkeypatch.setattr(datasets, "load_dataset", load)
    opened = open_public_table(table, "")
    assert len(opened) == 2
    assert [part.where.rpartition(" ")[2] for part, _ in opened.parts] == ["train", "validation"]
    [(*words, files)] = asked
    if table.name == "afriqa_twi":  # its name stands for code, which is never run
        assert words == ["parquet"] and "test" not in files
        assert files["train"].startswith(f"hf://datasets/{table.hub}@refs/convert/parquet/twi/")
    else:
        assert words == [table.hub, table.config] and files is None


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        ("['Sunyani']", "Sunyani"),
        ("['Earth's southernmost']", "Earth's southernmost"),
        ("['aane', 'yiw']", "aane"),
        ("['Nazi Party,']", "Nazi Party"),
        ("[]", ""),
        ("Sunyani", "Sunyani"),
    ],
)
def test_answers_of_afriqa_are_lists_written_as_text(tmp_path, cell, answer):
    path = write_json_rows(tmp_path / "x.jsonl", [afriqa_row(0, "Ɛhe?", cell)])
    assert pairs_of("afriqa_twi", path)[0].answer == answer


def test_gold_passages_of_afriqa(tmp_path):
    row = {
        "answer_pivot": {"answer_start": [3], "text": ["1834"]}, "context": "In 1834 he came.",
        "id": "16", "question_lang": "Afe bɛn mu na ɔbaeɛ?", "title": "He",
        "question_translated": "In which year did he come?", "answer_lang": "1834",
    }  # fmt: skip
    path = write_json_rows(tmp_path / "gold_span_passages.afriqa.twi.en.train.json", [row])
    english = "In which year did he come?"
    assert pairs_of("afriqa_twi", path) == {0: Pair("Afe bɛn mu na ɔbaeɛ?", "1834", english)}


def test_conversations_in_any_column_for_the_text(tmp_path):
    """And only the best of several answers, as people ranked them."""
    rows = oasst_rows([[("Wo din de sɛn?", "Me din de Ama.")]])
    rows.append({**rows[1], "message_id": "x", "text": "Ampa.", "rank": 1.0})
    for column in ("text", "akan"):
        named = [{column if key == "text" else key: row[key] for key in row} for row in rows]
        pairs = pairs_of("oasst1_akan", write_parquet(tmp_path / f"{column}.parquet", named))
        assert pairs[1] == Pair("Wo din de sɛn?", "Me din de Ama.")
        assert [str(pairs[n]) for n in (0, 2)] == [
            "question of a conversation: used with its answers", "not the best answer",
        ]  # fmt: skip


def test_lists_and_numbers_in_cells(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [afriqa_row(0, "Ɛhe?", ["Accra", "x"])])
    assert pairs_of("afriqa_twi", path)[0].answer == "Accra"
    rows = [{"instruction": [1], "input": None, "output": "x"}]
    left = pairs_of("alpaca_twi", write_json_rows(tmp_path / "b.jsonl", rows))[0]
    assert isinstance(left, LeftOut) and str(left) == "question holds no text but a list"


def test_a_bible_of_verses(tmp_path):
    path = tmp_path / "twi-twiasante.txt"
    path.write_text("Ahyɛaseɛ no.\n\n<range>\nGEN 1:3 Hann mmra.\n1JN 2:1-2 Me mma.\n")
    table = TEXT_SETS["bible_asante"]
    texts = dict(read_texts(table, open_public_table(table, str(path))))
    assert [t if isinstance(t, str) else getattr(t, "text", str(t)) for t in texts.values()] == [
        "Ahyɛaseɛ no.", "empty", "empty", "Hann mmra.", "Me mma.",
    ]  # fmt: skip
    assert texts[0].license == "CC-BY-SA-4.0"
