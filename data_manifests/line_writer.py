"""Write files of millions of lines as they come, under a temporary name until they are complete.

    with lines_written_aside(out / "dropped.jsonl") as lines:
        begins = lines.write(b'{"id": "a"}\n')
        (line,) = lines.read([begins])

Unlike with `atomic_write.written_aside`, the block may read other files: only what goes wrong while
these lines are written is a `WriteError`.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from commands.atomic_write import ASIDE_SUFFIX, remove, write_errors

BUFFER_BYTES = 2**18


class LineWriter:
    """A file that lines are appended to, and read back from.

    Attributes:
        num_bytes: written so far.
    """

    def __init__(self, path: Path) -> None:
        self.num_bytes = 0
        self._path = path
        self._waiting: list[bytes] = []
        self._num_waiting = 0
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")

    def write(self, line: bytes) -> int:
        """Append a line, including its line ending; returns the position of its first byte."""
        begins = self.num_bytes
        self._waiting.append(line)
        self._num_waiting += len(line)
        self.num_bytes += len(line)
        if self._num_waiting >= BUFFER_BYTES:
            self.flush()
        return begins

    def read(self, begins: Iterable[int]) -> Iterator[bytes]:
        """The lines that begin at these positions; nothing may be written in the meantime."""
        self.flush()
        with self._path.open("rb", buffering=BUFFER_BYTES) as file:
            for position in begins:
                file.seek(position)
                yield file.readline()

    def read_all(self) -> Iterator[bytes]:
        """All lines, in order; nothing may be written in the meantime."""
        self.flush()
        with self._path.open("rb", buffering=BUFFER_BYTES) as file:
            yield from file

    def flush(self) -> None:
        """Hand what waits to the system; WriteError if the disk is full."""
        with write_errors(self._path):
            self._file.write(b"".join(self._waiting))
            self._file.flush()
        self._waiting.clear()
        self._num_waiting = 0

    def close(self) -> None:
        """Write nothing more; what waits is dropped."""
        with contextlib.suppress(OSError):  # a full disk, which `flush` has reported
            self._file.close()


@contextlib.contextmanager
def lines_written_aside(path: Path) -> Iterator[LineWriter]:
    """Write a file's lines; it gets its name if the block ends without an error."""
    aside = path.with_name(path.name + ASIDE_SUFFIX)
    with spooled_lines(aside) as lines:
        yield lines
        lines.flush()
        with write_errors(path):
            os.replace(aside, path)


@contextlib.contextmanager
def spooled_lines(path: Path) -> Iterator[LineWriter]:
    """Write lines into a file that is removed when the block ends, unless it was renamed."""
    lines = LineWriter(path)
    try:
        yield lines
    finally:
        lines.close()
        remove(path)
