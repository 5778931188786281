"""Any instruction table -> dialogues whose user turns are marked to be spoken.

    python -m stage3_finetune.build_dialogues --table alpaca-twi.jsonl --user instruction input \
        --assistant output --out data/dialogues

Reads JSON, JSONL, CSV and Parquet files, and names of Hugging Face datasets. Writes
`dialogues.jsonl` in `messages` form, and `dropped.jsonl` with the rows left out and why.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from commands.atomic_write import write_json_lines
from commands.command_line import parse_config, run_command
from commands.errors import InputError, nearest_name
from commands.run_folder import run_folder
from commands.setting_types import ModelName, PositiveInt
from data_manifests.twi_text import is_speakable, normalize_for_scoring, normalize_for_training
from stage3_finetune.template_marks import TEMPLATE_MARK

if TYPE_CHECKING:
    from datasets import Dataset

FILE_FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
# A question more than this many times the length limit is rejected before normalisation.
RAW_LENGTH_LIMIT = 10


@dataclass(frozen=True, kw_only=True)
class BuildDialoguesConfig:
    """Turn a table of instructions and answers into dialogues with spoken user turns."""

    table: ModelName
    """JSON, JSONL, CSV, TSV or Parquet file, or the name of a Hugging Face dataset"""
    out: Path
    """new folder for dialogues.jsonl"""
    user: tuple[str, ...] = ("instruction", "input")
    """columns that make up the user's turn, joined by spaces; empty cells are left out"""
    assistant: str = "output"
    """column with the answer"""
    split: str = "train"
    """split of a Hugging Face dataset"""
    max_characters: PositiveInt = 400
    """longer questions are left out: read aloud, they would exceed the 30 s that Gemma can hear"""

    overwrite: bool = False
    """delete what an earlier run wrote into --out, and write it again"""


def main(argv: list[str] | None = None) -> None:
    """Write the dialogues; prints the folder."""
    config = parse_config(BuildDialoguesConfig, argv)
    rows = _load_table(config.table, config.split)
    columns = list(dict.fromkeys((*config.user, config.assistant)))
    for column in columns:
        if column not in rows.column_names:
            hint = nearest_name(column, rows.column_names)
            raise InputError(f"--table {config.table}: no column {column!r}: {hint}")
        # pandas, which reads CSV, renames the second of two columns with the same name.
        if Path(config.table).suffix in (".csv", ".tsv") and f"{column}.1" in rows.column_names:
            raise InputError(f"--table {config.table}: two columns are named {column!r}")
    rows = rows.select_columns(columns)  # others may hold pictures: do not decode them
    dialogues, dropped, seen = [], [], set()
    progress = tqdm(_iterate(rows, config.table), "dialogues", total=len(rows), unit=" rows")
    for number, row in enumerate(progress):
        question, answer, reason = _read_turns(row, config)
        key = normalize_for_scoring(question)
        if not reason and key in seen:
            reason = "question asked before"
        if reason:
            dropped.append({"row": number, "reason": reason})
            continue
        seen.add(key)
        messages = [
            {"role": "user", "content": question, "spoken": True},
            {"role": "assistant", "content": answer},
        ]
        dialogues.append({"id": f"row-{number}", "messages": messages})
    if not dialogues:
        reason = f", the first: {dropped[0]['reason']}" if dropped else ""
        raise InputError(f"--table {config.table}: no usable row among {len(dropped)}{reason}")
    with run_folder(config.out, config, "stage3_finetune.build_dialogues", inputs=["table"]):
        for name, rows in (("dialogues", dialogues), ("dropped", dropped)):
            write_json_lines(config.out / f"{name}.jsonl", rows)
        print(f"{len(dialogues)} dialogues, {len(dropped)} rows left out", file=sys.stderr)


def _load_table(table: str, split: str) -> "Dataset":
    """Load the rows of a local file or a Hugging Face dataset."""
    import datasets  # slow to import, and not needed for --help

    path = Path(table)
    try:
        if not path.is_file():
            rows = datasets.load_dataset(table, split=split)
        elif path.suffix not in FILE_FORMATS:
            known = ", ".join(FILE_FORMATS)
            raise InputError(f"--table {table}: cannot tell its format, known endings: {known}")
        elif path.stat().st_size == 0:
            raise InputError(f"--table {table}: the file is empty")
        else:
            options = {"sep": "\t"} if path.suffix == ".tsv" else {}
            rows = datasets.load_dataset(
                FILE_FORMATS[path.suffix], data_files=table, split="train", **options
            )
    except InputError:
        raise
    except Exception as error:  # datasets raises a dozen kinds; all mean an unreadable table
        raise InputError(f"--table {table}: cannot be read: {_reason(error)}") from None
    if not isinstance(rows, datasets.Dataset):
        raise InputError(f"--split {split!r}: name one split of {table}")
    return rows


def _iterate(rows: "Dataset", table: str) -> Iterator[dict[str, Any]]:
    """Yield the rows; a cell that cannot be decoded raises here."""
    try:
        yield from rows
    except Exception as error:  # pyarrow's, pandas' or Python's own, depending on the table
        raise InputError(f"--table {table}: cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """The underlying cause; datasets wraps it in an error that says only that something failed."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return lines[0][:200] if lines else type(cause).__name__


def _cell(value: Any) -> str | None:
    """A cell as text, "" if it is empty; None if it is not text but a list, bytes or a date."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip()


def _read_turns(row: Mapping[str, Any], config: BuildDialoguesConfig) -> tuple[str, str, str]:
    """Return question, answer, and the reason they cannot be used ("" if they can)."""
    cells = {column: _cell(row[column]) for column in (*config.user, config.assistant)}
    for column, text in cells.items():
        if text is None:
            return "", "", f"column {column!r} holds no text but a {type(row[column]).__name__}"
        if any("\ud800" <= character <= "\udfff" for character in text):
            return "", "", f"column {column!r} holds half of a surrogate pair, which is no text"
    question = " ".join(cells[column] or "" for column in config.user)
    # Checked before normalisation, which is slow for a whole book.
    if len(question) > RAW_LENGTH_LIMIT * config.max_characters:
        return "", "", _too_long(question, config.max_characters)
    question = normalize_for_training(question)
    answer = normalize_for_training(cells[config.assistant] or "")
    return question, answer, _why_unusable(question, answer, config.max_characters)


def _why_unusable(question: str, answer: str, max_characters: int) -> str:
    if not is_speakable(question):
        return "no speakable question"
    if not answer:
        return "no answer"
    if len(question) > max_characters:
        return _too_long(question, max_characters)
    if mark := TEMPLATE_MARK.search(f"{question} {answer}"):
        return f"holds {mark[0]}, a mark of Gemma's chat template"
    return ""


def _too_long(question: str, max_characters: int) -> str:
    return f"question of {len(question)} characters, at most {max_characters}"


if __name__ == "__main__":
    run_command(main)
