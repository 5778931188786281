"""Tables as text, of other columns, in other encodings, with names that lead elsewhere."""

import random
from collections.abc import Callable
from pathlib import Path

from tests.attacks.file_damage import Damage, append, edit, make_folder, make_pipe, write
from tests.attacks.mutations import mutate_file


def table_changes(column: str) -> list[tuple[str, Callable[[Path, random.Random], None]]]:
    return [
        ("empty", write(b"")),
        ("of NULs", write(bytes(1000))),
        ("blank", write(b"\n\n\n")),
        ("of delimiters", write(b",,,\t\t\t\n" * 5)),
        ("in UTF-16", lambda path, rng: _recode(path, "utf-16")),
        ("in Latin-1", edit("ɛ", b"\xe9")),
        ("with CR", edit("\n", b"\r", -1)),
        ("without its column", edit(column, b"other")),
        ("with a column twice", edit(column, column.encode() + b"," + column.encode())),
        ("with an open quotation mark", edit("Me ", b'"Me ')),
        ("with a stray quotation mark", edit("Me ", b'M"e ')),
        ("with a huge cell", edit("Me ", b"Me " * 60_000)),
        ("with a NUL", edit("Me ", b"M\0e ")),
        ("with brackets", edit("Me ", b"(" * 60_000)),
        ("with line separators", edit("Me ", "Me \u2028\x85 ".encode())),
        ("that is a folder", make_folder),
        ("that is a pipe", make_pipe),
        ("twice", lambda path, rng: append(path, path.read_bytes())),
        ("damaged", mutate_file),
    ]


def _recode(path: Path, encoding: str) -> None:
    path.write_bytes(path.read_bytes().decode("utf-8-sig").encode(encoding))


def durations(value: str) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        lines = ["clip\tduration[ms]", "cv_0.mp3\t1500", f"cv_1.mp3\t{value}"]
        (folder / "tw" / "clip_durations.tsv").write_text("\n".join(lines) + "\n")

    return damage


ODD_PATHS = (
    b"", b"..", b".", b"../../../../../../../etc/passwd", b"/etc/passwd", b"/dev/zero", b"a\0b.mp3",
    b"x" * 300 + b".mp3", b"x/" * 3000, b"clips/../cv_1.mp3", b" ", b"-rf", b"~",
)  # fmt: skip
ODD_IDS = (
    "", ".", "..", "/", "../../escaped", "/tmp/escaped", "a\0b", "x" * 300, "ɛ" * 200, "a\nb", "b",
    "-rf", "B", ".hidden", "x.tmp", "a/b", "C:\\x", " ", "a\u2028b",
)  # fmt: skip


def fisd_name(name: bytes) -> Callable[[Path, random.Random], None]:
    def change(path: Path, rng: random.Random) -> None:
        lines = path.read_bytes().split(b"\n")
        lines[1] = name + b"\t" + lines[1].partition(b"\t")[2]
        path.write_bytes(b"\n".join(lines))

    return change
