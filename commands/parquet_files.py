"""The project's Parquet files: tables whose schema states the format of their codes.

They are read some rows at a time, and every row is checked: its columns exist, and its
codes are rectangular and within their codebooks.
"""

# T frames (25 per second), K codebooks (coarsest first)

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import torch
from torch import Tensor

from commands.atomic_write import written_aside
from commands.errors import InputError
from commands.origins import UNKNOWN, Origin, RecordedFingerprint
from commands.schema import check_json
from commands.setting_types import CodebookSize, NumCodebooks, PositiveFloat
from commands.sources import Sources, as_facts, known, merge

METADATA_KEY = b"semantic_codes"
ORIGIN_KEY = b"made_with"
SOURCES_KEY = b"made_from"
ROWS_PER_BATCH = 256
# What pyarrow raises for a file that is damaged or not Parquet.
PARQUET_ERRORS = (OSError, pyarrow.ArrowException, ValueError)


@dataclass(frozen=True)
class CodeFormat:
    """Format of the codes in a file.

    Attributes:
        num_codebooks: K.
        codebook_size: codes per codebook.
        frame_rate_hz: frames a second.
    """

    num_codebooks: NumCodebooks
    codebook_size: CodebookSize
    frame_rate_hz: PositiveFloat

    def as_metadata(self, origin: Origin, sources: Sources) -> dict[bytes, str]:
        """The format as metadata of a Parquet schema, with the origin of the codes, and with the
        data that they were made from."""
        return {
            METADATA_KEY: json.dumps(asdict(self)),
            ORIGIN_KEY: json.dumps(origin.as_facts()),
            SOURCES_KEY: json.dumps(as_facts(sources)),
        }


@dataclass(frozen=True)
class RecordedOrigin:
    """What a file says of the origin of its codes."""

    tower: RecordedFingerprint
    quantizer: RecordedFingerprint


def write_parquet(path: Path, table: pyarrow.Table) -> None:
    """Write one Parquet file atomically; WriteError if that fails."""
    with written_aside(path, raised_by_writer=(pyarrow.ArrowException,)) as aside:
        pyarrow.parquet.write_table(table, aside)


def read_parquet_format(path: Path, *, flag: str) -> CodeFormat:
    """The code format in a file's schema.

    Raises:
        InputError: not Parquet, or a file without codes.
    """
    metadata = _read_metadata(path, flag=flag)
    if METADATA_KEY not in metadata:
        raise InputError(
            f"{flag} {path}: no semantic codes (not made by tokenize_corpus or generate)"
        )
    return check_json(metadata[METADATA_KEY], CodeFormat, where=f"{flag} {path}: its code format")


def read_origins(files: Sequence[Path], *, flag: str, path: Path) -> dict[str, Origin]:
    """What the codes of a folder were made with, for `refuse_mixture`.

    Args:
        files: its Parquet files.
        flag: the flag that named it.
        path: what was named.

    Returns:
        One origin under the folder's name if its files agree, otherwise one under each file's; a
        file that does not say belongs to anything.

    Raises:
        InputError: a file is not Parquet, or what it says cannot be read.
    """
    origins = {f"{flag} {file}": _read_origin(file, flag=flag) for file in files}
    different = set(origins.values())
    return {f"{flag} {path}": different.pop()} if len(different) == 1 else origins


def read_sources(files: Sequence[Path], *, flag: str) -> Sources:
    """What the rows of Parquet files were made from; arguments and errors as of `read_origins`."""
    return merge(*(_read_sources(file, flag=flag) for file in files))


def _read_sources(file: Path, *, flag: str) -> Sources:
    metadata = _read_metadata(file, flag=flag)
    if SOURCES_KEY not in metadata:
        return known(None)
    where = f"{flag} {file}: what it was made from"
    return check_json(metadata[SOURCES_KEY], Sources, where=where)


def _read_origin(file: Path, *, flag: str) -> Origin:
    metadata = _read_metadata(file, flag=flag)
    if ORIGIN_KEY not in metadata:
        return UNKNOWN
    where = f"{flag} {file}: what it was made with"
    return Origin(**vars(check_json(metadata[ORIGIN_KEY], RecordedOrigin, where=where)))


