"""Open tables of texts: JSON, JSON Lines, CSV, TSV, Parquet and text files, and hub names.

    table = open_table_file(Path("alpaca.jsonl"), where="--table alpaca.jsonl")
    for row in table.read(["instruction", "output"]):
        ...

Rows are mapped from disk, one at a time in memory. `where` begins every message: flag and value.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

TABLE_FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
TEXT_FORMATS = TABLE_FORMATS | {".txt": "text"}
"""With text files too: a row for each line, in the column `text`."""
MAX_HEADER_BYTES = 2**16  # of a CSV file, to tell its delimiter
_HALF_PAIR = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class TextTable:
    """One table.

    Attributes:
        where: flag and value, and the file or split if that names several: for messages.
        rows: its rows, on disk.
    """

    where: str
    rows: "Dataset"

    @property
    def columns(self) -> list[str]:
        return list(self.rows.column_names)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Stream the rows, with these columns only: others may hold pictures, which are not
        decoded.

        Raises:
            InputError: a cell cannot be decoded.
        """
        try:
            yield from self.rows.select_columns(list(columns))
        except Exception as error:  # pyarrow's, pandas' or Python's own, depending on the table
            raise InputError(f"{self.where}: cannot be read: {_reason(error)}") from None


def open_table_file(
    path: Path, *, where: str, formats: Mapping[str, str] = TABLE_FORMATS
) -> TextTable:
    """Open a file.

    Args:
        path: the file; its ending tells the format.
        where: for messages.
        formats: ending -> builder of `datasets`.

    Raises:
        InputError: an unknown ending, an empty file, or one that cannot be read.
    """
    import datasets  # slow to import, and not needed for --help

    if path.suffix not in formats:
        known = ", ".join(formats)
        raise InputError(f"{where}: cannot tell its format, known endings: {known}")
    if path.stat().st_size == 0:
        raise InputError(f"{where}: the file is empty")
    options = {"sep": _delimiter_of(path)} if formats[path.suffix] == "csv" else {}
    try:
        rows = datasets.load_dataset(
            formats[path.suffix], data_files=str(path), split="train", **options
        )
    except Exception as error:  # datasets raises a dozen kinds; all mean an unreadable table
        raise InputError(f"{where}: cannot be read: {_reason(error)}") from None
    return TextTable(where, rows)


def open_hub_tables(
    name: str,
    *,
    where: str,
    config: str | None = None,
    split: str | None = None,
    parquet_files: Mapping[str, str] | None = None,
) -> dict[str, TextTable]:
    """Open the splits of a dataset on the hub.

    Args:
        name: as in "ama/twi-questions"; or a folder that `datasets` can load.
        where: for messages.
        config: which of its configurations.
        split: open this one only.
        parquet_files: split -> pattern of Parquet files, read in place of what the name stands for.

    Raises:
        InputError: not found, not reachable, or not readable; no such split.
    """
    import datasets

    try:
        if parquet_files is None:
            opened = datasets.load_dataset(name, config, split=split)
        else:
            opened = datasets.load_dataset("parquet", data_files=dict(parquet_files))
    except Exception as error:  # as above
        raise InputError(f"{where}: cannot be read: {_reason(error)}") from None
    if split is not None and not isinstance(opened, datasets.Dataset):
        raise InputError(f"--split {split!r}: name one split of {name}")
    splits = {split or "train": opened} if isinstance(opened, datasets.Dataset) else dict(opened)
    several = len(splits) > 1
    return {
        found: TextTable(f"{where}, split {found}" if several else where, rows)
        for found, rows in splits.items()
    }


def cell_text(value: Any) -> str | None:
    """A cell as text, "" if it is empty; None if it is not text but a list, bytes or a date."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip()


def holds_half_pair(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, and so is none."""
    return _HALF_PAIR.search(text) is not None


def _delimiter_of(path: Path) -> str:
    """The delimiter of a CSV or TSV file: spreadsheets of some countries write semicolons."""
    if path.suffix == ".tsv":
        return "\t"
    with path.open("rb") as file:
        header = file.readline(MAX_HEADER_BYTES)
    return ";" if b";" in header and b"," not in header else ","


def _reason(error: Exception) -> str:
    """The underlying cause; datasets wraps it in an error that says only that something failed."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return lines[0][:200] if lines else type(cause).__name__
