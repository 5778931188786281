"""Files on object stores: `s3://bucket/x`, `gs://bucket/x`, and whatever else fsspec knows.

    path = Path("s3://bucket/data/train.jsonl")     # pathlib writes it s3:/bucket/data/train.jsonl
    with open_object(path) as file: ...
    read_object(path, start=512, size=1024)
    put(Path("codes_00000.parquet"), path.parent / "codes_00000.parquet")

A `Path` whose first part ends with a colon is a URL: so settings and manifests hold URLs where they
hold paths, and `/`, `.parent` and `.name` work. What is asked of a store: to read a range of an
object; that a put is atomic (who reads sees the old object, or the new one, or none, never a
part); and that a listing shows what has been put. There is no renaming, and no locking.

An object that is read must not change while the command runs.
"""

import contextlib
import errno
import functools
import io
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from commands.atomic_write import written_aside
from commands.errors import InputError

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")
BUFFER_BYTES = 2**22  # read at a time where a whole object is read: 4 MiB
FACTS_KEPT = 4096
NUM_CONNECTIONS = 8  # with which several objects are copied


@dataclass(frozen=True)
class ObjectFacts:
    """What a listing says of an object: its size, and what changes when it is put again."""

    num_bytes: int
    version: str


def is_url(path: Path | str) -> bool:
    """Whether a path is that of an object on a store."""
    return _URL.match(str(path)) is not None


def url_of(path: Path) -> str:
    """A path as users write it: "s3:/bucket/x" is "s3://bucket/x"; others are as they are."""
    if not is_url(path):
        return str(path)
    scheme, rest = str(path).split(":/", 1)
    return f"{scheme}:///{rest}" if scheme in ("file", "local") else f"{scheme}://{rest}"


def open_object(path: Path, *, buffer_bytes: int = BUFFER_BYTES) -> io.BufferedReader:
    """Open an object for reading, in ranges of at least `buffer_bytes`.

    Raises:
        OSError: there is no such object, or it cannot be read; `errno` and `strerror` are set.
        InputError: the store is not known, or fsspec lacks a package for it.
    """
    raw = _Object(path, object_facts(path).num_bytes)
    return io.BufferedReader(raw, buffer_bytes)


def read_object(path: Path, *, start: int = 0, size: int) -> bytes:
    """Read a part of an object, or as much of it as there is; errors as of `open_object`."""
    with _store_errors(path):
        system, inner = _system(path)
        try:
            content: bytes = system.cat_file(inner, start=start, end=start + size)
        except Exception:  # S3 refuses a range behind the end: "416, not satisfiable"
            if start < object_facts(path).num_bytes:
                raise
            return b""
        return content


def exists(path: Path) -> bool:
    """Whether there is a file, or an object, of this name."""
    if not is_url(path):
        return path.exists()
    with _store_errors(path):
        system, inner = _system(path)
        return bool(system.isfile(inner))


def is_file(path: Path) -> bool:
    """Whether a path names a file or an object, and not a folder."""
    return exists(path) if is_url(path) else path.is_file()


@functools.lru_cache(FACTS_KEPT)
def object_facts(path: Path) -> ObjectFacts:
    """Size and version of an object, asked for once a process; errors as of `open_object`."""
    with _store_errors(path):
        system, inner = _system(path)
        facts = system.info(inner)
        if facts["type"] != "file":
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), url_of(path))
        return _facts_of(facts)


def num_bytes(path: Path) -> int:
    """Size of a file or an object; OSError if there is none."""
    return object_facts(path).num_bytes if is_url(path) else path.stat().st_size


def list_objects(folder: Path) -> dict[str, ObjectFacts]:
    """All objects in a folder and below, by their paths in it, sorted; none if there is no such
    folder.

    Raises:
        OSError: the store cannot be read.
        InputError: it is not known, or an object's name leads out of the folder.
    """
    with _store_errors(folder):
        system, inner = _system(folder)
        system.invalidate_cache()
        try:
            found = system.find(inner, detail=True)
        except FileNotFoundError:
            return {}
    names = {_name_in(inner, name): _facts_of(facts) for name, facts in found.items()}
    for name in names:
        if name.startswith("/") or ".." in Path(name).parts:
            raise InputError(f"{url_of(folder)}: {name!r} leads out of the folder")
    return {name: names[name] for name in sorted(names) if name}


def put(file: Path, target: Path) -> None:
    """Write a file as an object, in place of an earlier one of the name; errors as of
    `open_object`."""
    with _store_errors(target):
        system, inner = _system(target)
        if "file" in (system.protocol if isinstance(system.protocol, tuple) else ()):
            _put_on_disk(file, Path(inner))
        else:
            system.put_file(str(file), inner)
    object_facts.cache_clear()


def get(path: Path, file: Path) -> None:
    """Write an object as a file, atomically; errors as of `open_object`."""
    with written_aside(file) as aside, _store_errors(path):
        system, inner = _system(path)
        system.get_file(inner, str(aside))


def copy_objects(url: Path, folder: Path, names: Sequence[str]) -> Iterator[str]:
    """Write objects of a folder as files, several at a time; yields the names of those that are
    there, in order.

    Raises:
        OSError, InputError: as `open_object`.
    """
    with ThreadPoolExecutor(NUM_CONNECTIONS) as pool:
        done = pool.map(lambda name: get(url / name, folder / name), names)
        bar = tqdm(done, total=len(names), desc=f"copy {url.name}", unit=" files", delay=2)
        for name, _ in zip(names, bar, strict=True):
            yield name


def delete(path: Path) -> None:
    """Delete an object, if there is one; errors as of `open_object`."""
    with _store_errors(path):
        system, inner = _system(path)
        with contextlib.suppress(FileNotFoundError):
            system.rm_file(inner)
    object_facts.cache_clear()


class _Object(io.RawIOBase):
    """An object as a file that is read in ranges."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        self._path = path
        self._num_bytes = num_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._num_bytes - self._position)
        if size <= 0:
            return 0
        content = read_object(self._path, start=self._position, size=size)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def _system(path: Path) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. fsspec keeps file systems, and makes new ones
    in a process that was forked."""
    import fsspec

    url = url_of(path)
    if "::" in url:  # fsspec would take it for two URLs
        raise OSError(errno.EINVAL, "No object can have '::' in its name", url)
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError:
        raise InputError(
            f"{url}: needs a package for this store: pip install '.[remote]' (s3:// and gs://), or "
            "what fsspec names for another"
        ) from None
    except ValueError:
        raise InputError(f"{url}: fsspec knows no such store") from None


@contextlib.contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    """Give every error of a store `errno`, `strerror` and the URL, so that it is told like one of a
    disk."""
    url = url_of(path)
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from None
    except OSError as error:
        if error.errno is not None and error.filename == url:
            raise
        number = error.errno or (errno.EACCES if isinstance(error, PermissionError) else errno.EIO)
        raise OSError(number, error.strerror or _one_line(error), url) from error
    # What clients of stores raise apart from that is their own: no credentials, no network.
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {_one_line(error)}", url) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _facts_of(facts: dict[str, Any]) -> ObjectFacts:
    names = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "created")
    version = "; ".join(f"{name} {facts[name]}" for name in names if facts.get(name))
    return ObjectFacts(int(facts["size"] or 0), version)


def _name_in(folder: str, name: str) -> str:
    return name.removeprefix("/").removeprefix(folder.removeprefix("/").rstrip("/") + "/")


def _put_on_disk(file: Path, target: Path) -> None:
    """For file://, where a copy is not atomic."""
    with written_aside(target) as aside:
        aside.write_bytes(file.read_bytes())
