"""Ways to damage one of the files of a folder."""

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.attacks.mutations import mutate_file

Damage = Callable[[Path, random.Random], None]


def files(folder: Path) -> list[Path]:
    """Of the corpus: what it was packed from is not given to anybody."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".un" not in str(path.relative_to(folder))
    ]


def damage_any_file(folder: Path, rng: random.Random) -> None:
    mutate_file(rng.choice(files(folder)), rng)


def break_a_file(folder: Path, rng: random.Random) -> None:
    """Something that is no file in its place, or nothing."""
    path = rng.choice(files(folder))
    path.unlink()
    rng.choice((
        lambda: None, path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path.name),
        path.touch, lambda: path.symlink_to("/dev/zero"), lambda: path.write_bytes(b"\xff\xfe\0"),
    ))()  # fmt: skip


def each(pattern: str, change: Callable[[Path, random.Random], None]) -> Damage:
    """Done to one of the files whose name fits."""

    def damage(folder: Path, rng: random.Random) -> None:
        change(rng.choice([path for path in files(folder) if path.match(pattern)]), rng)

    return damage


def write(content: bytes) -> Callable[[Path, random.Random], None]:
    return lambda path, rng: path.write_bytes(content) and None


def edit(old: str, new: bytes, times: int = 1) -> Callable[[Path, random.Random], None]:
    def change(path: Path, rng: random.Random) -> None:
        content = path.read_bytes()
        assert old.encode() in content
        path.write_bytes(content.replace(old.encode(), new, times))

    return change


def flip_in_the_middle(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 10))):
        content[rng.randrange(20, len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def make_folder(path: Path, rng: random.Random) -> None:
    """A folder in place of a file."""
    path.unlink()
    path.mkdir()


def make_pipe(path: Path, rng: random.Random) -> None:
    """A pipe in place of a file."""
    path.unlink()
    os.mkfifo(path)


def append(path: Path, more: bytes) -> None:
    path.write_bytes(path.read_bytes() + more)


def cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])
