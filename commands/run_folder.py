"""Output folders: what every command writes, and all that the next command needs as input.

    runs/rvq/
      config.json       resolved settings of the command
      provenance.json   command, git commit, versions, inputs with sha256, device and dtype
      ...               what the command makes
      done              written last: every file with its size and sha256

Readers refuse a folder without `done`, and one whose files no longer match it. Writers refuse an
existing folder unless they resume it, and then its settings must be the same. Files are written
under a temporary name and renamed, so that a killed command leaves no half-written file under its
final name; only one command at a time writes to a folder.

A command that is killed at any moment and then resumed writes the same bytes as an uninterrupted
one, given the same processor, number of threads and package versions. Sums are rounded differently
otherwise, so a run that is resumed under other conditions reports this in one line
(`OutputFolder.record`); it is just as good, but differs in its last digits.
"""

import contextlib
import fcntl
import functools
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from commands.atomic_write import ASIDE_SUFFIX, remove, remove_leftovers, write_json
from commands.command_line import config_as_dict
from commands.errors import InputError, describe_os_error
from commands.fingerprints import fingerprint, sha256_of_file
from commands.finished_folder import refuse_unfinished
from commands.json_files import read_json

RECORDED_PACKAGES = (
    "torch", "transformers", "vector-quantize-pytorch", "peft", "trl", "accelerate", "datasets",
    "numpy", "soundfile", "librosa",
)  # fmt: skip
# Settings that may differ between a run and its resumption: none of them changes what is learned.
FREE_ON_RESUME = ("resume", "device", "out")
# Facts on which the last bits of a result depend.
MACHINE_FACTS = ("device", "cpu", "num_threads")
BEGINNING = {"config.json", "provenance.json"}  # what a folder holds before its command begins


@dataclass(frozen=True)
class OutputFolder:
    """A folder that a command is writing, or has finished (`is_done`).

    Among the processes of one `accelerate launch`, only the first writes (`is_writer`).
    """

    path: Path
    is_done: bool
    is_writer: bool = True

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
            if path.is_file() and path.name != "done" and ASIDE_SUFFIX not in path.name
        }
        write_json(self.path / "done", {"files": files})
        _unlock(self.path)

    def remove_if_unused(self) -> None:
        """Remove the folder if nothing has been made yet, so that a command that fails on its input
        leaves no folder behind that only `--resume` would accept."""
        if self.is_writer and {path.name for path in self.path.iterdir()} == BEGINNING:
            _unlock(self.path)
            for name in BEGINNING:
                remove(self.path / name)
            with contextlib.suppress(OSError):  # the current folder may not be removable
                self.path.rmdir()


def create_output(
    out: Path,
    config: Any,
    *,
    command: str,
    inputs: Mapping[str, Path | str | None],
    resume: bool = False,
) -> OutputFolder:
    """Create a command's output folder, or resume an unfinished one.

    Args:
        out: folder to create, with its parents.
        config: the command's config dataclass, saved as `config.json`.
        command: dotted module name of the command, e.g. "stage1_rvq.train"; `open_input` checks it.
        inputs: name -> file, folder, or hub name; each is fingerprinted into `provenance.json`.
            None is omitted.
        resume: resume an existing folder; its settings must be equal, apart from `FREE_ON_RESUME`.

    Returns:
        The folder; `is_done` when there is nothing left to do.

    Raises:
        InputError: the folder exists and `resume` is off, it was made with other settings, it is
            finished but no longer intact, another command is writing to it, or it cannot be
            written.
    """
    # Set by torchrun and accelerate launch for each of several processes.
    if os.environ.get("RANK", "0") != "0":
        return OutputFolder(out, is_done=(out / "done").exists(), is_writer=False)
    try:
        return _begin(out, config_as_dict(config), command, inputs, resume=resume)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {describe_os_error(error)}") from None


def _begin(
    out: Path,
    settings: Mapping[str, Any],
    command: str,
    inputs: Mapping[str, Path | str | None],
    *,
    resume: bool,
) -> OutputFolder:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    _lock(out)
    names = {path.name for path in out.iterdir()}
    if "config.json" in names:
        is_done = (out / "done").exists()
        if not resume:
            state = "is finished" if is_done else "is unfinished: --resume continues it"
            raise InputError(f"--out {out} exists already and {state}; name a new folder")
        made_by = read_json(out / "provenance.json").get("command")
        if made_by != command:
            raise InputError(f"--resume {out}: made by {made_by}, not by {command}")
        _refuse_other_settings(out, settings)
        if is_done:
            refuse_unfinished(out, flag="--out", made_by=command)
        remove_leftovers(out)
        return OutputFolder(out, is_done)
    if names - BEGINNING - {name + ASIDE_SUFFIX for name in BEGINNING}:
        raise InputError(
            f"--out {out} exists already and was not made by this command; name a new one"
        )
    # Empty, or left by a command that was killed before it had written its settings: start anew.
    for name in names:
        remove(out / name)
    write_json(
        out / "provenance.json",
        {
            "command": command,
            "command_line": shlex.join(["python", "-m", command, *sys.argv[1:]]),
            "git": git_state(),
            "python": platform.python_version(),
            "packages": _package_versions(),
            "inputs": {
                name: {"path": str(value), **fingerprint(value)}
                for name, value in inputs.items()
                if value is not None
            },
        },
    )
    write_json(out / "config.json", settings)
    return OutputFolder(out, is_done=False)


# Folders this process has locked: (device, inode) -> file descriptor.
_locked: dict[tuple[int, int], int] = {}


def _lock(out: Path) -> None:
    """Lock a folder against other processes until it is finished, or this process ends."""
    status = out.stat()
    key = (status.st_dev, status.st_ino)
    if key in _locked:
        return
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(f"--out {out}: another command is writing to it now") from None
    except OSError as error:  # some network file systems do not support locks
        os.close(descriptor)
        print(f"--out {out} cannot be locked ({error.strerror}): let one command alone write there",
              file=sys.stderr)  # fmt: skip
        return
    _locked[key] = descriptor


def _unlock(out: Path) -> None:
    status = out.stat()
    descriptor = _locked.pop((status.st_dev, status.st_ino), None)
    if descriptor is not None:
        os.close(descriptor)


def _refuse_other_settings(out: Path, settings: Mapping[str, Any]) -> None:
    before = read_json(out / "config.json")
    for name in sorted({*before, *settings} - set(FREE_ON_RESUME)):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"--resume {out}: made with {name} = {before.get(name)!r}, now "
                f"{settings.get(name)!r}; resume with the same settings or name a new folder"
            )


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit of the checkout this code runs from; empty outside one (an installed package)."""
    root = Path(__file__).resolve().parents[1]
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "uncommitted_changes": bool(status.strip())}


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
