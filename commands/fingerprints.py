"""Fingerprints that identify a file or folder: hashes of its contents."""

import hashlib
import os
from pathlib import Path
from typing import Any

from commands.store_inputs import fetched_inputs
from commands.stores import exists, is_url, open_object

LARGE_FILE_BYTES = 64 * 2**20


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
