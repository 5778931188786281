"""The rows of an opened dataset, one after another, each with the place of its recording.

    splits = open_rows("google/WaxalNLP", parquet_files=patterns, copy_audio=True)
    splits["train"].require(columns)
    for row in splits["train"].read(columns):
        row.cells["text"], row.stored, row.reference

Recordings that may be copied are read through `datasets`, which keeps a second copy of every table
in its cache. Recordings that stay where they are must lie in Parquet, which is read as it is, or be
files.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.parquet

from commands.errors import InputError
from data_manifests.contained_audio import make_reference
from data_manifests.corpora.open_dataset import list_parquet_files, open_dataset
from data_manifests.corpora.recording import StoredAudio, one_line

ROWS_AT_A_TIME = 32  # of a table read as it is: some 20 MB
BUFFER_BYTES = 2**20  # of each column; otherwise all of a row group is read at once


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column holds what; None where the dataset has none."""

    audio: str
    text: str
    speaker: str | None = None
    id: str | None = None
    dialect: str | None = None

    @property
    def names(self) -> list[str]:
        """Those that there are."""
        return [name for name in vars(self).values() if name is not None]


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One row.

    Attributes:
        cells: by column; a recording is None, or has `bytes`, or is None there and has the `path`
            of a file.
        problem: why it cannot be read; "" if it can.
        stored: reads the recording, if it is to be copied.
        reference: where the recording lies in a table, if it stays there (`contained_audio`).
    """

    cells: Mapping[str, Any]
    problem: str = ""
    stored: StoredAudio | None = None
    reference: str = ""


class DatasetRows(Protocol):
    """The rows of one split."""

    @property
    def column_names(self) -> Sequence[str]:
        """All columns there are."""

    def require(self, columns: Columns) -> None:
        """Raise InputError unless these columns exist, and one of them holds audio."""

    def read(self, columns: Columns) -> Iterator[DatasetRow]:
        """Yield every row."""


def open_rows(
    source: str,
    config: str | None = None,
    *,
    parquet_files: Mapping[str, str] | None = None,
    copy_audio: bool,
) -> dict[str, DatasetRows]:
    """Open all splits of a dataset; arguments and errors as of `open_dataset`.

    Args:
        copy_audio: recordings in its tables may be copied. Off, they are read where they lie, and
            if that is impossible, InputError says so.
    """
    if not copy_audio:
        refuse_hub(source)
        tables = list_parquet_files(source, config, parquet_files=parquet_files)
        if tables:
            return {split: ParquetRows(files) for split, files in tables.items()}
    opened = open_dataset(source, config, parquet_files=parquet_files)
    return {
        split: ConvertedRows(source, split, dataset, copy_audio=copy_audio)
        for split, dataset in opened.items()
    }


def refuse_hub(source: str) -> None:
    """Raise InputError if a dataset is not on this disk, where its recordings could stay."""
    if not Path(source).exists():
        raise InputError(
            f"--no-copy-audio: {source} is not on this disk: download it (hf download {source} "
            "--repo-type dataset --local-dir FOLDER), and name the folder"
        )


class ConvertedRows:
    """Rows that `datasets` has opened, and whose tables it may have converted."""

    def __init__(self, source: str, split: str, dataset: Any, *, copy_audio: bool) -> None:
        self.column_names: Sequence[str] = dataset.column_names
        self._source = source
        self._split = split
        self._dataset = dataset
        self._copy_audio = copy_audio

    def require(self, columns: Columns) -> None:
        """Raise InputError unless these columns exist, and one of them holds audio."""
        _require(self._source, f" in its split {self._split!r}", self.column_names, columns)
        self._without_decoding(columns.audio)

    def read(self, columns: Columns) -> Iterator[DatasetRow]:
        """Yield every row; a damaged one has a `problem`."""
        dataset = self._without_decoding(columns.audio)
        read = partial(_read_bytes, dataset, columns.audio)
        for i in range(len(dataset)):
            try:
                cells = _read_cells(dataset, i)
            except InputError as error:
                yield DatasetRow({}, problem=str(error))
                continue
            audio = cells[columns.audio]
            is_in_table = audio is not None and audio["bytes"] is not None
            if is_in_table and not self._copy_audio:
                raise InputError(
                    f"--no-copy-audio: {self._source} holds its recordings in tables that are not "
                    "Parquet, and these cannot stay there: save it with to_parquet, or leave out "
                    "--no-copy-audio"
                )
            yield DatasetRow(cells, stored=StoredAudio(read, i) if is_in_table else None)

    def _without_decoding(self, column: str) -> Any:
        import datasets  # takes a second to import

        try:
            # Decoding would need torchcodec.
            return self._dataset.cast_column(column, datasets.Audio(decode=False))
        except Exception:  # pyarrow and datasets may raise anything for another column type
            kind = self._dataset.features[column]
            raise InputError(
                f"{self._source}: column {column!r} does not hold audio: {kind}"
            ) from None


class ParquetRows:
    """Rows of Parquet files, in their order, read as they are."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self.column_names: Sequence[str] = _read_schema(files[0]).names

    def require(self, columns: Columns) -> None:
        """Raise InputError unless these columns exist, and one of them holds audio."""
        for file in self._files:
            schema = _read_schema(file)
            _require(str(file), "", schema.names, columns)
            kind = schema.field(columns.audio).type
            if not _holds_audio(kind):
                raise InputError(f"{file}: column {columns.audio!r} does not hold audio: {kind}")

    def read(self, columns: Columns) -> Iterator[DatasetRow]:
        """Yield every row; few recordings are in memory at a time."""
        for file in self._files:
            number = 0
            for batch in _read_batches(file, columns.names):
                for cells in batch.to_pylist():
                    yield _place_row(cells, file, columns.audio, number)
                    number += 1


