"""Tables larger than memory: Arrow data that is mapped from a file, and read row by row.

    table = MappedTable(batches, facts, where="data/codes/train.0123456789abcdef.arrow")
    table.row(5)["text"]
    table.numbers("num_frames")

A row becomes Python objects only when it is asked for. Pages of the file that were read stay in the
system's file cache as long as no program needs the memory, but are let go by this process every
few rows: else all of the file would in time be counted as its memory. Every offset is checked
before it is followed, so that a damaged file ends in one line and not in a crash.
"""

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow

from commands.errors import InputError

Row = TypeVar("Row")
Numbers = npt.NDArray[Any]

TEXTS_AT_ONCE = 4096
# A page that is touched may bring 2 MiB with it.
ROWS_BETWEEN_RELEASES = 64


@dataclass(frozen=True)
class _Ragged:
    """A column of texts or of lists of numbers: row i is `values[offsets[i]:offsets[i + 1]]`."""

    offsets: Numbers
    values: Numbers
    is_text: bool


def table_schema(columns: Mapping[str, pyarrow.DataType]) -> pyarrow.Schema:
    """The schema of a table with these columns, without nulls."""
    fields = [pyarrow.field(name, type_, nullable=False) for name, type_ in columns.items()]
    return pyarrow.schema(fields)


class MappedTable:
    """Read access to a table in Arrow's layout.

    Columns hold numbers, texts (`string`) or lists of numbers, and no nulls.

    Attributes:
        facts: what its writer noted, as JSON.
        where: what it was read from, for messages.
    """

    def __init__(
        self,
        batches: Iterable[pyarrow.RecordBatch],
        facts: str,
        *,
        where: str,
        mapping: mmap.mmap | None = None,
    ) -> None:
        """
        Args:
            mapping: the file in which the batches lie; None if they lie in memory.

        Raises:
            ValueError: a batch does not hold what its columns need.
        """
        self.facts = facts
        self.where = where
        chunks = [batch for batch in batches if batch.num_rows]
        self._chunks = [
            {name: _view(chunk.column(name)) for name in chunk.schema.names} for chunk in chunks
        ]
        self._ends = np.cumsum([chunk.num_rows for chunk in chunks], dtype=np.int64)
        self._mapping = mapping
        self._expected = mmap.MADV_NORMAL
        self._num_read = 0

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def row(self, position: int) -> dict[str, Any]:
        """The values of a row by column: numbers, texts, and lists as arrays that lie in the
        file."""
        chunk = int(np.searchsorted(self._ends, position, side="right"))
        place = position - (int(self._ends[chunk - 1]) if chunk else 0)
        self._expect(mmap.MADV_RANDOM)
        self._num_read += 1
        if self._num_read % ROWS_BETWEEN_RELEASES == 0:
            self._release()
        return {name: self._cell(column, place) for name, column in self._chunks[chunk].items()}

    def numbers(self, name: str, *, low: int, limit: int = 2**31) -> Numbers:
        """A whole column of integers, copied; InputError if one is not in [low, limit)."""
        self._expect(mmap.MADV_NORMAL)
        parts: list[Numbers] = []
        for chunk in self._chunks:
            column = chunk[name]
            assert not isinstance(column, _Ragged)
            parts.append(column.copy())
            self._release()
        numbers_N = np.concatenate([np.empty(0, np.int32), *parts])
        if len(numbers_N) and not low <= numbers_N.min() <= numbers_N.max() < limit:
            raise self.damaged()
        return numbers_N

    def texts(self, name: str) -> Iterator[str]:
        """A whole column of texts, one after the other."""
        for chunk in self._chunks:
            column = chunk[name]
            assert isinstance(column, _Ragged) and column.is_text
            for first in range(0, len(column.offsets) - 1, TEXTS_AT_ONCE):
                self._expect(mmap.MADV_NORMAL)
                offsets = column.offsets[first : first + TEXTS_AT_ONCE + 1]
                if (np.diff(offsets) < 0).any():
                    raise self.damaged()
                start = int(offsets[0])
                content = self._slice(column, start, int(offsets[-1])).tobytes()
                ends = (offsets - start).tolist()
                for begin, end in pairwise(ends):
                    yield self._decode(content[begin:end])
                self._release()

    def _cell(self, column: "Numbers | _Ragged", place: int) -> Any:
        if not isinstance(column, _Ragged):
            return column[place].item()
        cell = self._slice(column, int(column.offsets[place]), int(column.offsets[place + 1]))
        return self._decode(cell.tobytes()) if column.is_text else cell

    def _slice(self, column: _Ragged, start: int, end: int) -> Numbers:
        if not 0 <= start <= end <= len(column.values):
            raise self.damaged()
        return column.values[start:end]

    def _decode(self, content: bytes) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise self.damaged() from None

    def _expect(self, advice: int) -> None:
        """Tell the system how the file is about to be read: single rows come four times as fast
        from a disk if it does not read on behind them (1,000 of 6 million: 2.6 s, else 10.9)."""
        if self._mapping is not None and advice != self._expected:
            self._mapping.madvise(advice)
            self._expected = advice

    def _release(self) -> None:
        """Let go of the file's pages: those that are touched again come from the file cache."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def damaged(self) -> InputError:
        """The error that says so in one line."""
        return InputError(f"{self.where}: damaged; delete it, and it is made again")


class MappedRows(Sequence[Row], Generic[Row]):
    """The rows of a table as objects, each made when it is asked for.

    rows[5], rows[-1] and `for row in rows` make one at a time, rows[:10] makes a list.
    """

    def __init__(self, table: MappedTable, make: Callable[[dict[str, Any]], Row]) -> None:
        """
        Args:
            make: makes a row's object of its values by column.
        """
        self.table = table
        self._make = make

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> list[Row]: ...
    def __getitem__(self, position: int | slice) -> Row | list[Row]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        found = position + len(self) if position < 0 else position
        if not 0 <= found < len(self):
            raise IndexError(f"row {position} of {len(self)}")
        return self._make(self.table.row(found))


def _view(column: pyarrow.Array) -> "Numbers | _Ragged":
    """A column's values where they lie; ValueError if its buffers are too short for its rows."""
    kind, num_rows = column.type, len(column)
    if column.offset or column.null_count:
        raise ValueError("a column with nulls, or a part of one")
    buffers = column.buffers()
    if pyarrow.types.is_string(kind):
        offsets_N = _numbers(buffers[1], np.dtype(np.int32), num_rows + 1)
        return _Ragged(offsets_N, _numbers(buffers[2], np.dtype(np.uint8)), is_text=True)
    if pyarrow.types.is_list(kind):
        offsets_N = _numbers(buffers[1], np.dtype(np.int32), num_rows + 1)
        inner = np.dtype(kind.value_type.to_pandas_dtype())
        return _Ragged(offsets_N, _numbers(buffers[3], inner), is_text=False)
    return _numbers(buffers[1], np.dtype(kind.to_pandas_dtype()), num_rows)


def _numbers(buffer: pyarrow.Buffer | None, dtype: np.dtype[Any], count: int = -1) -> Numbers:
    """A buffer as an array of `count` numbers; -1 takes all that it holds, padding included."""
    size = 0 if buffer is None else buffer.size // dtype.itemsize
    if count > size:
        raise ValueError("a buffer is too short")
    if buffer is None or not size or not count:
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype, size if count < 0 else count)
