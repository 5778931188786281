"""Ways to damage a file of codes or spoken dialogues (Parquet): its codes, columns and metadata."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.attacks.damage import Damage


def _with_table(
    change: Callable[[pyarrow.Table, random.Random], pyarrow.Table],
) -> Callable[[Path, random.Random], None]:
    def do(path: Path, rng: random.Random) -> None:
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(change(table, rng), path)

    return do


def _replace_codes(change: Callable[[list, random.Random], None]) -> Callable[[Any, Any], Any]:
    """The table with the codes of a row changed."""

    def do(table: pyarrow.Table, rng: random.Random) -> pyarrow.Table:
        is_dialogues = "messages" in table.schema.names
        place = table.schema.get_field_index("messages" if is_dialogues else "codes")
        rows = table.column(place).to_pylist()
        turns = [turn for row in rows for turn in row if turn["codes"]] if is_dialogues else []
        codes = [turn["codes"] for turn in turns] if is_dialogues else rows
        change(codes, rng)
        array = pyarrow.array(rows, table.schema.field(place).type)
        return table.set_column(place, table.schema.field(place), array)

    return do


def _set_code(code: int | None) -> Callable[[list, random.Random], None]:
    def change(codes: list, rng: random.Random) -> None:
        row = rng.choice([row for row in codes if row])
        rng.choice(row)[0] = code

    return change


def _null_row(table: pyarrow.Table, rng: random.Random) -> pyarrow.Table:
    column = rng.choice(table.schema.names)
    place = table.schema.get_field_index(column)
    values = table.column(place).to_pylist()
    values[rng.randrange(len(values))] = None
    field = table.schema.field(place).with_nullable(True)
    return table.set_column(place, field, pyarrow.array(values, field.type))


def _as_text(table: pyarrow.Table, rng: random.Random) -> pyarrow.Table:
    column = rng.choice(table.schema.names)
    place = table.schema.get_field_index(column)
    texts = pyarrow.array([str(value) for value in table.column(place).to_pylist()])
    wrong = (
        texts if table.schema.field(place).type != texts.type else pyarrow.array([1] * len(texts))
    )
    return table.set_column(place, column, wrong)


def _other_format(path: Path, rng: random.Random) -> None:
    """The schema says otherwise than the codes."""
    table = pyarrow.parquet.read_table(path)
    said = json.loads(table.schema.metadata[b"semantic_codes"])
    key = rng.choice(sorted(said))
    said[key] = rng.choice((1, 2, 3, 7, 2**40, -1, "8", None, 0.5, float("nan")))
    metadata = {**table.schema.metadata, b"semantic_codes": json.dumps(said)}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)


def _twice(table: pyarrow.Table, rng: random.Random) -> pyarrow.Table:
    return pyarrow.concat_tables([table, table.slice(0, 1)])


CODES = (
    Damage("a code too large", _with_table(_replace_codes(_set_code(16))), must_refuse=True),
    Damage("a negative code", _with_table(_replace_codes(_set_code(-1))), must_refuse=True),
    Damage("a code that is null", _with_table(_replace_codes(_set_code(None)))),
    Damage("a frame with a code less",
           _with_table(_replace_codes(lambda codes, rng: codes[0][0].pop()))),
    Damage("a row without frames",
           _with_table(_replace_codes(lambda codes, rng: codes[0].clear()))),
    Damage("a null", _with_table(_null_row)),
    Damage("a column of another type", _with_table(_as_text), must_refuse=True),
    Damage("a column gone",
           _with_table(lambda table, rng: table.drop_columns(rng.choice(table.schema.names)))),
    Damage("a column more", _with_table(
        lambda table, rng: table.append_column("more", pyarrow.array(range(len(table)))))),
    Damage("a row twice", _with_table(_twice), must_refuse=True),
    Damage("no rows", _with_table(lambda table, rng: table.slice(0, 0))),
    Damage("no metadata", _with_table(lambda table, rng: table.replace_schema_metadata({})),
           must_refuse=True),
    *(Damage(f"metadata that lies, {number}", _other_format) for number in range(4)),
)  # fmt: skip
