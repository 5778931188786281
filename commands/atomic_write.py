"""Files written aside and renamed: under its own name a file is whole, or it is not there.

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

# Ends the name of whatever is not finished; a run folder's `done` never lists it.
ASIDE_SUFFIX = ".tmp"


@contextlib.contextmanager
def written_aside(
    path: Path, *, raised_by_writer: tuple[type[Exception], ...] = ()
) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends without an error.

    Args:
        path: final name of a file or folder; the folders above it are made. A file there is
            replaced at once; of a folder, one there is taken away when the new one is complete.
        raised_by_writer: what the writer in the block raises where the machine refuses, apart from
            `OSError`: torch's RuntimeError, safetensors' SafetensorError.

    Raises:
        WriteError: the disk is full, or the machine refuses for another reason; what was written
            aside is removed.
    """
    aside = path.with_name(path.name + ASIDE_SUFFIX)
    with write_errors(path, raised_by_writer):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(aside)
        try:
            yield aside
            if path.is_dir() and aside.is_dir():  # never a folder for a file
                take_away(path)
            os.replace(aside, path)
        except BaseException:
            remove(aside)
            raise


@contextlib.contextmanager
def write_errors(path: Path, raised_by_writer: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """In place of what a writer raises where the machine refuses, `WriteError` with the file's
    name.

    Args:
        path: what is written.
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
    """Write JSON, indented; NaN and infinity are refused, for JSON has none."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, with line feeds whatever the system."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def take_away(folder: Path) -> None:
    """Remove a folder, if it is there; under its own name it is never seen half removed."""
    aside = folder.with_name(f"{folder.name}.old{ASIDE_SUFFIX}")
    remove(aside)
    if folder.exists():
        folder.rename(aside)
        remove(aside)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left unfinished, in a folder and those in it."""
    for path in sorted(folder.rglob(f"*{ASIDE_SUFFIX}")):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
