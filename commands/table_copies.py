"""Copies of tables for memory mapping, so that a command starts as fast on 10,000 hours as on 10.

    data/codes/train/                             what a command wrote, and its users keep
    data/codes/train.0123456789abcdef.arrow       the copy, made when it is first needed

A copy holds the checked rows uncompressed in Arrow's IPC format, in which they are read where they
lie (`mapped_tables.py`). Its name ends in a fingerprint of what it was made from, so that a copy
of other content is never used. It is written aside and renamed: an interrupted command leaves none.
It may be deleted at any time; `SPOKEN_TWI_CACHE` names another folder for it. What is small (64 MiB
on disk) is copied into memory instead, and leaves no file.
"""

import contextlib
import hashlib
import json
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
from tqdm import tqdm

from commands.atomic_write import remove, write_errors
from commands.cache_folder import FOLDER_VARIABLE
from commands.errors import NO_SPACE, InputError, describe_os_error
from commands.fingerprints import fingerprint
from commands.folder_lock import is_same_file, lock_aside
from commands.mapped_tables import MappedTable

LAYOUT = 1  # changes with the content of copies, so that older ones are not read
IN_MEMORY_BYTES = 64 * 2**20
# Rows of a batch of Arrow: few batches to look at when a copy is opened, little memory to fill one.
ROWS_PER_BATCH = 16_384
BYTES_PER_BATCH = 64 * 2**20
SOURCE_KEY, FACTS_KEY = b"copy_of", b"facts"
# What pyarrow raises for a file that is damaged or not Arrow.
ARROW_ERRORS = (OSError, pyarrow.ArrowException, ValueError, KeyError)


class TableWriter:
    """What a table's rows are written to.

    Attributes:
        progress: a bar over the bytes that are read; to be updated by who reads them.
    """

    def __init__(
        self, writer: pyarrow.ipc.RecordBatchFileWriter, schema: pyarrow.Schema, progress: Any
    ) -> None:
        self.progress = progress
        self._writer = writer
        self._schema = schema
        self._waiting: list[pyarrow.RecordBatch] = []
        self._num_rows = self._num_bytes = 0

    def write(self, columns: Sequence[pyarrow.Array]) -> None:
        """Add rows, given by column in the order of the schema."""
        batch = pyarrow.record_batch(list(columns), schema=self._schema)
        self._waiting.append(batch)
        self._num_rows += batch.num_rows
        self._num_bytes += batch.nbytes
        if self._num_rows >= ROWS_PER_BATCH or self._num_bytes >= BYTES_PER_BATCH:
            self._flush()

    def finish(self, facts: str) -> None:
        """Write the last rows, and after them the facts: they are known only then."""
        self._flush()
        empty = pyarrow.record_batch([[] for _ in self._schema], schema=self._schema)
        self._writer.write_batch(empty, custom_metadata={FACTS_KEY: facts})

    def _flush(self) -> None:
        if self._waiting:
            table = pyarrow.Table.from_batches(self._waiting, self._schema).combine_chunks()
            for batch in table.to_batches():
                self._writer.write_batch(batch)
        self._waiting = []
        self._num_rows = self._num_bytes = 0


