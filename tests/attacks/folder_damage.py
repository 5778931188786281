"""Ways to damage a run folder: what is in it, and what its `done` says."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.attacks.damage import Damage


def _more_of(pattern: str, renamed: Callable[[str], str]) -> Callable[[Path, random.Random], None]:
    def do(path: Path, rng: random.Random) -> None:
        for shard in sorted(path.glob(pattern)):
            shutil.copyfile(shard, shard.with_name(renamed(shard.name)))

    return do


def _half_copied(path: Path, rng: random.Random) -> None:
    """As `cp -r` leaves it that was interrupted: `done` may be there already."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for file in files[rng.randrange(1, len(files)) :]:
        if file.name != "done":
            file.unlink()


def _write_done(content: bytes) -> Callable[[Path, random.Random], None]:
    return lambda path, rng: (path / "done").write_bytes(content) and None


def _empty(path: Path, rng: random.Random) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _become_file(path: Path, rng: random.Random) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"no folder")


def _lies_outside(path: Path, rng: random.Random) -> None:
    name = rng.choice(("/etc/passwd", "../../../x", "a" * 5000, "a\\u0000b", "\\ud800", "."))
    files = f'{{"files": {{"{name}": {{"bytes": 1, "sha256": ""}}}}}}'
    (path / "done").write_text(files, encoding="utf-8")


FOLDER_DAMAGES = (
    Damage("a shard more", _more_of("*_00000.*", lambda name: name.replace("_00000", "_00001"))),
    Damage("half copied", _half_copied), Damage("empty", _empty, must_refuse=True),
    Damage("a file", _become_file, must_refuse=True),
    Damage("done is gone", lambda path, rng: (path / "done").unlink(), must_refuse=True),
    Damage("done lists nothing", _write_done(b'{"files": {}}')),
    Damage("done of another", _write_done(b"{}"), must_refuse=True),
    *(Damage(f"done lies about names, {n}", _lies_outside, must_refuse=True) for n in range(3)),
)  # fmt: skip
