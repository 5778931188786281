"""Make one folder of the parts that `--part 1/N` to `--part N/N` have written.

    python -m stage1_rvq.embed --manifest data/cv/train.jsonl --part 1/2 --out data/cv-embeddings
    python -m stage1_rvq.embed --manifest data/cv/train.jsonl --part 2/2 --out data/cv-embeddings
    python -m pipeline.join_parts --out data/cv-embeddings

The parts must be complete, finished, and made by one command with the same settings from the same
inputs. Their files become those of `--out`, without being copied where the file system has hard
links; then the command itself finishes the folder, as if one process had written it: its files are
the same, byte for byte (`provenance.json` also says what made each part). The folders of the parts
are removed. If killed, run it again.
"""

import importlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from commands.atomic_write import remove, write_errors, write_json, written_aside
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.finished_folder import (
    FinishedFiles,
    Provenance,
    read_provenance,
    refuse_unfinished,
)
from commands.folder_lock import folder_lock
from commands.json_files import read_json, read_json_as
from commands.provenance import MACHINE_FACTS
from commands.resumed_settings import FREE_ON_RESUME
from commands.run_folder import BEGINNING
from commands.workers import MODEL_FACTS, Part, find_parts

# Commands that have --part.
SHARDED = (
    "stage1_rvq.embed", "stage1_rvq.tokenize_corpus", "stage2_speechless.generate",
    "stage3_finetune.speak_dialogues", "speech_head.states",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JoinPartsConfig:
    """Make one folder of the parts that were written with --part."""

    out: Path
    """folder that holds the parts: the --out with which they were written"""


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


def main(argv: list[str] | None = None) -> None:
    """Join the parts; the command that wrote them prints the folder."""
    config = parse_config(JoinPartsConfig, argv)
    out = config.out
    if not out.is_dir():
        raise InputError(f"--out {out}: no such folder")
    with folder_lock(out):
        parts = find_parts(out)
        if not (out / "config.json").exists():
            join(out, read_parts(out, parts))
        line = shlex.split(str(read_json(out / "provenance.json").get("command_line", "")))
        if len(line) < 3 or line[2] not in SHARDED:
            raise InputError(f"--out {out} was not written with --part")
        for folder in parts.values():
            remove(folder)
    command, words = line[2], line[3:]
    # The command finds all shards written, and does what is left: it joins their rows, counts, and
    # writes `done`.
    outer, sys.argv = sys.argv, [command, *words_for_whole(words, out)]
    try:
        importlib.import_module(command).main()
    finally:
        sys.argv = outer


def read_parts(out: Path, parts: Mapping[Part, Path]) -> list[WrittenPart]:
    """Read the parts of a folder.

    Raises:
        InputError: there are none, one is missing or unfinished, or they do not belong together.
    """
    if not parts:
        raise InputError(f"--out {out} holds no parts: write them with --part 1/N, 2/N, ... first")
    counts = sorted({part.count for part in parts})
    if len(counts) > 1:
        raise InputError(
            f"--out {out} holds parts of {counts[0]} and parts of {counts[1]}: remove those that "
            "are not meant"
        )
    missing = sorted({*range(1, counts[0] + 1)} - {part.number for part in parts})
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        raise InputError(f"--out {out}: of {counts[0]} parts, {shown} is missing: run --part "
                         f"{missing[0]}/{counts[0]}")  # fmt: skip
    written = [_read_part(folder) for folder in tqdm(parts.values(), desc="check", unit=" parts")]
    for other in written[1:]:
        _refuse_other(written[0], other)
    _refuse_different_files(written)
    return written


def join(out: Path, parts: list[WrittenPart]) -> None:
    """Give the parts' files to the whole folder, its settings last."""
    for part in tqdm(parts, desc="join", unit=" parts"):
        for name in part.files:
            _link(part.folder / name, out / name)
    conditions = [part.machine for part in parts]
    if any(machine != conditions[0] for machine in conditions):
        print(
            "the parts were made under different conditions (processor, threads, versions or "
            "commit; see provenance.json): the last digits may differ",
            file=sys.stderr,
        )
    # A part that had no shard to write has loaded no models, and knows less of them.
    first = max(parts, key=lambda part: len(part.facts))
    start, words = first.words[:3], first.words[3:]
    provenance = {
        **first.facts,
        "command_line": shlex.join([*start, *words_for_whole(words, out, resume=False)]),
        "parts": conditions,
    }
    write_json(out / "provenance.json", provenance)
    write_json(out / "config.json", {**first.settings, "part": "", "out": str(out)})


def words_for_whole(words: list[str], out: Path, *, resume: bool = True) -> list[str]:
    """The flags of a part, as they are for the whole."""
    kept: list[str] = []
    skips = False
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if not skips and flag not in ("--part", "--out", "--resume"):
            kept.append(word)
        skips = word in ("--part", "--out")
    return [*kept, "--out", str(out), *(["--resume"] if resume else [])]


def _read_part(folder: Path) -> WrittenPart:
    refuse_unfinished(folder, flag="--out", made_by="its command with --part")
    provenance = read_provenance(folder)
    if provenance.command not in SHARDED:
        raise InputError(f"{folder} was made by {provenance.command}, which has no --part")
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
        values = [part.facts.get(name) for part in (first, other)]
        if None not in values and values[0] != values[1]:
            raise InputError(f"{pair}: {name} is {values[0]} and {values[1]}")


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


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has one name a file."""
    if target.exists():
        return
    with written_aside(target) as aside:
        try:
            os.link(source, aside)
        except OSError:
            with write_errors(target):
                shutil.copyfile(source, aside)


if __name__ == "__main__":
    run_command(main)
