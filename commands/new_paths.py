"""Whether a result can be written where it is to go: asked before anything is computed."""

import tempfile
from pathlib import Path

from commands.errors import InputError


def refuse_unwritable(
    path: Path, *, flag: str, is_folder: bool = False, may_exist: bool = False
) -> None:
    """InputError where a file or folder could not be written later.

    Nothing is made: the nearest folder that is there is tried with a file without a name.

    Args:
        path: what the user named.
        flag: the flag it was given with, for the message.
        is_folder: files are written into it; otherwise it is written itself.
        may_exist: it may be there already, and is then written over, or added to.

    Raises:
        InputError: it is there already, is a file in place of a folder or the reverse, or the
            machine refuses.
    """
    folder = path if is_folder else path.parent
    try:
        # A link that leads nowhere does not "exist", and would be followed.
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
        raise InputError(f"{flag} {path} cannot be written: {folder}: {error.strerror}") from None