@dataclass(frozen=True)
class TableSource:
    """What a table is made from.

    Attributes:
        path: the folder or file that a user named.
        flag: the flag that named it, for messages.
        files: the files that are read.
        made_by: whatever else its rows depend on, as JSON can hold it; part of the fingerprint.
        schema: its columns, as for `MappedTable`, one of them "id".
        fill: reads the files, checks every row and writes it; returns the facts, as JSON.
    """

    path: Path
    flag: str
    files: Sequence[Path]
    made_by: Any
    schema: pyarrow.Schema
    fill: Callable[[TableWriter], str]

    @property
    def name(self) -> str:
        return f"{self.flag} {self.path}"

    @cached_property
    def num_bytes(self) -> int:
        """Size of the files together."""
        return sum(file.stat().st_size for file in self.files)

    def copy_path(self) -> Path:
        """Where its copy lies, or is to be written."""
        # A finished folder's `done` holds the hashes of its files. Of another folder large files
        # are only sampled, so the times of their last change count too.
        content: list[Any] = [fingerprint(self.path).get("sha256")]
        if not (self.path / "done").is_file():
            stats = [(file.name, file.stat()) for file in self.files]
            content += [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        known = json.dumps([LAYOUT, self.schema.to_string(), self.made_by, content])
        key = hashlib.sha256(known.encode()).hexdigest()[:16]
        path = Path(os.path.abspath(self.path))
        folder = Path(os.environ.get(FOLDER_VARIABLE) or path.parent)
        return folder / f"{path.name}.{key}.arrow"


def open_table(source: TableSource) -> MappedTable:
    """A source's rows, from its copy; the copy is made if there is none.

    Raises:
        InputError: the source is refused, an id is used twice, the copy is damaged, or the folder
            for it cannot be written.
        WriteError: the disk is full.
    """
    if source.num_bytes <= IN_MEMORY_BYTES:
        sink = pyarrow.BufferOutputStream()
        _fill(source, sink, is_shown=False)
        table = _open(sink.getvalue(), source, where=source.name)
        _refuse_repeated_ids(table, source)
        return table
    path = source.copy_path()
    if not path.exists():
        _make_copy(source, path)
    return _map(path, source)


def hash_ids(table: MappedTable) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A 64-bit hash of each row's id, as `data_manifests.hash_set.hash_text` gives it."""
    hashed = (hashlib.blake2b(id_.encode(), digest_size=8).digest() for id_ in table.texts("id"))
    return np.frombuffer(b"".join(hashed), dtype="<u8").astype(np.uint64, copy=False)


def _refuse_repeated_ids(table: MappedTable, source: TableSource) -> None:
    hashes = hash_ids(table)
    order = hashes.argsort(kind="stable")
    again = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
    if len(again):
        id_ = table.row(int(again.min()))["id"]
        raise InputError(f"{source.name}: id {id_!r} is used twice")


def _fill(source: TableSource, sink: Any, *, is_shown: bool) -> None:
    where = os.path.abspath(source.path)
    schema = source.schema.with_metadata({SOURCE_KEY: where.encode(errors="surrogateescape")})
    with (
        tqdm(
            total=source.num_bytes, desc=f"copy {source.path.name}", unit="B", unit_scale=True,
            disable=not is_shown,
        ) as progress,
        pyarrow.ipc.new_file(sink, schema) as file,
    ):  # fmt: skip
        writer = TableWriter(file, schema, progress)
        writer.finish(source.fill(writer))


def _make_copy(source: TableSource, path: Path) -> None:
    """Write the copy, unless another process does so meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside, descriptor = lock_aside(path)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise InputError(
            f"{source.name}: its copy for memory mapping cannot be written "
            f"({describe_os_error(error)}); name a folder for it in SPOKEN_TWI_CACHE"
        ) from None
    try:
        if path.exists():
            return
        with write_errors(path, (pyarrow.ArrowException,)):
            with pyarrow.OSFile(str(aside), "wb") as sink:
                _fill(source, sink, is_shown=True)
            _refuse_repeated_ids(_map(aside, source), source)
            os.fsync(descriptor)
            os.replace(aside, path)
    finally:
        if is_same_file(descriptor, aside):
            remove(aside)
        os.close(descriptor)
    print(f"{source.name}: copied to {path} for memory mapping", file=sys.stderr)
    for other in sorted(path.parent.glob("*.arrow")):
        if other != path and _is_copy_of(other, source.path):
            remove(other)


def _is_copy_of(path: Path, source: Path) -> bool:
    """Whether a file is a copy that was made from a path, of whatever content it had then."""
    with contextlib.suppress(*ARROW_ERRORS), pyarrow.memory_map(str(path)) as file:
        metadata = pyarrow.ipc.open_file(file).schema.metadata or {}
        return metadata.get(SOURCE_KEY) == os.path.abspath(source).encode(errors="surrogateescape")
    return False


def _map(path: Path, source: TableSource) -> MappedTable:
    try:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: empty
        raise InputError(f"{path}: cannot be read: {error}; delete it") from None
    return _open(pyarrow.py_buffer(mapping), source, where=str(path), mapping=mapping)


def _open(
    content: pyarrow.Buffer, source: TableSource, *, where: str, mapping: mmap.mmap | None = None
) -> MappedTable:
    try:
        reader = pyarrow.ipc.open_file(pyarrow.BufferReader(content))
        if not reader.schema.equals(source.schema):
            raise ValueError("other columns")
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        _, metadata = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
        facts = metadata[FACTS_KEY].decode()
        return MappedTable(batches, facts, where=where, mapping=mapping)
    except ARROW_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"{where}: damaged ({reason}); delete it, and it is made again from {source.name}"
        ) from None
