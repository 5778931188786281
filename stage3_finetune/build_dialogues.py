"""Any instruction table -> dialogues whose user turns are marked to be spoken.

    python -m stage3_finetune.build_dialogues --table alpaca-twi.jsonl --user instruction input \
        --assistant output --out data/dialogues

Reads JSON, JSONL, CSV and Parquet files, and names of Hugging Face datasets. Writes
`dialogues.jsonl` in `messages` form, and `dropped.jsonl` with the rows left out and why.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_manifests.artifact import create_output
from data_manifests.atomic_write import write_json_lines
from data_manifests.config import parse_config, run_command
from data_manifests.errors import InputError, nearest_name
from data_manifests.setting_types import PositiveInt
from data_manifests.twi_text import is_speakable, normalize_for_scoring, normalize_for_training

FILE_FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


@dataclass(frozen=True, kw_only=True)
class BuildDialoguesConfig:
    """Turn a table of instructions and answers into dialogues with spoken user turns."""

    table: str
    """JSON, JSONL, CSV, TSV or Parquet file, or the name of a Hugging Face dataset"""
    out: Path
    """new folder for dialogues.jsonl"""
    user: tuple[str, ...] = ("instruction", "input")
    """columns that make up the user's turn, joined by a space; empty cells are left out"""
    assistant: str = "output"
    """column with the answer"""
    split: str = "train"
    """split of a Hugging Face dataset"""
    max_characters: PositiveInt = 400
    """longer questions are left out: read aloud they would pass the 30 s Gemma hears"""

    resume: bool = False
    """accept an unfinished folder and write it again"""


def main(argv: list[str] | None = None) -> None:
    """Write the dialogues; prints the folder."""
    config = parse_config(BuildDialoguesConfig, argv)
    rows = _load_table(config.table, config.split)
    for column in (*config.user, config.assistant):
        if column not in rows.column_names:
            hint = nearest_name(column, rows.column_names)
            raise InputError(f"--table {config.table}: no column {column!r}: {hint}")
    dialogues, dropped, seen = [], [], set()
    for number, row in enumerate(tqdm(rows, desc="dialogues", unit=" rows")):
        question = normalize_for_training(" ".join(_cell(row[column]) for column in config.user))
        answer = normalize_for_training(_cell(row[config.assistant]))
        reason = _why_unusable(question, answer, config.max_characters)
        if reason is None and (key := normalize_for_scoring(question)) in seen:
            reason = "question asked before"
        if reason is not None:
            dropped.append({"row": number, "reason": reason})
            continue
        seen.add(key)
        messages = [
            {"role": "user", "content": question, "spoken": True},
            {"role": "assistant", "content": answer},
        ]
        dialogues.append({"id": f"row-{number}", "messages": messages})
    if not dialogues:
        raise InputError(f"--table {config.table}: no usable row among {len(dropped)}")
    is_file = Path(config.table).is_file()
    output = create_output(
        config.out,
        config,
        command="stage3_finetune.build_dialogues",
        inputs={"table": Path(config.table) if is_file else config.table},
        resume=config.resume,
    )
    if output.is_done:
        print(config.out)
        return
    for name, rows in (("dialogues", dialogues), ("dropped", dropped)):
        write_json_lines(config.out / f"{name}.jsonl", rows)
    output.finish()
    print(f"{len(dialogues)} dialogues, {len(dropped)} rows left out", file=sys.stderr)
    print(config.out)


def _load_table(table: str, split: str) -> Any:
    """A `datasets.Dataset` of a local file or a hub name."""
    import datasets

    path = Path(table)
    try:
        if not path.is_file():
            return datasets.load_dataset(table, split=split)
        if path.suffix not in FILE_FORMATS:
            known = ", ".join(FILE_FORMATS)
            raise InputError(f"--table {table}: cannot tell its format, known endings: {known}")
        options = {"sep": "\t"} if path.suffix == ".tsv" else {}
        return datasets.load_dataset(
            FILE_FORMATS[path.suffix], data_files=table, split="train", **options
        )
    except InputError:
        raise
    except Exception as error:  # datasets raises a dozen kinds; all mean: this table cannot be read
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--table {table}: cannot be read: {reason}") from error


def _cell(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _why_unusable(question: str, answer: str, max_characters: int) -> str | None:
    if not is_speakable(question):
        return "no speakable question"
    if not answer:
        return "no answer"
    if len(question) > max_characters:
        return f"question of {len(question)} characters, at most {max_characters}"
    return None


if __name__ == "__main__":
    run_command(main)