def _read_metadata(path: Path, *, flag: str) -> dict[bytes, bytes]:
    try:
        return pyarrow.parquet.read_schema(path).metadata or {}
    except PARQUET_ERRORS as error:
        raise InputError(f"{flag} {path}: not readable as Parquet: {_reason(error)}") from None


def read_batches(
    path: Path, schema: pyarrow.Schema, *, flag: str, num_rows: int = ROWS_PER_BATCH
) -> Iterator[pyarrow.RecordBatch]:
    """Stream a file's rows.

    Args:
        path: the file.
        schema: columns it must have, with their types; integers may be of any width.
        flag: the flag that named it.
        num_rows: most rows at a time.

    Raises:
        InputError: not Parquet, damaged, another schema, or a null in a column that allows none.
    """
    try:
        table = pyarrow.parquet.ParquetFile(path)
        found = table.schema_arrow
        for column in schema:
            position = found.get_field_index(column.name)
            if position < 0:
                raise InputError(f"{flag} {path}: no column {column.name!r}")
            if _kind(found.field(position).type) != _kind(column.type):
                raise InputError(
                    f"{flag} {path}: column {column.name!r} holds {found.field(position).type}, "
                    f"expected {column.type}"
                )
        for batch in table.iter_batches(batch_size=num_rows, columns=schema.names):
            batch.validate(full=True)
            for column in schema:
                if not column.nullable and batch.column(column.name).null_count:
                    raise InputError(f"{flag} {path}: a null in column {column.name!r}")
            yield batch
    except InputError:
        raise
    except PARQUET_ERRORS as error:
        raise InputError(f"{flag} {path}: damaged: {_reason(error)}") from None


def read_codes_column(column: pyarrow.ListArray, fmt: CodeFormat, *, where: str) -> list[Tensor]:
    """The codes of a batch of rows, each int64 `[T, K]`.

    Args:
        column: lists of frames, each a list of K integers; no nulls among the rows.
        fmt: how many codebooks, and how large.
        where: flag and file, for the message.

    Raises:
        InputError: a frame without K codes, or a code outside its codebook.
    """
    codes_NK = torch.from_numpy(flatten_codes_column(column, fmt, where=where).astype(np.int64))
    nums_frames = pyarrow.compute.list_value_length(column).to_pylist()
    return [codes_TK.clone() for codes_TK in codes_NK.split(nums_frames)]


def flatten_codes_column(
    column: pyarrow.ListArray, fmt: CodeFormat, *, where: str
) -> np.ndarray[Any, np.dtype[np.integer[Any]]]:
    """The codes of a batch of rows end to end, `[N, K]`, in the file's type of integers; arguments
    and InputError as for `read_codes_column`."""
    frames = column.flatten()
    values = frames.flatten()
    if frames.null_count or values.null_count:
        raise InputError(f"{where}: a null among the codes")
    lengths = pyarrow.compute.unique(pyarrow.compute.list_value_length(frames)).to_pylist()
    if any(length != fmt.num_codebooks for length in lengths):
        raise InputError(
            f"{where}: frames of {max(lengths, key=lambda n: n != fmt.num_codebooks)} codes, "
            f"expected {fmt.num_codebooks}"
        )
    codes_N = values.to_numpy(zero_copy_only=False)
    if len(codes_N) and not 0 <= codes_N.min() <= codes_N.max() < fmt.codebook_size:
        raise InputError(
            f"{where}: codes from {codes_N.min()} to {codes_N.max()}, codebooks have 0 to "
            f"{fmt.codebook_size - 1}"
        )
    return codes_N.reshape(-1, fmt.num_codebooks)


def _kind(type_: pyarrow.DataType) -> str:
    """A type's name, ignoring the width of its integers and strings."""
    if pyarrow.types.is_list(type_) or pyarrow.types.is_large_list(type_):
        return f"list<{_kind(type_.value_type)}>"
    if pyarrow.types.is_struct(type_):
        return f"struct<{', '.join(f'{part.name}: {_kind(part.type)}' for part in type_)}>"
    if pyarrow.types.is_integer(type_):
        return "integer"
    if pyarrow.types.is_string(type_) or pyarrow.types.is_large_string(type_):
        return "string"
    return str(type_)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
