"""Check that a result can be written to its destination, before anything is computed."""

import tempfile
from pathlib import Path

from commands.errors import NO_SPACE, InputError


def refuse_unwritable(
    path: Path, *, flag: str, is_folder: bool = False, may_exist: bool = False
) -> None:
    """Raise InputError if a file or folder could not be written later.

    Nothing is left behind: an unnamed temporary file is tried in the nearest existing folder.

    Args:
        path: what the user named.
        flag: the flag it was given with, for the message.
        is_folder: the path is a folder to write files into; otherwise it is a file.
        may_exist: the path may already exist, and is then overwritten or added to.

    Raises:
        InputError: the path already exists, is a file in place of a folder or the reverse, or
            cannot be written.
        OSError: the disk is full.
    """
    folder = path if is_folder else path.parent
    try:
        # A dangling link does not "exist", but would be followed.
        if not may_exist and (path.exists() or path.is_symlink()):
            raise InputError(f"{flag} {path} exists already; name a new one")
        if path.exists() and path.is_dir() != is_folder:
            is_, wanted = ("folder", "file") if path.is_dir() else ("file", "folder")
            raise InputError(f"{flag} {path} is a {is_}; name a {wanted}")
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in NO_SPACE:  # another path would not help
            raise
        raise InputError(f"{flag} {path} cannot be written: {folder}: {error.strerror}") from None
