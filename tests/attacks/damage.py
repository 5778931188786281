"""Ways to damage a file, whatever it is, and files of JSON; each takes the file and the case's
random numbers. Those of tensors and of codes have modules of their own.

The name of a damage says what was done. `must_refuse` where no command that reads the file may go
on: what is left cannot be what was meant.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3.5, float("nan"), float("inf"), 2**40, 2**70, -(2**70), "", "x" * 5000,
    "../..", "\0", "\ud800", [], [[]], {}, {"a": {"b": [1]}}, [1, "x", None], "false",
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """One way to damage a file."""

    name: str
    do: Callable[[Path, random.Random], None]
    must_refuse: bool = False


def _missing(path: Path, rng: random.Random) -> None:
    path.unlink()


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _flip_early(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(min(len(content), 200))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _garbage(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice((1, 8, 100, 5000))))


def _become_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _append(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(64))


def _utf16(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes().decode(errors="replace").encode("utf-16"))


ANY_FILE = (
    Damage("gone", _missing), Damage("empty", _empty), Damage("cut off", _cut),
    Damage("a bit flipped", _flip), Damage("a bit flipped early", _flip_early),
    Damage("garbage", _garbage), Damage("a folder", _become_folder), Damage("longer", _append),
)  # fmt: skip


def json_damages(path: Path) -> Iterator[Damage]:
    def change(change_: Callable[[Any, random.Random], Any]) -> Callable[[Path, Any], None]:
        def do(path: Path, rng: random.Random) -> None:
            value = json.loads(path.read_text(encoding="utf-8"))
            text = json.dumps(change_(value, rng))
            path.write_text(text, encoding="utf-8", errors="surrogatepass")

        return do

    for number in range(12):
        yield Damage(f"an odd value, {number}", change(_put_odd_value))
    yield Damage("a key gone", change(_drop_key))
    yield Damage("an unknown key", change(lambda value, rng: {**value, "no_such_key": 1}))
    yield Damage("a list", change(lambda value, rng: [value]), must_refuse=True)
    yield Damage("a number", change(lambda value, rng: 3), must_refuse=True)
    yield Damage("UTF-16", _utf16, must_refuse=True)
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield Damage("deep", lambda path, rng: path.write_bytes(deep) and None, must_refuse=True)


def _put_odd_value(value: Any, rng: random.Random) -> Any:
    """A value somewhere in it replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return {**value, key: _put_odd_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], _put_odd_value(value[place], rng), *value[place + 1 :]]
    return rng.choice(ODD_VALUES)


def _drop_key(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    dropped = rng.choice(sorted(value))
    return {key: part for key, part in value.items() if key != dropped}


def _change_line(path: Path, rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    place = rng.randrange(len(lines))
    lines[place] = json.dumps(_put_odd_value(json.loads(lines[place]), rng))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")


def _drop_line(path: Path, rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    del lines[rng.randrange(len(lines))]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _copy_line(path: Path, rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    path.write_text("".join(line + "\n" for line in [*lines, lines[0]]), encoding="utf-8")


JSON_LINES = (
    *(Damage(f"an odd value, {number}", _change_line) for number in range(6)),
    Damage("a line gone", _drop_line), Damage("a line twice", _copy_line),
    Damage("UTF-16", _utf16),
)  # fmt: skip


def swap_with(other: Path) -> Damage:
    """The file replaced by another of the same kind."""

    def do(path: Path, rng: random.Random) -> None:
        shutil.copyfile(other, path)

    return Damage(f"replaced by {other.parent.name}/{other.name}", do)
