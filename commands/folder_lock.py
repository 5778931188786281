"""Locks on output folders: only one command at a time writes to a folder."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

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
