"""Fingerprints that identify a file or folder: hashes of its contents."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commands.store_inputs import fetched_inputs
from commands.stores import exists, is_url, open_object

LARGE_FILE_BYTES = 64 * 2**20
OF_SOURCE = "names and sizes, and of a single file its contents (large files sampled)"


def fingerprint(path_or_name: Path | str) -> dict[str, Any]:
    """What identifies an input: sha256 of a file, of a finished folder, or of a model folder.

    A folder of ours is identified by its `done`, which holds the hash of every file. Any other
    folder is identified by its files' names, sizes and contents; only the first and last MiB of
    files over 64 MiB are read. A name that is not a path (a hub name) has no hash here: the code
    that downloads it records its revision.
    """
    path = fetched_inputs().get(str(path_or_name), Path(path_or_name))
    if path.is_file() or (is_url(path) and exists(path)):
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


def source_fingerprint(path: Path | str) -> dict[str, Any]:
    """What tells whether a corpus on this disk has changed, without reading all of its recordings:
    the size and contents of a file (over 64 MiB only its first and last MiB), or the names and
    sizes of a folder's files. Empty for what is not on this disk."""
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(f"{path.stat().st_size} ".encode() + _sample_of_file(path))
    elif path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path)} {file.stat().st_size} ".encode())
    else:
        return {}
    return {"sha256": digest.hexdigest(), "of": OF_SOURCE}


def is_changed(path: Path | str, recorded: Mapping[str, Any]) -> bool:
    """Whether a file or folder on this disk is another one than when its fingerprint was taken; a
    name on a hub, an object on a store, and what has been deleted since, are not compared."""
    if "sha256" not in recorded or is_url(path) or not Path(path).exists():
        return False
    take = source_fingerprint if recorded.get("of") == OF_SOURCE else fingerprint
    return bool(take(path)["sha256"] != recorded["sha256"])


def sha256_of_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes, or of an object's."""
    with open_object(path) if is_url(path) else path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sample_of_file(path: Path) -> bytes:
    if path.stat().st_size <= LARGE_FILE_BYTES:
        return path.read_bytes()
    with path.open("rb") as file:
        head = file.read(2**20)
        file.seek(-(2**20), os.SEEK_END)
        return head + file.read()
