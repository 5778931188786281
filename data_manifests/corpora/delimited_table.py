"""Read text tables whose columns are separated by tab, comma, semicolon or `|`."""

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from commands.errors import InputError
from commands.regular_files import open_regular

DELIMITERS = ("\t", "|", ";", ",")
MAX_LINE_BYTES = 2**24  # of a table that is streamed; as in `commands.json_files`


class TableRow(NamedTuple):
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
        _require(self.name, self.columns, columns)


def stream_table(path: Path, columns: tuple[str, ...]) -> Iterator[TableRow]:
    """Stream a table of any length: every line is a row, and quotation marks are part of the cells.

    Args:
        path: the table, UTF-8 with or without byte order mark, with a header row; the delimiter is
            the most frequent one in it.
        columns: columns that must exist.

    Yields:
        The rows below the header, with surrounding white space removed from all cells.

    Raises:
        InputError: it cannot be read, is not UTF-8 or empty, has a line of over 16 MiB, or a header
            with only one column, a repeated one, or without one of `columns`.
    """
    lines = _stream_lines(path)
    number, header = next(lines, (1, ""))
    delimiter = _find_delimiter(header, str(path))
    rows = (
        (number, [cell.strip() for cell in cells])
        for number, line in chain([(number, header)], lines)
        if any(cells := line.split(delimiter))
    )
    names = _columns_of(next(rows, None), str(path))
    _require(str(path), names, columns)
    for number, cells in rows:
        yield _table_row(number, names, cells)


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
    delimiter = _find_delimiter(text.partition("\n")[0], name)
    lines = _read_lines(text, delimiter, quoted) if row_per_line else _read_cells(text, delimiter)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows += ((n, [cell.strip() for cell in cells]) for n, cells in lines if any(cells))
    except csv.Error as error:
        after = f" after line {rows[-1][0]}" if rows else ""
        raise InputError(f"{name}: {error}{after}") from None
    columns = _columns_of(rows[0] if rows else None, name)
    return DelimitedTable(
        name, columns, tuple(_table_row(number, columns, cells) for number, cells in rows[1:])
    )


def _find_delimiter(header: str, name: str) -> str:
    delimiter = max(DELIMITERS, key=header.count)
    if delimiter not in header:
        raise InputError(f"{name}:1: expected a header of several columns, got {header.strip()!r}")
    return delimiter


def _columns_of(row: tuple[int, list[str]] | None, name: str) -> tuple[str, ...]:
    """The columns that the first row names; None if there is no row."""
    if row is None:
        raise InputError(f"{name}:1: expected a header of several columns, got none")
    columns = tuple(row[1])
    for column in columns:
        if columns.count(column) > 1 and column:
            raise InputError(f"{name}:1: the column {column[:100]!r} is repeated")
    return columns


def _require(name: str, columns: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise InputError(f"{name}: no column {missing[0]!r}; its columns: {', '.join(columns)}")


def _table_row(number: int, columns: tuple[str, ...], cells: list[str]) -> TableRow:
    if len(cells) != len(columns):
        return TableRow(number, None)
    return TableRow(number, dict(zip(columns, cells, strict=True)))


def _stream_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines without their endings, and their numbers."""
    try:
        with open_regular(path) as file:
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                file.seek(0)
            num_bytes = number = 0  # a byte order mark is not counted
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if len(line) == MAX_LINE_BYTES:
                    raise InputError(f"{path}:{number}: a line of over {MAX_LINE_BYTES} bytes")
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    where = f"{error.reason} at byte {num_bytes + error.start}"
                    raise InputError(f"{path}: not UTF-8 ({where})") from None
                num_bytes += len(line)
                yield number, text.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


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
