"""Atomic writing: files get a temporary name until they are complete, and are then renamed.

with written_aside(path) as aside:
    pyarrow.parquet.write_table(table, aside)
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from commands.errors import MACHINE_ERRORS, WriteError, describe_os_error

# Suffix of unfinished files and folders; a run folder's `done` never lists them.
ASIDE_SUFFIX = ".tmp"


@contextlib.contextmanager
def written_aside(
    path: Path, *, raised_by_writer: tuple[type[Exception], ...] = ()
) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `path` if the block ends without an error.

    Args:
        path: final name of a file or folder; parent folders are created. An existing file is
            replaced atomically; an existing folder is removed once the new one is complete.
        raised_by_writer: what the writer in the block raises, apart from `OSError`, when a write
            fails: torch's RuntimeError, safetensors' SafetensorError.

    Raises:
        WriteError: the disk is full, or the system refuses the write for another reason; the
            temporary file or folder is removed.
    """
    aside = path.with_name(path.name + ASIDE_SUFFIX)
    with write_errors(path, raised_by_writer):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(aside)
        try:
            yield aside
            if path.is_dir() and aside.is_dir():  # never replace a folder by a file
                take_away(path)
            os.replace(aside, path)
        except BaseException:
            remove(aside)
            raise


@contextlib.contextmanager
def write_errors(path: Path, raised_by_writer: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn the errors that a writer raises when a write fails into `WriteError`, naming the file.

    Args:
        path: the file or folder being written.
        raised_by_writer: as in `written_aside`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        # Some writers, pyarrow among them, name no file.
        where = "" if error.filename else f"{path}: "
        raise WriteError(f"cannot write {where}{describe_os_error(error)}") from error
    except raised_by_writer as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WriteError(f"cannot write {path}: {reason}") from error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; NaN and infinity, which JSON does not have, are refused."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, with LF line endings on every system."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def take_away(folder: Path) -> None:
    """Remove a folder if it exists; it is renamed first, so that it is never seen half removed."""
    aside = folder.with_name(f"{folder.name}.old{ASIDE_SUFFIX}")
    remove(aside)
    if folder.exists():
        folder.rename(aside)
        remove(aside)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left unfinished in a folder and its subfolders."""
    for path in sorted(folder.rglob(f"*{ASIDE_SUFFIX}")):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder and its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
