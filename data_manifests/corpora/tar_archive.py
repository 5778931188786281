"""Unpack untrusted tar archives: plain files only, below one folder, within limits."""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from tqdm import tqdm

from commands.atomic_write import remove, write_json, written_aside
from commands.errors import MACHINE_ERRORS, InputError, WriteError
from commands.json_files import read_json_as
from commands.regular_files import open_regular
from commands.setting_types import refuse_impossible_path
from data_manifests.corpora.archive_limits import MAX_MEMBER_BYTES, MAX_MEMBERS, max_unpacked_bytes
from data_manifests.corpora.recording import one_line

# What tarfile and the decompressors raise for a file that is damaged or in another format.
TAR_ERRORS = (
    tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error, lzma.LZMAError,
    RecursionError,  # extended headers of extended headers of ...
)  # fmt: skip
# Keyed by the first bytes of a file.
DECOMPRESSORS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open,
}  # fmt: skip
BLOCK_BYTES = 2**20
SAMPLE_BYTES = 2**20
MAX_READ_BYTES = 2**26  # at a time: no real extended header claims more
FREE_BYTES = 2**26  # kept free on the disk


@dataclass(frozen=True)
class _Unpacked:
    """Which archive was unpacked into a folder, and whether completely."""

    archive: str
    is_whole: bool


def unpack_tar_once(archive: Path, folder: Path) -> None:
    """Unpack a tar, compressed or not, into a folder of its own; if killed, it continues where it
    stopped.

    The archive is read to its end, including its checksum. `<folder>.unpacked.json`, beside the
    folder, records what was unpacked from which archive; a different archive, even of the same name
    and size, replaces it.

    Raises:
        InputError: it is damaged or cut short; holds a link, a device or a sparse file, a path
            outside the folder, or the same path twice; or is larger when unpacked than
            `archive_limits` allows.
        WriteError: the disk is too full.
    """
    note = folder.with_name(folder.name + ".unpacked.json")
    identity = _identify(archive)
    before = read_json_as(note, _Unpacked) if note.exists() else None
    if before is None or before.archive != identity:
        if before is None and folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} holds files that were not unpacked here; remove it")
        if before is not None:
            print(f"{archive} has changed: unpacking it again", file=sys.stderr)
        remove(folder)
        folder.mkdir(parents=True)
        write_json(note, {"archive": identity, "is_whole": False})
    elif before.is_whole:
        return
    try:
        _unpack(archive, folder)
    except TAR_ERRORS as error:
        if isinstance(error, InputError) or getattr(error, "errno", None) in MACHINE_ERRORS:
            raise
        raise InputError(
            f"{archive}: cannot be unpacked into {folder}: {one_line(error)}; download it again"
        ) from None
    write_json(note, {"archive": identity, "is_whole": True})


def _unpack(archive: Path, folder: Path) -> None:
    with _decompressed(archive) as stream:
        limited = _LimitedStream(stream, max_unpacked_bytes(archive.stat().st_size), str(archive))
        seen: set[str] = set()
        with tarfile.open(fileobj=cast(BinaryIO, limited), mode="r:") as tar:
            for member in tqdm(tar, desc=f"unpack {archive.name}", unit=" files"):
                if member.isdir():
                    continue
                path = _safe_path(member, str(archive))
                if str(path) in seen:
                    raise InputError(f"{archive}: {path} is in it twice")
                seen.add(str(path))
                if len(seen) > MAX_MEMBERS:
                    raise InputError(f"{archive}: over {MAX_MEMBERS} files")
                _write_member(tar, member, folder / path)
        # tarfile takes a damaged header for the end of the archive.
        if limited.last_read != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it ends in the middle, after {len(seen)} files")
        while limited.read(BLOCK_BYTES):  # the checksum comes last
            pass


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    if target.is_file() and target.stat().st_size == member.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < member.size + FREE_BYTES:
        raise WriteError(f"cannot write {target}: the disk is too full")
    source = tar.extractfile(member)
    assert source is not None  # true for any plain file
    with written_aside(target) as aside, aside.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK_BYTES)


def _safe_path(member: tarfile.TarInfo, archive: str) -> PurePosixPath:
    """Where a member goes, relative to the folder; InputError if it must not be unpacked."""
    shown = repr(member.name[:100])
    if not member.isreg() or member.issparse():
        raise InputError(f"{archive}: {shown} is a link, a device or a sparse file, not a file")
    if not 0 <= member.size <= MAX_MEMBER_BYTES:
        raise InputError(f"{archive}: {shown} claims to have {member.size} bytes")
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InputError(f"{archive}: {shown} leads out of its folder")
    try:
        refuse_impossible_path(Path(path))
    except ValueError as error:
        raise InputError(f"{archive}: {shown} {error}") from None
    return path


@contextlib.contextmanager
def _decompressed(archive: Path) -> Iterator[BinaryIO | io.BufferedIOBase]:
    """The decompressed tar stream of an archive."""
    with open_regular(archive) as file:
        start = file.read(max(map(len, DECOMPRESSORS)))
        file.seek(0)
        for magic, decompressor in DECOMPRESSORS.items():
            if start.startswith(magic):
                with decompressor(file) as stream:
                    yield stream
                return
        yield file


class _LimitedStream:
    """A stream that limits its length, and how often it can be read beyond its end.

    Attributes:
        last_read: the bytes that were read last.
    """

    def __init__(self, stream: BinaryIO | io.BufferedIOBase, max_bytes: int, name: str) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._name = name
        self._num_empty = 0
        self.last_read = b""

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes."""
        if size > MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header claims to have {size} bytes")
        self.last_read = self._stream.read(size)
        # tarfile (Python 3.11) asks for the rest of a sparse file's map for ever.
        self._num_empty = 0 if self.last_read or not size else self._num_empty + 1
        if self._num_empty > 8:
            raise EOFError("it ends in the middle")
        self._refuse_too_long()
        return self.last_read

    def seek(self, position: int) -> int:
        """Go forward (or back, in an uncompressed archive)."""
        if position > self._max_bytes:
            raise InputError(f"{self._name}: claims to unpack to over {self._max_bytes} bytes")
        return self._stream.seek(position)

    def tell(self) -> int:
        """Bytes read so far."""
        return self._stream.tell()

    def _refuse_too_long(self) -> None:
        if self._stream.tell() > self._max_bytes:
            raise InputError(
                f"{self._name}: unpacks to over {self._max_bytes} bytes, which is too much for an "
                "archive of its size"
            )


def _identify(archive: Path) -> str:
    """A hash of the size, modification time, and first and last MiB."""
    try:
        with open_regular(archive) as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} ".encode())
            digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(0, status.st_size - SAMPLE_BYTES))
            digest.update(file.read())
    except OSError as error:
        raise InputError(f"{archive}: {error.strerror or error}") from None
    return digest.hexdigest()
