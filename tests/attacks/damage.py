"""Ways to damage a file, by what it is; each takes the file and the case's random numbers.

The name of a damage says what was done. `must_refuse` where no command that reads the file may go
on: what is left cannot be what was meant.
"""

import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import load_file, save_file

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3.5, float("nan"), float("inf"), 2**40, 2**70, -(2**70), "", "x" * 5000,
    "../..", "\0", "\ud800", [], [[]], {}, {"a": {"b": [1]}}, [1, "x", None], "false",
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """One way to damage a file."""

    name: str
    do: Callable[[Path, random.Random], None]
    must_refuse: bool = False


def damages_of(path: Path) -> Iterator[Damage]:
    """All ways to damage this file."""
    yield from ANY_FILE
    if path.suffix == ".json" or path.name == "done":
        yield from _json_damages(path)
    yield from BY_SUFFIX.get(path.suffix, ())


def _missing(path: Path, rng: random.Random) -> None:
    path.unlink()


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _flip_early(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(min(len(content), 200))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _garbage(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice((1, 8, 100, 5000))))


def _become_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _append(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(64))


def _utf16(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes().decode(errors="replace").encode("utf-16"))


ANY_FILE = (
    Damage("gone", _missing), Damage("empty", _empty), Damage("cut off", _cut),
    Damage("a bit flipped", _flip), Damage("a bit flipped early", _flip_early),
    Damage("garbage", _garbage), Damage("a folder", _become_folder), Damage("longer", _append),
)  # fmt: skip


def _json_damages(path: Path) -> Iterator[Damage]:
    def change(change_: Callable[[Any, random.Random], Any]) -> Callable[[Path, Any], None]:
        def do(path: Path, rng: random.Random) -> None:
            value = json.loads(path.read_text(encoding="utf-8"))
            text = json.dumps(change_(value, rng))
            path.write_text(text, encoding="utf-8", errors="surrogatepass")

        return do

    for number in range(12):
        yield Damage(f"an odd value, {number}", change(_put_odd_value))
    yield Damage("a key gone", change(_drop_key))
    yield Damage("an unknown key", change(lambda value, rng: {**value, "no_such_key": 1}))
    yield Damage("a list", change(lambda value, rng: [value]), must_refuse=True)
    yield Damage("a number", change(lambda value, rng: 3), must_refuse=True)
    yield Damage("UTF-16", _utf16, must_refuse=True)
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield Damage("deep", lambda path, rng: path.write_bytes(deep) and None, must_refuse=True)


def _put_odd_value(value: Any, rng: random.Random) -> Any:
    """A value somewhere in it replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return {**value, key: _put_odd_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _put_odd_value(value[place], rng), *value[place + 1 :]]
    return rng.choice(ODD_VALUES)


def _drop_key(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    dropped = rng.choice(sorted(value))
    return {key: part for key, part in value.items() if key != dropped}


def _with_tensors(
    change: Callable[[dict[str, torch.Tensor], str, random.Random], None], *, floats: bool = False
) -> Callable[[Path, random.Random], None]:
    def do(path: Path, rng: random.Random) -> None:
        # Not left mapped: it is written again.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        # Limits of what Gemma clips may be infinite.
        names = [
            name
            for name, tensor in sorted(tensors.items())
            if tensor.numel()
            and not name.endswith(("_min", "_max"))
            and (tensor.is_floating_point() or not floats)
        ]
        change(tensors, rng.choice(names), rng)
        save_file(tensors, path, metadata={"format": "pt"})

    return do


def _put_number(number: float) -> Callable[[dict[str, torch.Tensor], str, random.Random], None]:
    def change(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
        tensors[name].view(-1)[rng.randrange(tensors[name].numel())] = number

    return change


def _with_number(number: float) -> Callable[[Path, random.Random], None]:
    return _with_tensors(_put_number(number), floats=True)


def _other_shape(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
    tensor = tensors[name]
    tensors[name] = rng.choice(
        (
            tensor[None],
            tensor.flatten()[:-1],
            torch.cat([tensor, tensor]) if tensor.ndim else tensor[None],
        )
    ).contiguous()


def _other_type(dtype: torch.dtype) -> Callable[[Any, str, random.Random], None]:
    def change(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
        tensors[name] = tensors[name].to(dtype)

    return change


def _extra(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
    tensors["no_such_tensor"] = torch.zeros(3)


def _less(tensors: dict[str, torch.Tensor], name: str, rng: random.Random) -> None:
    del tensors[name]


def _long_header(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    length = rng.choice((0, 1, 2**63, 2**64 - 1, 2**40, len(content), 99_999_999))
    path.write_bytes(struct.pack("<Q", length) + content[8:])


def _lying_header(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = rng.choice(sorted(key for key in header if key != "__metadata__"))
    entry = header[name]
    lie = rng.choice(("dtype", "shape", "offsets", "huge", "odd"))
    if lie == "dtype":
        entry["dtype"] = rng.choice(("F64", "BOOL", "I8", "F8_E4M3", "NONE"))
    elif lie == "shape":
        entry["shape"] = [*entry["shape"], 2]
    elif lie == "offsets":
        entry["data_offsets"] = [0, rng.randrange(1, 2**20)]
    elif lie == "huge":
        entry["shape"] = [2**40, 2**40]
    else:
        header[name] = rng.choice(ODD_VALUES[:10])
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])


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


def _change_line(path: Path, rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    place = rng.randrange(len(lines))
    lines[place] = json.dumps(_put_odd_value(json.loads(lines[place]), rng))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")


def _drop_line(path: Path, rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    del lines[rng.randrange(len(lines))]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _copy_line(path: Path, rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    path.write_text("".join(line + "\n" for line in [*lines, lines[0]]), encoding="utf-8")


BY_SUFFIX: dict[str, tuple[Damage, ...]] = {
    ".safetensors": (
        Damage("NaN", _with_number(float("nan")), must_refuse=True),
        Damage("infinity", _with_number(float("-inf")), must_refuse=True),
        Damage("huge numbers", _with_number(3e38)),
        Damage("a tensor of another shape", _with_tensors(_other_shape), must_refuse=True),
        Damage("a tensor of whole numbers", _with_tensors(_other_type(torch.int32))),
        Damage("a tensor in float64", _with_tensors(_other_type(torch.float64))),
        Damage("a tensor in float16", _with_tensors(_other_type(torch.float16))),
        Damage("a tensor of truths", _with_tensors(_other_type(torch.bool))),
        Damage("a tensor gone", _with_tensors(_less), must_refuse=True),
        Damage("a tensor more", _with_tensors(_extra)),
        Damage("a header that lies about its length", _long_header),
        *(Damage(f"a header that lies, {number}", _lying_header) for number in range(4)),
    ),
    ".parquet": (
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
    ),
    ".jsonl": (
        *(Damage(f"an odd value, {number}", _change_line) for number in range(6)),
        Damage("a line gone", _drop_line), Damage("a line twice", _copy_line),
        Damage("UTF-16", _utf16),
    ),
}  # fmt: skip


def swap_with(other: Path) -> Damage:
    """The file replaced by another of the same kind."""

    def do(path: Path, rng: random.Random) -> None:
        shutil.copyfile(other, path)

    return Damage(f"replaced by {other.parent.name}/{other.name}", do)
