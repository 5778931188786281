"""Recordings that stay in an archive or a Parquet table, read one at a time without unpacking.

    shards/train-000.tar::clips/0001.flac       a member of a plain tar archive, by its name
    fisd-fanti-90p.zip::audios/0001.ogg         a member of a zip
    train-00000-of-00041.parquet::audio/17      row 17, counted from 0, of the column `audio`, as
                                                Hugging Face audio datasets store it

Such references stand in manifests in place of a path. An archive's members are listed once a
process. A table is read by row groups, of which the last few are kept: neighbouring rows of a
manifest should be neighbours in the table too, as `data_manifests.build` writes them.

Archives and tables may be objects on a store (`commands/stores.py`). Only the parts of them that
are asked for are read; but a tar, which has no list of its members, is read through once.
"""

import functools
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from commands.errors import InputError
from commands.regular_files import open_regular
from commands.stores import is_url, object_facts, open_object, read_object, url_of
from data_manifests.kept_values import KeptValues

SEPARATOR = "::"
_REFERENCE = re.compile(r"(?s)(?P<container>.+?\.(?:tar|zip|parquet))::(?P<name>.*)", re.IGNORECASE)
MAX_MEMBER_BYTES = 2**30  # of one encoded recording
MAX_MEMBERS = 10_000_000
ARCHIVES_LISTED = 64
ROW_GROUPS_KEPT = 8  # a hundred recordings each, as `datasets` writes them
PART_BYTES = 2**16  # read at a time of an object on a store, in which one looks here and there
MAX_BYTES_KEPT = 2**28  # of row groups; others write them larger
# What zipfile and the decompressors raise for a file that is damaged. RuntimeError: it has a
# password; NotImplementedError, a subclass: its compression method is not supported.
ZIP_ERRORS = (
    zipfile.BadZipFile, OSError, EOFError, ValueError, OverflowError, RuntimeError, struct.error,
    IndexError, zlib.error, lzma.LZMAError,
)  # fmt: skip


class NotThere(InputError):
    """There is no such container, or no such recording in it."""


@dataclass(frozen=True)
class Reference:
    """Where a recording is: the file that contains it, and its name or column and row in there."""

    container: Path
    name: str


def find_reference(path: Path) -> Reference | None:
    """Read a reference; None if it is the path of a file of its own."""
    if SEPARATOR not in str(path):
        return None
    found = _REFERENCE.fullmatch(str(path))
    return Reference(Path(found["container"]), found["name"]) if found else None


def make_reference(container: Path, name: str) -> str:
    """Write a reference to a recording in a container, which is named by its absolute path.

    Raises:
        InputError: a reference with these names would be read as another.
    """
    path = _without_links(container)
    reference = f"{url_of(path)}{SEPARATOR}{name}"
    if find_reference(Path(reference)) != Reference(path, name):
        raise InputError(
            f"{container}: {name!r} in it cannot be named in a manifest: the file must be called "
            ".tar, .zip or .parquet, and the name hold no '//', './' or '::'"
        )
    return reference


def name_in_manifest(audio: Path) -> str:
    """How a manifest names a recording: a reference as it is, a file by its absolute path without
    links."""
    return str(audio) if find_reference(audio) or is_url(audio) else str(audio.resolve())


@functools.lru_cache(ARCHIVES_LISTED)
def _without_links(container: Path) -> Path:
    # Its name stays, even of a link: what the Hugging Face cache links to has no suffix.
    return container if is_url(container) else container.parent.resolve() / container.name


def list_members(path: Path) -> list[str]:
    """The names of the files in a plain tar archive; InputError if it is damaged or compressed."""
    return list(_members(path, _version_of(path)))


def read_contained(reference: Reference) -> bytes:
    """The encoded recording.

    Raises:
        NotThere: no such file, member, column or row.
        InputError: the container is damaged or compressed, or the recording is over 1 GiB.
        OSError: the container cannot be read.
    """
    path = reference.container
    version = _version_of(path)
    if path.suffix.lower() == ".tar":
        members = _members(path, version)
        if reference.name not in members:
            raise NotThere(f"{url_of(path)}: no member {reference.name!r} in it")
        offset, size = members[reference.name]
        return _read_range(path, offset, _refuse_too_large(size, path))
    if path.suffix.lower() == ".zip":
        return _read_zip(path, version, reference.name)
    column, _, row = reference.name.rpartition("/")
    if not column or not row.isascii() or not row.isdigit():
        raise NotThere(
            f"{url_of(path)}{SEPARATOR}{reference.name}: must be COLUMN/ROW, as in audio/17"
        )
    return _read_row(path, version, column, int(row))


def _version_of(path: Path) -> tuple[Path, int, int | str]:
    """What changes when a container is written again."""
    try:
        if is_url(path):
            known = object_facts(path)
            return path, known.num_bytes, known.version
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotThere(f"{url_of(path)}: no such file") from None
    if not stat.S_ISREG(facts.st_mode):
        raise InputError(f"{url_of(path)}: not a regular file")
    return path, facts.st_size, facts.st_mtime_ns


def _members(path: Path, version: Hashable) -> dict[str, tuple[int, int]]:
    return _ARCHIVES.get(version, partial(_list_members, path))


