"""Make one folder of the parts that `--part 1/N` to `--part N/N` have written.

    python -m stage1_rvq.embed --manifest data/cv/train.jsonl --part 1/2 --out data/cv-embeddings
    python -m stage1_rvq.embed --manifest data/cv/train.jsonl --part 2/2 --out data/cv-embeddings
    python -m pipeline.join_parts --out data/cv-embeddings

The parts must be complete, finished, and made by one command with the same settings from the same
inputs. Their files become those of `--out`, without being copied where the file system has hard
links (those of a folder on an object store are copied to this disk first, joined here, and put
there); then the command itself finishes the folder, as if one process had written it: its files are
the same, byte for byte (`provenance.json` also says what made each part). The folders of the parts
are removed. If killed, run it again.
"""

import importlib
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from commands.atomic_write import remove, write_errors, write_json, written_aside
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.folder_lock import folder_lock
from commands.json_files import read_json
from commands.setting_types import StorePath
from commands.store_folders import StoreFolder, told_by_url
from commands.stores import is_url, url_of
from commands.workers import SHARDED, find_parts
from commands.written_parts import WrittenPart, read_parts


@dataclass(frozen=True, kw_only=True)
class JoinPartsConfig:
    """Make one folder of the parts that were written with --part."""

    out: StorePath
    """folder that holds the parts: the --out with which they were written"""


def main(argv: list[str] | None = None) -> None:
    """Join the parts; the command that wrote them prints the folder."""
    config = parse_config(JoinPartsConfig, argv)
    out = url_of(config.out)
    store = StoreFolder(config.out) if is_url(config.out) else None
    if not (store.names() if store else config.out.is_dir()):
        raise InputError(f"--out {out}: no such folder")
    with told_by_url(store):
        line = _join_here(store.local if store else config.out, out, store)
    command, words = line[2], line[3:]
    # The command finds all shards written, and does what is left: it joins their rows, counts, and
    # writes `done`.
    outer, sys.argv = sys.argv, [command, *words_for_whole(words, out)]
    try:
        importlib.import_module(command).main()
    finally:
        sys.argv = outer


def _join_here(folder: Path, out: str, store: StoreFolder | None) -> list[str]:
    """Join the parts in a folder on this disk, if that has not been done yet, and remove them;
    returns the line that wrote the whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        if store:
            store.clear()
            store.fetch_missing()
        parts = find_parts(folder)
        if not (folder / "config.json").exists():
            join(folder, read_parts(folder, made_by=SHARDED), out)
        if store:
            store.publish(last="config.json")
        line = shlex.split(str(read_json(folder / "provenance.json").get("command_line", "")))
        if len(line) < 3 or line[2] not in SHARDED:
            raise InputError(f"--out {folder} was not written with --part")
        for part in parts.values():
            remove(part)
        if store:
            store.delete_vanished()
    return line


def join(folder: Path, parts: list[WrittenPart], out: str) -> None:
    """Give the parts' files to the whole folder, its settings last.

    Args:
        folder: where they lie on this disk.
        parts: all of them.
        out: how the user named the folder.
    """
    for part in tqdm(parts, desc="join", unit=" parts"):
        for name in part.files:
            _link(part.folder / name, folder / name)
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
    write_json(folder / "provenance.json", provenance)
    write_json(folder / "config.json", {**first.settings, "part": "", "out": out})


def words_for_whole(words: list[str], out: str, *, resume: bool = True) -> list[str]:
    """The flags of a part, as they are for the whole."""
    kept: list[str] = []
    skips = False
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if not skips and flag not in ("--part", "--out", "--resume"):
            kept.append(word)
        skips = word in ("--part", "--out")
    return [*kept, "--out", out, *(["--resume"] if resume else [])]


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
