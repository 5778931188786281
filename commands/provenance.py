"""Where a result comes from: the command, its inputs, the code and the packages that made it."""

import functools
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from commands.fingerprints import fingerprint, source_fingerprint

RECORDED_PACKAGES = (
    "torch", "transformers", "vector-quantize-pytorch", "peft", "trl", "accelerate", "datasets",
    "numpy", "soundfile", "librosa",
)  # fmt: skip
NUM_PROCESSES = "num_processes"  # of a training
# Facts on which the last bits of a result depend (`commands.device.describe_machine`).
MACHINE_FACTS = ("device", "cpu", "num_threads", NUM_PROCESSES)


# Behind the path of a corpus: what it is called, which are its columns.
_OPTIONS = re.compile(r"(?:,\w+=[^,]*)+$")


def describe_run(command: str, inputs: Mapping[str, str | list[str] | None]) -> dict[str, Any]:
    """The content of a new `provenance.json`.

    Args:
        command: dotted module name of the command.
        inputs: setting -> file, folder or hub name that the command reads, or a list of them, or of
            corpora as NAME=PATH, or NAME=PATH,OPTION=VALUE; None for one that is not given.
    """
    return {
        "command": command,
        "command_line": shlex.join(["python", "-m", command, *sys.argv[1:]]),
        "git": git_state(),
        "python": platform.python_version(),
        "packages": _package_versions(),
        "inputs": dict(_fingerprinted(inputs)),
    }


def _fingerprinted(
    inputs: Mapping[str, str | list[str] | None],
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, given in inputs.items():
        if isinstance(given, str):
            yield name, {"path": given, **fingerprint(given)}
        for i, text in enumerate(given if isinstance(given, list) else ()):
            path = _OPTIONS.sub("", text.partition("=")[2])
            if path and not Path(text).exists():
                yield f"{name}[{i}]", {"path": path, **source_fingerprint(path)}
            else:
                yield f"{name}[{i}]", {"path": text, **fingerprint(text)}


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
