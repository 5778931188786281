"""Output folders: what every command writes, and all that the next command needs as input.

    runs/rvq/
      config.json       resolved settings of the command
      provenance.json   command, git commit, versions, inputs with sha256, device and dtype
      ...               what the command makes
      done              written last: every file with its size and sha256

    with run_folder(config.out, config, "stage1_rvq.embed", inputs=("manifest", "gemma")) as out:
        if out.is_done:
            return
        ...

Readers refuse a folder without `done`, and one whose files no longer match it. Writers refuse an
existing folder. A command has one of two flags to use it all the same: `--resume` continues where
an earlier run with the same settings stopped; `--overwrite` writes again what an earlier run of the
command wrote, which is kept until the new content is complete (`overwriting.py`). Files are written
under a temporary name and renamed, so that a killed command leaves no half-written file under its
final name; only one command at a time writes to a folder.

A command that is killed at any moment and then resumed writes the same bytes as an uninterrupted
one, given the same processor, number of threads and package versions. Sums are rounded differently
otherwise, so a run that is resumed under other conditions reports this in one line
(`OutputFolder.record`); it is just as good, but differs in its last digits.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from commands.atomic_write import ASIDE_SUFFIX, remove, remove_leftovers, write_json
from commands.command_line import config_as_dict
from commands.errors import NO_SPACE, InputError, PartnerEnded, describe_os_error
from commands.fingerprints import sha256_of_file
from commands.finished_folder import refuse_unfinished
from commands.folder_lock import folder_lock
from commands.json_files import read_json
from commands.overwriting import SET_ASIDE, put_back, refuse_inputs_within, set_aside
from commands.provenance import MACHINE_FACTS, NUM_PROCESSES, describe_run
from commands.resumed_settings import num_processes, refuse_other_settings
from commands.store_folders import StoreFolder, told_by_url
from commands.stores import exists, is_url, url_of
from commands.workers import find_parts, read_part

BEGINNING = {"config.json", "provenance.json"}  # what a folder holds before its command begins


@dataclass(frozen=True)
class OutputFolder:
    """A folder that a command is writing, or has finished (`is_done`). One on a store is written
    through `path` (`store_folders.StoreFolder`).

    Among the processes of one `accelerate launch`, only the first writes (`is_writer`).
    """

    path: Path
    is_done: bool
    is_writer: bool = True
    store: StoreFolder | None = None

    def record(self, **facts: Any) -> None:
        """Add facts known only once the command runs (device, dtype, counts) to
        `provenance.json`.

        Facts about the machine are those of the process that created the folder. A process that
        resumes it on another machine says so on stderr, and the change is recorded under
        "resumed_on".
        """
        if not self.is_writer:
            return
        provenance = read_json(self.path / "provenance.json")
        now = {name: facts[name] for name in MACHINE_FACTS if name in facts}
        begun = {name: provenance.get(name, value) for name, value in now.items()}
        if begun != now:
            change = ", ".join(
                f"{name} {begun[name]!r} then, {now[name]!r} now"
                for name in now
                if begun[name] != now[name]
            )
            print(f"resumed under other conditions ({change}): the last digits may differ",
                  file=sys.stderr)  # fmt: skip
            resumed_on = [*provenance.get("resumed_on", []), now]
            facts = {**facts, **begun, "resumed_on": resumed_on}
        write_json(self.path / "provenance.json", {**provenance, **facts})
        self.publish()

    @property
    def place(self) -> Path:
        """Where other machines find it, too: its URL, or its absolute path."""
        return self.store.url if self.store else self.path.absolute()

    def publish(self, *, last: str = "") -> None:
        """Put on the store what is complete, the file of the name `last` after all others."""
        if self.store:
            self.store.publish(last=last)

    def finish(self) -> None:
        """Write `done`: from now on readers accept the folder."""
        if not self.is_writer:
            return
        files = {
            str(path.relative_to(self.path)): {
                "bytes": path.stat().st_size,
                "sha256": sha256_of_file(path),
            }
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
            and path.name != "done"
            and ASIDE_SUFFIX not in str(path.relative_to(self.path))
        }
        write_json(self.path / "done", {"files": files})
        if self.store:
            self.store.finish()

    def remove_if_unused(self) -> None:
        """Remove the folder if nothing has been made yet, so that a command that fails on its input
        leaves no folder behind that only `--resume` would accept."""
        if not self.is_writer:
            return
        if _names(self.path) | set(self.store.names() if self.store else ()) == BEGINNING:
            for name in BEGINNING:
                remove(self.path / name)
            if self.store:
                self.store.delete_vanished()
            with contextlib.suppress(OSError):  # the current folder may not be removable
                self.path.rmdir()


@contextlib.contextmanager
def run_folder(
    out: Path,
    config: Any,
    command: str,
    *,
    inputs: Iterable[str] = (),
    per_process: Iterable[Sequence[str]] = (),
) -> Iterator[OutputFolder]:
    """Create a command's output folder, or use an existing one again; finish it, print its path.

    With a setting `part`, the folder is that of the part, inside of `out`. The block writes the
    folder's content, unless it `is_done`. When the block ends, `done` is written and the folder's
    path is printed on stdout. When it raises InputError, or a partner has ended, before anything
    has been made, the folder is removed.

    Args:
        out: folder to create, with its parents; of commands that write shards, also a URL.
        config: the command's config dataclass, saved as `config.json`. It has a field `resume` or
            `overwrite`, which says what to do with an existing folder.
        command: dotted module name of the command, e.g. "stage1_rvq.train"; `open_input` checks it.
        inputs: names of the settings that are files, folders or hub names to read, or lists of
            them, or of corpora as NAME=PATH; each of them that is given is fingerprinted into
            `provenance.json`.
        per_process: of a training, the settings whose product, times the number of processes, is
            the size of its batches. A run may be resumed with another number of processes, if that
            product stays what it was.

    Yields:
        The folder; `is_done` when there is nothing left to do.

    Raises:
        InputError: the folder exists and neither flag is on, it was made with other settings or by
            another command, it is finished but no longer intact, another command is writing to it,
            it cannot be written, or it holds an input and `--overwrite` would delete that.
        OSError: the disk is full.
    """
    settings = config_as_dict(config)
    if is_url(out) and "ray" not in settings:
        raise InputError(f"--out {url_of(out)}: {command} writes to a disk only")
    if part := settings.get("part"):
        refuse_whole(out, part)
        out = out / read_part(part).folder_name
    # Set by torchrun and accelerate launch for each of several processes.
    if os.environ.get("RANK", "0") != "0":
        yield OutputFolder(out, is_done=(out / "done").exists(), is_writer=False)
        return
    store = StoreFolder(out) if is_url(out) else None
    path = store.local if store else out
    with told_by_url(store), contextlib.ExitStack() as stack:
        try:
            if path.exists() and not path.is_dir():
                raise InputError(f"--out {path} is a file; name a folder")
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder_lock(path))
            put_back(path)  # of a command that was killed
            stack.callback(put_back, path)
            if store:
                store.begin()
            folder = _begin(path, settings, command, inputs, list(per_process))
            folder = replace(folder, store=store)
            folder.publish(last="config.json")
        except OSError as error:
            if error.errno in NO_SPACE or is_url(error.filename or ""):
                raise
            raise InputError(
                f"--out {path} cannot be written: {describe_os_error(error)}"
            ) from None
        try:
            yield folder
        except (InputError, PartnerEnded):
            folder.remove_if_unused()
            folder.publish()
            raise
        if not folder.is_done:
            folder.finish()
    print(url_of(out))


def refuse_whole(out: Path, part: str) -> None:
    """Raise InputError if a folder is not one that holds parts only."""
    if out.is_file():
        raise InputError(f"--out {out} is a file; name a folder")
    if exists(out / "config.json"):
        raise InputError(
            f"--part {part}: --out {url_of(out)} was begun without --part, or holds joined parts; "
            "name a new folder"
        )


def _begin(
    out: Path,
    settings: Mapping[str, Any],
    command: str,
    inputs: Iterable[str],
    per_process: Sequence[Sequence[str]],
) -> OutputFolder:
    if settings.get("overwrite") and (out / "provenance.json").exists():
        made_by = read_json(out / "provenance.json").get("command")
        if made_by == command:
            refuse_inputs_within(out, settings)
            set_aside(out)
    names = _names(out) - {SET_ASIDE}
    if "config.json" in names:
        return _continue(out, settings, command, per_process)
    if parts := find_parts(out):
        raise InputError(
            f"--out {out} holds parts of 1 to {max(part.count for part in parts)}: python -m "
            f"pipeline.join_parts --out {out} makes one folder of them; or name a new one"
        )
    if names - BEGINNING - {name + ASIDE_SUFFIX for name in BEGINNING}:
        raise InputError(
            f"--out {out} exists already and was not made by this command; name a new one"
        )
    # Empty, or left by a command that was killed before it had written its settings: start anew.
    for name in names:
        remove(out / name)
    provenance = describe_run(command, {name: settings[name] for name in inputs})
    if per_process:
        provenance[NUM_PROCESSES] = num_processes()
    write_json(out / "provenance.json", provenance)
    write_json(out / "config.json", settings)
    return OutputFolder(out, is_done=False)


def _continue(
    out: Path,
    settings: Mapping[str, Any],
    command: str,
    per_process: Sequence[Sequence[str]],
) -> OutputFolder:
    """Use a folder that holds `config.json`, if `--resume` is given and would continue it."""
    is_done = (out / "done").exists()
    provenance = read_json(out / "provenance.json")
    made_by = provenance.get("command")
    if not settings.get("resume"):
        state, advice = "is finished" if is_done else "is unfinished", ""
        if made_by != command:
            state = f"was made by {made_by}"
        elif "overwrite" in settings:
            advice = "--overwrite writes it again; or "
        elif not is_done:
            advice = "--resume continues it; or "
        raise InputError(f"--out {out} exists already and {state}: {advice}name a new folder")
    if made_by != command:
        raise InputError(f"--resume {out}: made by {made_by}, not by {command}")
    refuse_other_settings(out, settings, per_process, provenance.get(NUM_PROCESSES))
    if is_done:
        refuse_unfinished(out, flag="--out", made_by=command)
    remove_leftovers(out)
    return OutputFolder(out, is_done)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
