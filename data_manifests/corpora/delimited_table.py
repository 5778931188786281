"""Read text tables whose columns are separated by tab, comma, semicolon or `|`."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from commands.errors import InputError

DELIMITERS = ("\t", "|", ";", ",")


@dataclass(frozen=True)
class TableRow:
    """One row; `cells` by column, or None if the number of cells is not the header's."""

    line_number: int
    cells: dict[str, str] | None


@dataclass(frozen=True)
class DelimitedTable:
    """A header and its rows, with surrounding white space removed from all cells."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def require(self, columns: tuple[str, ...]) -> None:
        """Raise InputError, naming the existing columns, unless all of `columns` exist."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise InputError(
                f"{self.name}: no column {missing[0]!r}; its columns: {', '.join(self.columns)}"
            )


def read_delimited_table(
    content: bytes, name: str, *, row_per_line: bool, quoted: bool = True
) -> DelimitedTable:
    """Read a table with a header row; the delimiter is the most frequent one in its header.

    Args:
        content: the whole file, UTF-8 with or without byte order mark.
        name: its name in messages.
        row_per_line: every line is a row, so that a stray quotation mark spoils only its own line.
            Off, a quoted cell may hold line breaks, as spreadsheets export them.
        quoted: quotation marks may enclose cells. Off, they are part of the cells.

    Raises:
        InputError: not UTF-8, empty, a header with only one column or a repeated one, a cell of
            over 128 KiB, or, unless every line is a row, unbalanced quotation marks.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 ({error.reason} at byte {error.start})") from None
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    if delimiter not in header:
        raise InputError(f"{name}:1: expected a header of several columns, got {header.strip()!r}")
    lines = _read_lines(text, delimiter, quoted) if row_per_line else _read_cells(text, delimiter)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows += ((n, [cell.strip() for cell in cells]) for n, cells in lines if any(cells))
    except csv.Error as error:
        after = f" after line {rows[-1][0]}" if rows else ""
        raise InputError(f"{name}: {error}{after}") from None
    if not rows:
        raise InputError(f"{name}:1: expected a header of several columns, got none")
    columns = tuple(rows[0][1])
    for column in columns:
        if columns.count(column) > 1 and column:
            raise InputError(f"{name}:1: the column {column[:100]!r} is repeated")
    return DelimitedTable(
        name,
        columns,
        tuple(
            TableRow(n, dict(zip(columns, cells, strict=True)))
            if len(cells) == len(columns)
            else TableRow(n, None)
            for n, cells in rows[1:]
        ),
    )


def _read_lines(text: str, delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    # Not str.splitlines: it also breaks at characters such as U+2028 inside a sentence.
    for line_number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        for cells in csv.reader([line], delimiter=delimiter) if quoted else [line.split(delimiter)]:
            yield line_number, cells


def _read_cells(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # Strict, because a cell with no closing quotation mark would swallow all rows that follow.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for cells in reader:
        yield reader.line_num, cells
