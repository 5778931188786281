"""Open regular files only: reading a pipe or a device in place of one might never end. Objects on
stores are opened too (`stores.py`)."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from commands.errors import InputError, describe_os_error
from commands.stores import is_url, open_object


def open_regular(path: Path) -> BinaryIO:
    """Open a file, or an object on a store, for reading; never blocks.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device; `strerror` says so.
    """
    if is_url(path):
        return open_object(path)
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a NUL, or half of a surrogate pair
        raise OSError(errno.EINVAL, "No file can have this name", str(path)) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a file, but a pipe or a device", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, *, max_bytes: int, flag: str = "") -> bytes:
    """Read a whole file, unless it is larger than it should be.

    Args:
        path: the file.
        max_bytes: the largest size allowed.
        flag: the flag that named it, for the message.

    Raises:
        InputError: it cannot be read, is not a regular file, or is larger.
    """
    named = f"{flag} {path}" if flag else str(path)
    try:
        with open_regular(path) as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{named}: {error.strerror or error}") from None
    if len(content) > max_bytes:
        raise InputError(f"{named}: over {max_bytes} bytes, which is too large for such a file")
    return content


def list_files_below(folder: Path) -> list[Path]:
    """Every file in a folder and in those below it, sorted; links to folders are not followed.

    Raises:
        InputError: a folder cannot be read, or changes while it is being read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{folder}: cannot be listed: {describe_os_error(error)}")

    return sorted(
        Path(above, name) for above, _, names in os.walk(folder, onerror=refuse) for name in names
    )