def _place_row(cells: dict[str, Any], file: Path, column: str, number: int) -> DatasetRow:
    """A row of a Parquet file, whose recording stays there."""
    audio = cells[column]
    if isinstance(audio, str):
        audio = {"bytes": None, "path": audio}
    elif isinstance(audio, bytes):
        audio = {"bytes": audio, "path": None}
    elif isinstance(audio, dict):
        audio = {"bytes": audio.get("bytes"), "path": audio.get("path")}
    cells[column] = audio
    if audio is None or audio["bytes"] is None:
        return DatasetRow(cells)
    return DatasetRow(cells, reference=make_reference(file, f"{column}/{number}"))


def _read_batches(file: Path, names: list[str]) -> Iterator[pyarrow.RecordBatch]:
    # With pre_buffer, the default of pyarrow 26, a whole row group would be read ahead.
    with (
        _reading(file),
        pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as table,
    ):
        yield from table.iter_batches(batch_size=ROWS_AT_A_TIME, columns=names)


def _read_schema(file: Path) -> pyarrow.Schema:
    with _reading(file):
        return pyarrow.parquet.read_schema(file)


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into InputError."""
    try:
        yield
    except (OSError, pyarrow.ArrowException, ValueError) as error:
        raise InputError(f"{file}: not readable as Parquet: {one_line(error)}") from None


def _holds_audio(kind: pyarrow.DataType) -> bool:
    """Whether a column has one of the types of `datasets.Audio`, or of what it can be made from."""
    if pyarrow.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 or kind.get_field_index("path") >= 0
    types = pyarrow.types
    return any(
        is_kind(kind)
        for is_kind in (types.is_binary, types.is_large_binary, types.is_string,
                        types.is_large_string, types.is_null)
    )  # fmt: skip


def _require(source: str, where: str, names: Sequence[str], columns: Columns) -> None:
    for column in columns.names:
        if column not in names:
            raise InputError(
                f"{source}: no column {column!r}{where}; its columns: {', '.join(names)}"
            )


def _read_cells(dataset: Any, i: int) -> dict[str, Any]:
    try:
        row: dict[str, Any] = dataset[i]
    except Exception as error:  # pyarrow and datasets may raise anything for damaged tables
        raise InputError(f"row cannot be read ({one_line(error)})") from None
    return row


def _read_bytes(dataset: Any, column: str, i: int) -> bytes:
    encoded: bytes = _read_cells(dataset, i)[column]["bytes"]
    return encoded
