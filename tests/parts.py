"""Write a corpus in parts, and compare the joined folder with what one process wrote."""

import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from conftest import run

from pipeline import join_parts

# They say how a folder was made.
OWN_FILES = ("provenance.json", "done")


def write_part(command: ModuleType, words: tuple[object, ...], out: Path, part: str) -> None:
    """Run a command with `--part`, as from a command line: its folder records that."""
    words = (*words, "--out", out, "--part", part)
    with patch.object(sys, "argv", [command.__name__, *map(str, words)]):
        run(command.main, *words)


def write_parts(command: ModuleType, words: tuple[object, ...], out: Path, count: int) -> None:
    """Write all parts, the last first."""
    for number in range(count, 0, -1):
        write_part(command, words, out, f"{number}/{count}")


def join(out: Path) -> str:
    """Join the parts; returns what was printed."""
    return run(join_parts.main, "--out", out)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but those that say how it was made."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in OWN_FILES
    }


def refuse_difference(whole: Path, joined: Path) -> None:
    """Fail unless two folders hold the same, byte for byte, but for where they lie."""
    expected, found = content(whole), content(joined)
    expected["config.json"] = expected["config.json"].replace(
        str(whole).encode(), str(joined).encode()
    )
    assert found.keys() == expected.keys()
    assert [name for name, of_whole in expected.items() if found[name] != of_whole] == []
