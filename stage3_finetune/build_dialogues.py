"""Public Twi corpora, or any instruction table -> dialogues with user turns that will be spoken.

    python -m stage3_finetune.build_dialogues --corpus afriqa_twi ghana_farmer_qa \
        oasst1_akan=oasst1-akan.parquet --out data/dialogues
    python -m stage3_finetune.build_dialogues --table alpaca-twi.jsonl --user instruction input \
        --assistant output --out data/dialogues

Writes `dialogues.jsonl` in `messages` form, each row with its `corpus` and `license`, and
`dropped.jsonl` with the rows left out and why. With `--corpus`, what is not fit to be spoken or not
in Twi is left out, and a twentieth of the questions is held out: `held_out.jsonl`. Which ones is
decided by their text alone, so that no corpus brings them back (`data_manifests/held_out.py`).
`data_manifests/corpora/instruction_sets.py` says what each corpus is and what is wrong with it.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from commands.command_line import parse_config, run_command
from commands.errors import InputError, nearest_name
from commands.licenses import UNKNOWN_LICENSE, LicenseName
from commands.run_folder import run_folder
from commands.setting_types import ModelName, PositiveInt
from data_manifests.corpora.instruction_sets import INSTRUCTION_SETS, Pair, read_pairs
from data_manifests.corpora.public_tables import named_tables, open_public_table
from data_manifests.corpora.text_tables import (
    TextTable,
    cell_text,
    holds_half_pair,
    open_hub_tables,
    open_table_file,
)
from data_manifests.held_out import HELD_OUT_QUESTIONS
from data_manifests.held_out_rows import (
    RowsKeptApart,
    count_corpora,
    format_counts,
    rows_kept_apart,
)
from data_manifests.left_out_rows import LeftOut, LeftOutRows
from data_manifests.line_writer import lines_written_aside
from stage3_finetune.dialogue_rows import MAX_NAME_CHARACTERS
from stage3_finetune.pair_checks import CorpusCheckSettings, check_pair


@dataclass(frozen=True, kw_only=True)
class BuildDialoguesConfig:
    """Turn public corpora, or a table of instructions and answers, into dialogues with spoken user
    turns."""

    out: Path
    """new folder for dialogues.jsonl"""
    corpus: tuple[str, ...] = ()
    """NAME of each public corpus, downloaded from Hugging Face, or NAME=PATH of a copy, a file or a
    folder: oasst1_akan, aya_twi, afriqa_twi, alpaca_twi, ghana_chat, ghana_farmer_qa"""
    checks: CorpusCheckSettings = CorpusCheckSettings()
    table: ModelName | None = None
    """a table of your own: JSON, JSONL, CSV, TSV or Parquet file, or the name of a Hugging Face
    dataset"""
    user: tuple[str, ...] = ("instruction", "input")
    """columns of --table that make up the user's turn, joined by spaces; empty cells are left
    out"""
    assistant: str = "output"
    """column of --table with the answer"""
    split: str = "train"
    """split of --table, if that is a Hugging Face dataset"""
    license: LicenseName = UNKNOWN_LICENSE
    """licence of --table, by its SPDX name, as in CC-BY-4.0: every dialogue says it, and model
    cards list it"""
    max_characters: PositiveInt = 400
    """longer questions are left out: read aloud, they would exceed the 30 s that Gemma can hear"""

    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""


@dataclass(frozen=True)
class Source:
    """Where pairs come from.

    Attributes:
        corpus: its name in the rows.
        license: SPDX name, or "unknown".
        id_prefix: before the number of a row, in its id.
        checks: None for a user's own table.
        num_rows: how many there are.
        pairs: each with the number of its row, or why it has none.
    """

    corpus: str
    license: str
    id_prefix: str
    checks: CorpusCheckSettings | None
    num_rows: int
    pairs: Iterable[tuple[int, Pair | LeftOut]]


def main(argv: list[str] | None = None) -> None:
    """Write the dialogues; prints a summary to stderr and the folder to stdout."""
    config = parse_config(BuildDialoguesConfig, argv)
    sources = _open_sources(config)
    share = HELD_OUT_QUESTIONS if config.corpus else 0.0
    command = "stage3_finetune.build_dialogues"
    with run_folder(config.out, config, command, inputs=("table", "corpus")) as output:
        with ExitStack() as stack:
            lines = stack.enter_context(lines_written_aside(config.out / "dropped.jsonl"))
            left_out = LeftOutRows(lines)
            rows = stack.enter_context(
                rows_kept_apart(config.out, "dialogues", share=share, left_out=left_out)
            )
            for source in sources:
                _collect(source, config.max_characters, rows, left_out)
            if not rows.num_kept:
                raise InputError(_nothing_left(config, rows, left_out))
        counts = count_corpora({s.corpus: s.license for s in sources}, rows, left_out)
        output.record(
            corpora={corpus: vars(of) for corpus, of in counts.items()}, held_out_share=share
        )
        print(format_counts(counts, "dialogues"), file=sys.stderr)


def _open_sources(config: BuildDialoguesConfig) -> list[Source]:
    """Everything that is asked for, opened; InputError, before a folder is created, if that
    fails."""
    sources = []
    for named, path in named_tables(config.corpus, INSTRUCTION_SETS):
        opened = open_public_table(named, path)
        pairs = read_pairs(named, opened)
        sources.append(
            Source(named.name, named.license, named.name, config.checks, len(opened), pairs)
        )
    if config.table is not None:
        table = _open_own_table(config, config.table)
        pairs = _read_own_table(table, config)
        file = Path(config.table)
        corpus = file.stem[:MAX_NAME_CHARACTERS] if file.is_file() else config.table
        sources.append(Source(corpus, config.license, "row", None, len(table), pairs))
    if not sources:
        raise InputError(
            "nothing to read: name a public corpus, as in --corpus afriqa_twi, or a table of your "
            "own with --table FILE"
        )
    return sources


def _open_own_table(config: BuildDialoguesConfig, name: str) -> TextTable:
    where, path = f"--table {name}", Path(name)
    if path.is_file():
        table = open_table_file(path, where=where)
    else:
        table = open_hub_tables(name, where=where, split=config.split)[config.split]
    for column in dict.fromkeys((*config.user, config.assistant)):
        if column not in table.columns:
            raise InputError(
                f"{where}: no column {column!r}: {nearest_name(column, table.columns)}"
            )
        # pandas, which reads CSV, renames the second of two columns with the same name.
        if path.suffix in (".csv", ".tsv") and f"{column}.1" in table.columns:
            raise InputError(f"{where}: two columns are named {column!r}")
    return table


def _read_own_table(
    table: TextTable, config: BuildDialoguesConfig
) -> Iterator[tuple[int, Pair | LeftOut]]:
    columns = list(dict.fromkeys((*config.user, config.assistant)))
    for number, row in enumerate(table.read(columns)):
        yield number, _own_pair(row, config)


def _own_pair(row: Mapping[str, Any], config: BuildDialoguesConfig) -> Pair | LeftOut:
    cells: dict[str, str] = {}
    for column in (*config.user, config.assistant):
        text = cell_text(row[column])
        if text is None:
            kind = type(row[column]).__name__
            return LeftOut("no text", f"column {column!r} holds no text but a {kind}")
        if holds_half_pair(text):
            reason = f"column {column!r} holds half of a surrogate pair, which is no text"
            return LeftOut("no text", reason)
        cells[column] = text
    question = " ".join(cells[column] for column in config.user)
    return Pair(question, cells[config.assistant])


def _collect(
    source: Source, max_characters: int, rows: RowsKeptApart, left_out: LeftOutRows
) -> None:
    """Check every pair of a source, and take those that can be used."""
    for number, pair in tqdm(source.pairs, source.corpus, source.num_rows, unit=" rows"):
        if isinstance(pair, LeftOut):
            left_out.add(source.corpus, number, pair)
            continue
        checked = check_pair(pair, max_characters, source.checks)
        if checked.left_out:
            left_out.add(source.corpus, number, checked.left_out)
            continue
        dialogue = {
            "id": f"{source.id_prefix}-{number}",
            "messages": [
                {"role": "user", "content": checked.question, "spoken": True}
                | _as_gloss(pair.english_question),
                {"role": "assistant", "content": checked.answer} | _as_gloss(pair.english_answer),
            ],
            "corpus": source.corpus,
            "license": source.license,
        }
        if not rows.add(checked.question, dialogue, corpus=source.corpus, number=number):
            left_out.add(source.corpus, number, LeftOut("question asked before"))


def _as_gloss(english: str) -> dict[str, str]:
    """What a message says in English, where the table has it."""
    return {"english": english.strip()} if english.strip() else {}


def _nothing_left(config: BuildDialoguesConfig, rows: RowsKeptApart, left_out: LeftOutRows) -> str:
    named = f"--table {config.table}" if config.table else f"--corpus {' '.join(config.corpus)}"
    num_rows = left_out.num_rows + rows.num_held_out.total()
    first = f", the first: {left_out.first}" if left_out.first else ""
    return f"{named}: no usable row among {num_rows}{first}"


if __name__ == "__main__":
    run_command(main)
