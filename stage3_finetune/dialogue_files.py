"""Spoken dialogues on disk: Parquet files with one dialogue per row.

    id, messages (role, content, spoken, codes)

Where dialogues call functions, the rows have `tools` too, and the messages `tool_calls` and what
belongs to them; in JSON, because arguments differ from call to call.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from torch import Tensor

from commands.errors import InputError
from commands.finished_folder import list_files, open_input, read_provenance
from commands.origins import UNKNOWN, Origin
from commands.parquet_files import (
    CodeFormat,
    read_batches,
    read_codes_column,
    read_origins,
    read_parquet_format,
    write_parquet,
)
from commands.sources import Sources, known
from stage1_rvq.codes import refuse_other_format
from stage3_finetune.dialogue import Dialogue, as_messages
from stage3_finetune.dialogue_rows import parse_dialogue

DIALOGUES_NAME = "dialogues_{:05d}.parquet"  # of a shard, by its number
TOOLS = "tools"  # the column of declared functions, where there are any


def dialogue_schema(
    fmt: CodeFormat,
    origin: Origin = UNKNOWN,
    sources: Sources | None = None,
    *,
    has_tools: bool = False,
) -> pyarrow.Schema:
    """Columns of a file of spoken dialogues, and what it says of their codes; with those of calls
    of functions, as JSON, if any dialogue of its folder declares tools."""
    called = ("tool_calls", "tool_call_id", "name") if has_tools else ()
    message = pyarrow.struct(
        {
            "role": pyarrow.string(),
            "content": pyarrow.string(),
            "spoken": pyarrow.bool_(),
            "codes": pyarrow.list_(pyarrow.list_(pyarrow.int32())),
            **dict.fromkeys(called, pyarrow.string()),
        }
    )
    columns = {"id": pyarrow.string(), "messages": pyarrow.list_(message)}
    fields = [pyarrow.field(name, type_, nullable=False) for name, type_ in columns.items()]
    fields += [pyarrow.field(TOOLS, pyarrow.string())] if has_tools else []
    return pyarrow.schema(fields, metadata=fmt.as_metadata(origin, known(sources)))


def write_spoken_dialogues(
    path: Path,
    dialogues: Sequence[Dialogue],
    fmt: CodeFormat,
    origin: Origin = UNKNOWN,
    sources: Sources | None = None,
    *,
    has_tools: bool = False,
) -> None:
    """Write spoken dialogues as one Parquet file (to a temporary file, then renamed).

    Args:
        origin: the audio tower and the quantiser that the codes belong to.
        sources: what the dialogues and their codes were made from; None if that is not known.
        has_tools: whether any dialogue of the folder declares tools.
    """
    rows = [
        {"id": d.id, "messages": _as_rows(d), TOOLS: json.dumps(d.tools, ensure_ascii=False)}
        for d in dialogues
    ]
    schema = dialogue_schema(fmt, origin, sources, has_tools=has_tools)
    write_parquet(path, pyarrow.Table.from_pylist(rows, schema=schema))


def _as_rows(dialogue: Dialogue) -> list[dict[str, Any]]:
    """A dialogue's messages as `dialogue_schema` has them."""
    rows: list[dict[str, Any]] = []
    for turn in dialogue.turns:
        codes = None if turn.codes_TK is None else turn.codes_TK.tolist()
        said = {"role": turn.role, "content": turn.content, "spoken": turn.spoken, "codes": codes}
        if not turn.calls:
            rows.append(said)
            continue
        calling, *results = as_messages([turn])
        calls = json.dumps(calling["tool_calls"], ensure_ascii=False)
        rows += [said | {"tool_calls": calls}, *({"spoken": False, **row} for row in results)]
    return rows


def read_spoken_dialogues(folder: Path, expected: CodeFormat) -> Iterator[Dialogue]:
    """Stream the dialogues of a folder written by `stage3_finetune.speak_dialogues`.

    Args:
        expected: format of the quantiser that will decode them.

    Raises:
        InputError: the folder is unfinished, changed or empty, the codes have another format, a row
            is not a dialogue, a spoken turn has no codes, or an id is used twice.
    """
    open_input(folder, made_by="stage3_finetune.speak_dialogues", flag="--dialogues")
    ids: set[str] = set()
    for path in list_files(folder, "dialogues_*.parquet", flag="--dialogues"):
        found = read_parquet_format(path, flag="--dialogues")
        refuse_other_format(found, expected, flag=f"--dialogues {folder}", expected_by="--rvq")
        has_tools = TOOLS in pyarrow.parquet.read_schema(path).names
        schema = dialogue_schema(expected, has_tools=has_tools)
        for batch in read_batches(path, schema, flag="--dialogues"):
            codes = _read_codes_of_turns(batch.column("messages"), expected, where=str(path))
            for row in batch.to_pylist():
                where = f"--dialogues {path}: {row['id']!r}"
                if row["id"] in ids:
                    raise InputError(f"{where} is the id of an earlier dialogue too")
                ids.add(row["id"])
                yield _with_codes(row, codes, where=where)


def read_dialogues_origins(folder: Path) -> dict[str, Origin]:
    """What the codes of such a folder were made with, as `read_origins` gives it."""
    files = list_files(folder, "dialogues_*.parquet", flag="--dialogues")
    return read_origins(files, flag="--dialogues", path=folder)


def read_dialogues_sources(folder: Path) -> Sources:
    """What the dialogues of such a folder, and their codes, were made from."""
    return read_provenance(folder).made_from()


def _read_codes_of_turns(
    messages: pyarrow.ListArray, fmt: CodeFormat, *, where: str
) -> Iterator[Tensor | None]:
    """Yield the codes of each turn of a batch of dialogues; None for a turn without codes."""
    codes = pyarrow.compute.struct_field(messages.flatten(), "codes")
    present = iter(read_codes_column(codes.drop_null(), fmt, where=f"--dialogues {where}"))
    return (next(present) if is_there else None for is_there in codes.is_valid().to_pylist())


def _with_codes(row: dict[str, Any], codes: Iterator[Tensor | None], *, where: str) -> Dialogue:
    messages = [{k: v for k, v in (m or {}).items() if k != "codes"} for m in row["messages"]]
    try:
        dialogue = parse_dialogue(
            {"id": row["id"], "messages": messages, TOOLS: row.get(TOOLS)}, default_id=""
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    of_messages = [next(codes) for _ in messages]
    of_turns = (
        codes_TK
        for codes_TK, message in zip(of_messages, messages, strict=True)
        if message["role"] != "tool"  # a result of a function, which is part of another turn
    )
    turns = tuple(
        replace(turn, codes_TK=codes_TK)
        for turn, codes_TK in zip(dialogue.turns, of_turns, strict=True)
    )
    if any(turn.spoken and (turn.codes_TK is None or not len(turn.codes_TK)) for turn in turns):
        raise InputError(f"{where} has a spoken turn without codes")
    return replace(dialogue, turns=turns)
