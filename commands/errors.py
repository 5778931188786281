"""Errors that are not bugs, which a command reports in one line."""

import difflib
import errno
from collections.abc import Sequence

# System errors that are not the command's fault: disk full, read-only, forbidden, broken.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MACHINE_ERRORS = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
        errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM,
    }
)  # fmt: skip


class InputError(ValueError):
    """A user's mistake. Shown at the command line as one line, with exit code 2 and no
    traceback."""


class WriteError(Exception):
    """A file could not be written: a full disk, a limit. Shown as one line, with exit code 1; what
    is complete is kept, and `--resume` continues from there."""


class PartnerEnded(Exception):
    """Another process of the same run has ended, so this one cannot go on. Shown as one line, with
    exit code 1."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers send before they kill a process: ends a command as Ctrl-C does."""


def describe_os_error(error: OSError) -> str:
    """File and reason, without Python's error number and quotation marks: "x: Permission
    denied"."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def nearest_name(name: str, known: Sequence[str]) -> str:
    """A hint to append to an 'unknown name' error: the closest known name, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
