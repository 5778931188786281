"""Locks: only one command at a time writes to an output folder, or to a file that several want."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from commands.atomic_write import ASIDE_SUFFIX
from commands.errors import InputError


@contextlib.contextmanager
def folder_lock(out: Path) -> Iterator[None]:
    """Lock a folder against other commands inside a `with` block.

    Args:
        out: an existing folder. Where its file system has no locks, one line on stderr says so.

    Raises:
        InputError: another command has locked it.
    """
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"--out {out}: another command is writing to it now") from None
        except OSError as error:  # some network file systems do not support locks
            print(
                f"--out {out} cannot be locked ({error.strerror}): let one command alone write "
                "there",
                file=sys.stderr,
            )
        yield
    finally:
        os.close(descriptor)


def lock_aside(path: Path) -> tuple[Path, int]:
    """Lock the file that is to be renamed to a path, and wait while another process writes it.

    Returns:
        Its path, and the descriptor that holds the lock. Where the file system has no locks, a
        path that no other process uses.
    """
    aside = path.with_name(path.name + ASIDE_SUFFIX)
    while True:
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process, which writes {path}", file=sys.stderr)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError:
            os.close(descriptor)
            own = path.with_name(f"{path.name}.{os.getpid()}{ASIDE_SUFFIX}")
            return own, os.open(own, os.O_RDWR | os.O_CREAT, 0o666)
        if is_same_file(descriptor, aside):
            return aside, descriptor
        os.close(descriptor)  # renamed or removed by who had locked it


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether a path still names the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
