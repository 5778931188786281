"""Output folders: what every command writes, and the only thing the next command needs to be given.

    runs/rvq/
      config.json       resolved settings of the command
      provenance.json   command, git commit, versions, inputs with sha256, device and dtype
      ...               what the command makes
      done              written last: every file with its size and sha256

A folder without `done` is refused by readers. An existing folder is refused by writers, unless they
resume: then its settings must be the same ones. Files are written aside and renamed, so that a
killed command leaves no half-written file under its final name.
"""

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data_manifests.config import InputError, config_as_dict

RECORDED_PACKAGES = (
    "torch", "transformers", "vector-quantize-pytorch", "peft", "trl", "accelerate", "datasets",
    "numpy", "soundfile", "librosa",
)  # fmt: skip
# Settings that may differ between a run and its resumption: none of them changes what is learned.
FREE_ON_RESUME = ("resume", "device", "out")
LARGE_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class OutputFolder:
    """A folder that a command is writing, or has finished (`is_done`).

    Of the processes of one `accelerate launch`, only the first writes (`is_writer`).
    """

    path: Path
    is_done: bool
    is_writer: bool = True

    def record(self, **facts: Any) -> None:
        """Add facts known only once the command runs (device, dtype, counts) to
        `provenance.json`."""
        if not self.is_writer:
            return
        provenance = read_json(self.path / "provenance.json")
        write_json(self.path / "provenance.json", {**provenance, **facts})

    def finish(self) -> None:
        """Write `done`: from here on readers accept the folder."""
        if not self.is_writer:
            return
        files = {
            str(path.relative_to(self.path)): {
                "bytes": path.stat().st_size,
                "sha256": sha256_of_file(path),
            }
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and path.name != "done" and ".tmp" not in path.name
        }
        write_json(self.path / "done", {"files": files})

    def remove_if_unused(self) -> None:
        """Remove the folder again where nothing was made yet: a command that turns out to be
        mistaken leaves no folder behind that only `--resume` would accept."""
        settings = {"config.json", "provenance.json"}
        if self.is_writer and {path.name for path in self.path.iterdir()} == settings:
            shutil.rmtree(self.path)


def create_output(
    out: Path,
    config: Any,
    *,
    command: str,
    inputs: Mapping[str, Path | str | None],
    resume: bool = False,
) -> OutputFolder:
    """Create a command's output folder, or take up an unfinished one again.

    Args:
        out: folder to create; parents are made.
        config: the command's config dataclass, saved as `config.json`.
        command: dotted module name of the command, e.g. "stage1_rvq.train"; `open_input` checks it.
        inputs: name -> file, folder, or hub name; each is fingerprinted into `provenance.json`.
            None is left out.
        resume: take up an existing folder again; its settings must be equal, `FREE_ON_RESUME`
            aside.

    Returns:
        The folder; `is_done` when there is nothing left to do.

    Raises:
        InputError: the folder exists and `resume` is off, or it was made with other settings.
    """
    # Set by torchrun and accelerate launch for each of several processes.
    if os.environ.get("RANK", "0") != "0":
        return OutputFolder(out, is_done=(out / "done").exists(), is_writer=False)
    settings = config_as_dict(config)
    if (out / "config.json").exists():
        if not resume:
            state = (
                "is finished" if (out / "done").exists() else "is unfinished: --resume continues it"
            )
            raise InputError(f"--out {out} exists already and {state}; name a new folder")
        _refuse_other_settings(out, settings)
        return OutputFolder(out, is_done=(out / "done").exists())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"--out {out} exists already and was not made by this command; name a new one"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / "provenance.json",
        {
            "command": command,
            "command_line": shlex.join(["python", "-m", command, *sys.argv[1:]]),
            "git": _git_state(),
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


def open_input(folder: Path, *, made_by: str, flag: str) -> dict[str, Any]:
    """Check that a folder is a finished output of the expected command, and read its settings.

    Args:
        folder: the folder a user named.
        made_by: dotted name of the command that must have written it.
        flag: the flag it was given with, for the message, e.g. "--rvq".

    Returns:
        Its `config.json`.

    Raises:
        InputError: missing, unfinished, or written by another command.
    """
    if not folder.is_dir():
        raise InputError(f"{flag} {folder}: no such folder")
    if not (folder / "provenance.json").exists():
        raise InputError(f"{flag} {folder} was not written by python -m {made_by}")
    writer = read_json(folder / "provenance.json")["command"]
    if writer != made_by:
        raise InputError(f"{flag} {folder} was written by {writer}, expected a folder of {made_by}")
    if not (folder / "done").exists():
        raise InputError(
            f"{flag} {folder} is unfinished (no 'done' in it): run {made_by} again with --resume"
        )
    settings: dict[str, Any] = read_json(folder / "config.json")
    return settings


def is_output_folder(path: Path) -> bool:
    """Whether a path is a folder some command of this project wrote (finished or not)."""
    return (path / "provenance.json").is_file()


def fingerprint(path_or_name: Path | str) -> dict[str, Any]:
    """What identifies an input: sha256 of a file, of a finished folder, or of a model folder.

    A folder of ours is identified by its `done`, which holds the hash of every file. Any other
    folder by its files' names, sizes and contents; of files over 64 MiB the first and last MiB are
    read. A name that is no path (a hub name) has no hash here: its revision is recorded by whoever
    downloads it.
    """
    path = Path(path_or_name)
    if path.is_file():
        return {"sha256": sha256_of_file(path)}
    if (path / "done").is_file():
        return {"sha256": sha256_of_file(path / "done")}
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path)} {file.stat().st_size} ".encode())
            digest.update(_sample_of_file(file))
        return {
            "sha256": digest.hexdigest(),
            "of": "names, sizes and contents (large files sampled)",
        }
    return {}


def sha256_of_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file; InputError names the file where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside and rename it into place."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file of ours; none where it is not written yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON Lines, aside, and rename the file into place."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it into place."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _refuse_other_settings(out: Path, settings: Mapping[str, Any]) -> None:
    before = read_json(out / "config.json")
    for name in sorted({*before, *settings} - set(FREE_ON_RESUME)):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"--resume {out}: made with {name} = {before.get(name)!r}, now "
                f"{settings.get(name)!r}; resume with the same settings or name a new folder"
            )


def _sample_of_file(path: Path) -> bytes:
    if path.stat().st_size <= LARGE_FILE_BYTES:
        return path.read_bytes()
    with path.open("rb") as file:
        head = file.read(2**20)
        file.seek(-(2**20), os.SEEK_END)
        return head + file.read()


def _git_state() -> dict[str, Any]:
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
