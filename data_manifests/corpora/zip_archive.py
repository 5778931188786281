"""Read untrusted zip archives: one member at a time, within limits on its size."""

import zipfile
from collections import Counter
from pathlib import Path

from commands.errors import InputError
from data_manifests.contained_audio import ZIP_ERRORS
from data_manifests.corpora.archive_limits import MAX_MEMBER_BYTES, MAX_MEMBERS, max_unpacked_bytes
from data_manifests.corpora.recording import one_line


def open_zip(path: Path) -> tuple[zipfile.ZipFile, list[str]]:
    """Open a zip.

    Returns:
        The archive, and the names of its files, sorted.

    Raises:
        InputError: not a zip, two members with one name, or a member that claims to be larger than
            `archive_limits` allows.
    """
    try:
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
    except ZIP_ERRORS as error:
        raise InputError(f"{path}: not a readable zip ({one_line(error)})") from None
    names = [member.filename for member in members if not member.is_dir()]
    if len(names) > MAX_MEMBERS:
        raise InputError(f"{path}: over {MAX_MEMBERS} files")
    for twice, count in Counter(names).most_common(1):
        if count > 1:
            raise InputError(f"{path}: {twice[:100]!r} is in it twice")
    largest = max(members, key=lambda member: member.file_size, default=None)
    if largest is not None and largest.file_size > MAX_MEMBER_BYTES:
        raise InputError(
            f"{path}: {largest.filename!r} claims to have {largest.file_size} bytes, at most "
            f"{MAX_MEMBER_BYTES} are read"
        )
    if sum(member.file_size for member in members) > max_unpacked_bytes(path.stat().st_size):
        raise InputError(f"{path}: claims to unpack to far more than an archive of its size holds")
    return archive, sorted(names)


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a file in a zip; InputError if it is damaged."""
    try:
        return archive.read(name)
    except ZIP_ERRORS as error:
        raise InputError(f"{archive.filename}: {name} is damaged ({one_line(error)})") from None
