"""Read output folders: they must be finished, intact and written by the expected command.

    settings = open_input(Path("runs/rvq"), made_by="stage1_rvq.train", flag="--rvq")
    for path in list_files(Path("data/x"), "shard_*.jsonl", flag="--embeddings"):
        ...

`run_folder.py` writes these folders and says what they hold.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from commands.errors import InputError
from commands.fingerprints import LARGE_FILE_BYTES, sha256_of_file
from commands.json_files import read_json, read_json_as
from commands.origins import Origin, RecordedFingerprint
from commands.setting_types import FileSize, InnerPath
from commands.sources import HELD, Sources, known
from commands.stores import exists, is_file, num_bytes, url_of

# Of one folder's contents, so that opening it takes a few seconds at most.
MAX_BYTES_COMPARED = 2**30


@dataclass(frozen=True)
class FileFacts:
    """What `done` records about one file."""

    bytes: FileSize
    sha256: str


@dataclass(frozen=True)
class FinishedFiles:
    """The content of `done`: every file of the folder, by its relative path."""

    files: dict[InnerPath, FileFacts]


@dataclass(frozen=True)
class InputFacts:
    """What `provenance.json` records about one input; a hub name has no hash."""

    path: str
    sha256: str = ""


@dataclass(frozen=True)
class Provenance:
    """The part of `provenance.json` that is read back."""

    command: str
    inputs: dict[str, InputFacts]
    tower: RecordedFingerprint = ""
    quantizer: RecordedFingerprint = ""
    sources: Sources | None = None
    normalization: str = ""  # of the texts it was trained on, where it says so
    num_calls: int = 0  # calls of functions in the dialogues it was trained on

    def made_from(self, role: str = HELD) -> Sources:
        """The data and models that it was made from.

        Args:
            role: what unknown data were used for, in folders that do not say.
        """
        return known(self.sources, role)

    @property
    def origin(self) -> Origin:
        """The audio tower and the quantiser that it was made with, if they were recorded."""
        return Origin(self.tower, self.quantizer)


def open_input(folder: Path, *, made_by: str, flag: str) -> dict[str, Any]:
    """Check that a folder is a finished, intact output of the expected command; read its settings.

    Args:
        folder: the folder a user named.
        made_by: dotted name of the command that must have written it.
        flag: the flag it was given with, for the message, e.g. "--rvq".

    Returns:
        Its `config.json`.

    Raises:
        InputError: missing, unfinished, written by another command, or not what `done` lists.
    """
    if not folder.is_dir():
        raise InputError(f"{flag} {folder}: no such folder")
    if not (folder / "provenance.json").exists():
        raise InputError(f"{flag} {folder} was not written by python -m {made_by}")
    writer = read_json(folder / "provenance.json").get("command")
    if writer != made_by:
        raise InputError(f"{flag} {folder} was written by {writer}, expected a folder of {made_by}")
    refuse_unfinished(folder, flag=flag, made_by=made_by)
    return read_json(folder / "config.json")


def refuse_unfinished(
    folder: Path, *, flag: str, made_by: str = "its command", only: str | None = None
) -> None:
    """Raise InputError if a folder is not finished, or its files are not those that `done` lists.

    The sizes of all files are compared, and the contents of those up to 64 MiB, the smallest first
    until 1 GiB has been read: a folder of ten thousand hours is opened as fast as one of a hundred.
    A file that `done` does not list is not an error here, because users may keep notes in the
    folder (`list_files` refuses one that would be read).

    Args:
        folder: written by one of our commands.
        flag: the flag that named it, for the message.
        made_by: dotted name of that command, for the message.
        only: check only this file, where the folder holds thousands of others.
    """
    if not exists(folder / "done"):
        raise InputError(
            f"{flag} {url_of(folder)} is unfinished (no 'done' in it): run {made_by} again with "
            f"{flag_to_use_again(folder)}"
        )
    finished = read_json_as(folder / "done", FinishedFiles)
    if "config.json" not in finished.files:
        raise InputError(
            f"{flag} {url_of(folder)}: its 'done' does not list its files; make it again"
        )
    bytes_left = MAX_BYTES_COMPARED
    for name, facts in sorted(finished.files.items(), key=lambda item: item[1].bytes):
        if only not in (None, name):
            continue
        refuse_changed(folder, name, facts, flag=flag, max_bytes=min(bytes_left, LARGE_FILE_BYTES))
        bytes_left -= facts.bytes


def refuse_changed(
    folder: Path, name: str, facts: FileFacts, *, flag: str, max_bytes: int | None = None
) -> None:
    """Raise InputError if a file is not the one that its folder's `done` lists.

    Args:
        folder: written by one of our commands.
        name: the file's path in it.
        facts: what `done` records about it.
        flag: the flag that named the folder, for the message.
        max_bytes: of a file beyond this size only the size is compared.
    """
    path = folder / name
    if not is_file(path):
        raise InputError(
            f"{flag} {url_of(folder)} is incomplete: {name}, which 'done' lists, is gone"
        )
    size = num_bytes(path)
    is_compared = max_bytes is None or size <= max_bytes
    if size != facts.bytes or (is_compared and sha256_of_file(path) != facts.sha256):
        raise InputError(
            f"{flag} {url_of(folder)}: {name} is not what was written (its size or content differs "
            "from 'done'); copy the folder again, or make it again"
        )


def read_finished_files(folder: Path) -> dict[InnerPath, FileFacts]:
    """The files that a finished folder's `done` lists, by their paths in it."""
    return read_json_as(folder / "done", FinishedFiles).files


def flag_to_use_again(folder: Path) -> str:
    """The flag with which the command that began a folder may write to it again.

    Args:
        folder: with or without a `config.json`; only where there is one is a flag needed.
    """
    settings = read_json(folder / "config.json") if exists(folder / "config.json") else {}
    return "--overwrite" if "overwrite" in settings else "--resume"


def list_files(folder: Path, pattern: str, *, flag: str) -> list[Path]:
    """The files of a finished folder whose relative path matches a pattern, sorted by name.

    Args:
        folder: opened by `open_input`.
        pattern: as for `fnmatch`: "shard_*.jsonl".
        flag: the flag it was given with.

    Raises:
        InputError: no file matches, or one that `done` does not list.
    """
    listed = sorted(name for name in read_finished_files(folder) if fnmatchcase(name, pattern))
    foreign = {path.name for path in folder.glob(pattern)} - set(listed)
    if foreign:
        raise InputError(f"{flag} {folder}: {min(foreign)} was not written with the rest of it")
    if not listed:
        raise InputError(f"{flag} {folder}: no {pattern} in it; make it again")
    return [folder / name for name in listed]


def read_provenance(folder: Path) -> Provenance:
    """Read what made a folder, and from what; InputError if that cannot be read."""
    return read_json_as(folder / "provenance.json", Provenance, ignore_unknown=True)


def is_output_folder(path: Path) -> bool:
    """Whether a path is a folder written by a command of this project (finished or not)."""
    return is_file(path / "provenance.json")
