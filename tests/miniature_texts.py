"""Public Twi tables in miniature, each in its exact layout; questions and answers are ours."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

NOUNS = (
    "aburo", "bankye", "kookoo", "nkateɛ", "ntoosi", "borɔdeɛ", "abɛ", "ayoyo", "gyeene", "mako",
    "akutu", "mango", "ɛmo", "atadwe", "kuubɛ", "nyaadewa",
)  # fmt: skip
VERBS = ("dua", "twa", "noa", "tɔn", "sie", "kata", "hohoro", "kyekyɛ")
PAIRS = tuple(
    (f"Mepa wo kyɛw, sɛn na wɔ{verb} {noun}?", f"Wɔ{verb} {noun} wɔ anɔpa bere a awia nyɛ den.")
    for noun in NOUNS
    for verb in VERBS
)
"""128 questions with their answers: some are held out, and none is nearly another."""


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def write_json_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def afriqa_row(number: int, question: str, answers: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "question": question, "translated_question": "Which one is it?",
        "answers": answers, "lang": "twi", "split": "train", "translated_answer": "['It is so']",
        "translation_type": "human_translation", **more,
    }  # fmt: skip


def afriqa_folder(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A clone of the repository; its test queries must not be read."""
    queries = folder / "data" / "queries" / "twi"
    write_json_rows(queries / "queries.afriqa.twi.en.train.json", rows)
    unread = afriqa_row(0, "Sɔhwɛ asɛm yi, ɛnsɛ sɛ obi kenkan?", "['Aane, ɛyɛ nokware']")
    write_json_rows(queries / "queries.afriqa.twi.en.test.json", [unread])
    write_json_rows(folder / "data" / "queries" / "hau" / "x.json", [{"a": 1}])
    return folder


def oasst_rows(conversations: Sequence[Sequence[tuple[str, str]]]) -> list[dict[str, Any]]:
    """Messages of conversations: (question, answer) after (question, answer)."""
    rows: list[dict[str, Any]] = []
    for c, conversation in enumerate(conversations):
        parent = None
        for turn, pair in enumerate(conversation):
            for role, text in zip(("prompter", "assistant"), pair, strict=True):
                id_ = f"{c}-{turn}-{role}"
                rows.append(
                    {
                        "message_id": id_, "parent_id": parent, "text": text, "role": role,
                        "lang": "ak", "rank": None if role == "prompter" else 0.0,
                        "message_tree_id": f"{c}", "deleted": False,
                    }
                )  # fmt: skip
                parent = id_
    return rows


def aya_row(inputs: str, targets: str, task_type: str = "question-answering") -> dict[str, Any]:
    return {
        "id": 1, "inputs": inputs, "targets": targets, "dataset_name": "AfriSenti-inst",
        "sub_dataset_name": "-", "task_type": task_type, "template_id": 1, "language": "twi",
        "script": "Latn", "split": "train",
    }  # fmt: skip


def farmer_row(question: str, answer: str) -> dict[str, Any]:
    return {
        "question": "How do I do it?", "answer": "In the morning.", "category": "Harvest",
        "source_text": "They do it.", "original_twi": "Wɔyɛ.", "file_name": "a_001.wav",
        "question_ak": question, "answer_ak": answer,
    }  # fmt: skip


def ghana_chat_row(question: str, text: str) -> dict[str, Any]:
    return {
        "text": "It is done so.\n\nMore of it.", "text_ak": text, "source": "s1",
        "source_type": "research", "generated_question": "How is it done?",
        "generated_question_ak": question,
    }  # fmt: skip


def parallel_row(twi: str, source_files: str = "dictionary_1") -> dict[str, Any]:
    return {"twi": twi, "eng": "In English.", "count": 1, "source_files": source_files}


def fineweb_row(text: str) -> dict[str, Any]:
    return {
        "text": text, "id": "<urn:uuid:1>", "dump": "CC-MAIN-2024-10", "url": "x", "date": "x",
        "file_path": "x", "language": "twi", "language_score": 0.9, "language_script": "Latn",
        "minhash_cluster_size": 1, "top_langs": "{}",
    }  # fmt: skip
