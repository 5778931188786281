"""Read the parts of a corpus that `--part 1/N` to `--part N/N` have written: all of them, and only
what belongs together.

    parts = read_parts(Path("data/cv-embeddings"), made_by=["stage1_rvq.embed"])
    parts[0].files       # {"shard_00000.jsonl": "sha256...", ...}
"""

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from commands.errors import InputError
from commands.finished_folder import (
    FinishedFiles,
    Provenance,
    read_provenance,
    refuse_unfinished,
)
from commands.json_files import read_json, read_json_as
from commands.origins import Origin, agree
from commands.provenance import MACHINE_FACTS
from commands.resumed_settings import FREE_ON_RESUME
from commands.run_folder import BEGINNING
from commands.workers import MODEL_FACTS, find_parts


@dataclass(frozen=True)
class WrittenPart:
    """What a part's folder says of itself.

    Attributes:
        folder: where it is.
        settings: its `config.json`.
        provenance: what made it, and from what.
        facts: all of its `provenance.json`.
        words: the command line that made it.
        files: relative path -> sha256, without those two.
    """

    folder: Path
    settings: Mapping[str, Any]
    provenance: Provenance
    facts: Mapping[str, Any]
    words: list[str]
    files: Mapping[str, str]

    @property
    def machine(self) -> dict[str, Any]:
        """The conditions on which the last digits of its content depend."""
        names = (*MACHINE_FACTS, "git", "packages")
        return {name: self.facts[name] for name in names if name in self.facts}


def read_parts(folder: Path, *, made_by: Collection[str], flag: str = "--out") -> list[WrittenPart]:
    """Read the parts that a folder holds, in order.

    Args:
        folder: the `--out` with which they were written.
        made_by: dotted names of the commands that may have written them.
        flag: the flag that named the folder, for messages.

    Raises:
        InputError: there are none, one is missing or unfinished, or they do not belong together.
    """
    if not folder.is_dir():
        raise InputError(f"{flag} {folder}: no such folder")
    parts = find_parts(folder)
    if not parts:
        raise InputError(
            f"{flag} {folder} holds no parts: write them with --part 1/N, 2/N, ... first"
        )
    counts = sorted({part.count for part in parts})
    if len(counts) > 1:
        raise InputError(
            f"{flag} {folder} holds parts of {counts[0]} and parts of {counts[1]}: remove those "
            "that are not meant"
        )
    missing = sorted({*range(1, counts[0] + 1)} - {part.number for part in parts})
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        raise InputError(f"{flag} {folder}: of {counts[0]} parts, {shown} is missing: run --part "
                         f"{missing[0]}/{counts[0]}")  # fmt: skip
    written = [
        _read_part(path, made_by, flag)
        for path in tqdm(parts.values(), desc="check", unit=" parts")
    ]
    for other in written[1:]:
        _refuse_other(written[0], other)
    _refuse_different_files(written)
    return written


def _read_part(folder: Path, made_by: Collection[str], flag: str) -> WrittenPart:
    refuse_unfinished(folder, flag=flag, made_by="its command with --part")
    provenance = read_provenance(folder)
    if provenance.command not in made_by:
        raise InputError(f"{flag}: {folder} was made by {provenance.command}")
    facts = read_json(folder / "provenance.json")
    words = shlex.split(str(facts.get("command_line", "")))
    if words[:3] != ["python", "-m", provenance.command]:
        raise InputError(f"{folder}: its provenance.json does not hold the line that made it")
    files = read_json_as(folder / "done", FinishedFiles).files
    return WrittenPart(
        folder, read_json(folder / "config.json"), provenance, facts, words,
        {name: file.sha256 for name, file in files.items() if name not in BEGINNING},
    )  # fmt: skip


def _refuse_other(first: WrittenPart, other: WrittenPart) -> None:
    """Raise InputError if two parts do not belong together."""
    pair = f"{first.folder.name} and {other.folder.name} do not belong together"
    if first.provenance.command != other.provenance.command:
        raise InputError(f"{pair}: other commands made them")
    for name in sorted({*first.settings, *other.settings} - {*FREE_ON_RESUME, "part"}):
        values = [part.settings.get(name) for part in (first, other)]
        if values[0] != values[1]:
            raise InputError(f"{pair}: {name} is {values[0]!r} and {values[1]!r}")
    for name, facts in first.provenance.inputs.items():
        if other.provenance.inputs.get(name) != facts:
            raise InputError(f"{pair}: --{name.replace('_', '-')} has changed in between")
    for name in MODEL_FACTS:
        one, two = (part.facts.get(name) for part in (first, other))
        if one is None or two is None or one == two:
            continue
        # Of a tower, an older version recorded fewer digits.
        if name not in vars(Origin()) or not agree(one, two):
            raise InputError(f"{pair}: {name} is {one} and {two}")


def _refuse_different_files(parts: list[WrittenPart]) -> None:
    """Raise InputError if two parts hold different files of one name."""
    made: dict[str, WrittenPart] = {}
    for part in parts:
        for name, sha256 in part.files.items():
            before = made.setdefault(name, part)
            if before.files[name] != sha256:
                raise InputError(
                    f"{before.folder.name} and {part.folder.name} do not belong together: each has "
                    f"its own {name}"
                )