def _list_members(path: Path) -> dict[str, tuple[int, int]]:
    """Where each regular file's bytes begin in an archive, and how many there are."""
    members: dict[str, tuple[int, int]] = {}
    try:
        # A compressed one cannot be read in the middle.
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.isreg():
                    members[member.name.removeprefix("./")] = (member.offset_data, member.size)
                if len(members) > MAX_MEMBERS:
                    raise InputError(f"{url_of(path)}: more than {MAX_MEMBERS:,} members")
                archive.members = []  # type: ignore[attr-defined] # it would keep all of them
            _refuse_damaged_end(path, file, archive.offset)
    except tarfile.TarError as error:
        raise InputError(
            f"{url_of(path)}: not a plain tar archive ({error}); unpack a compressed one first"
        ) from None
    return members


def _refuse_damaged_end(path: Path, file: BinaryIO, offset: int) -> None:
    """Raise InputError unless an archive ends at the header that was not read: tarfile takes a
    damaged one for the end."""
    file.seek(offset)
    if any(header := file.read(tarfile.BLOCKSIZE)) or len(header) % tarfile.BLOCKSIZE:
        raise InputError(f"{url_of(path)}: damaged or cut short after {offset:,} bytes")


def _read_range(path: Path, offset: int, size: int) -> bytes:
    if is_url(path):
        return read_object(path, start=offset, size=size)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _open(path: Path) -> BinaryIO:
    """A container of which parts are read here and there."""
    return open_object(path, buffer_bytes=PART_BYTES) if is_url(path) else path.open("rb")


def _read_zip(path: Path, version: Hashable, name: str) -> bytes:
    try:
        # A process that was forked opens it again: two would move one position in the file.
        archive = _ZIPS.get((version, os.getpid()), lambda: zipfile.ZipFile(_open(path)))
        member = archive.NameToInfo.get(name)
        if member is None or member.is_dir():
            raise NotThere(f"{url_of(path)}: no member {name!r} in it")
        _refuse_too_large(member.file_size, path)
        return archive.read(member)
    except InputError:
        raise
    except ZIP_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{url_of(path)}: not readable as a zip: {reason[:200]}") from None


def _read_row(path: Path, version: Hashable, column: str, row: int) -> bytes:
    import pyarrow
    import pyarrow.parquet

    try:
        table = _TABLES.get(version, partial(_read_footer, path))
        if column not in table.column_names:
            raise NotThere(f"{url_of(path)}: no column {column!r}")
        group, first = _group_of(table, row)
        if group < 0:
            raise NotThere(
                f"{url_of(path)}: has {sum(table.group_rows)} rows, none is number {row}"
            )
        encoded = _GROUPS.get((version, column, group), partial(_read_group, path, column, group))
        value = encoded[row - first]
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{url_of(path)}: not readable as Parquet: {reason[:200]}") from None
    if not value.is_valid:
        raise NotThere(f"{url_of(path)}{SEPARATOR}{column}/{row}: no recording in this row")
    buffer = value.as_buffer()
    _refuse_too_large(buffer.size, path)
    return bytes(buffer)


@dataclass(frozen=True)
class _Footer:
    """What a table says of itself: its columns, and how many rows each row group has."""

    column_names: list[str]
    group_rows: list[int]


def _read_footer(path: Path) -> _Footer:
    import pyarrow.parquet

    with _open(path) as file, pyarrow.parquet.ParquetFile(file) as table:
        groups = map(table.metadata.row_group, range(table.num_row_groups))
        return _Footer(table.schema_arrow.names, [group.num_rows for group in groups])


def _group_of(table: _Footer, row: int) -> tuple[int, int]:
    """The row group that holds a row, and its first row; -1 if there is no such row."""
    first = 0
    for group, num_rows in enumerate(table.group_rows):
        if row < first + num_rows:
            return group, first
        first += num_rows
    return -1, 0


def _read_group(path: Path, column: str, group: int) -> Any:
    """The encoded recordings of a row group: a column of bytes, or of structs with `bytes`."""
    import pyarrow
    import pyarrow.parquet

    with _open(path) as file, pyarrow.parquet.ParquetFile(file) as table:
        values = table.read_row_group(group, columns=[column]).column(0).combine_chunks()
    if pyarrow.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        values = values.field("bytes")
    if not (pyarrow.types.is_binary(values.type) or pyarrow.types.is_large_binary(values.type)):
        raise InputError(f"{url_of(path)}: column {column!r} holds {values.type}, not recordings")
    return values


def _refuse_too_large(num_bytes: int, path: Path) -> int:
    if num_bytes > MAX_MEMBER_BYTES:
        raise InputError(
            f"{url_of(path)}: a recording of {num_bytes:,} bytes, at most 1 GiB can be"
        )
    return num_bytes


_ARCHIVES: KeptValues[dict[str, tuple[int, int]]] = KeptValues(ARCHIVES_LISTED)
_TABLES: KeptValues[_Footer] = KeptValues(ARCHIVES_LISTED)
_ZIPS: KeptValues[zipfile.ZipFile] = KeptValues(ARCHIVES_LISTED)
_GROUPS: KeptValues[Any] = KeptValues(
    ROW_GROUPS_KEPT, num_bytes=lambda values: values.nbytes, max_bytes=MAX_BYTES_KEPT
)
