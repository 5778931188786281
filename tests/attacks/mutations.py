"""Bytes and JSON rows, damaged at random; and how many cases of each kind are drawn."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

Drawn = TypeVar("Drawn")

# What a careless program, or an enemy, puts where a value should be; each is JSON.
NASTY_JSON = (
    "null", "true", "0", "-1", "-0.0", "1e999", "-1e999", "NaN", "Infinity", "5e-324", "1e308",
    "1" * 5000, "2.5", str(2**70), '""', '" "', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"',
    '"a/b"', '"../../x"', '"/dev/zero"', '"/proc/self/mem"', '"/etc"', '"."', '"-rf"', '"a\\nb"',
    '"\\u2028\\u2029\\u0085"', '"a\u2028b\u2029c\x85d"', '"' + "x" * 300 + '"',
    '"' + "ɛ" * 200 + '"', '"' + "x/" * 3000 + '"', '"' + "x" * 100_000 + '"', "[]", "{}", '["a"]',
    '{"a": 1}', "[" * 5000 + "]" * 5000, '{"a":' * 100_000 + "1" + "}" * 100_000, "tru", "'a'", "",
)  # fmt: skip


def draw(
    fixed: Sequence[Drawn],
    make_random: Callable[[random.Random, int], Drawn],
    seed: int,
    count: int,
) -> list[Drawn]:
    """So many cases: all of the fixed ones and random ones, or of the fixed ones a sample.

    Args:
        fixed: worth a case each.
        make_random: makes one more, from random numbers and its place.
        seed: of what is drawn.
        count: how many.
    """
    rng = random.Random(seed)
    if count <= len(fixed):
        return rng.sample(list(fixed), count)
    return [*fixed, *(make_random(rng, number) for number in range(count - len(fixed)))]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Damage bytes in one of many ways, at a random place."""
    changed = bytearray(content)
    place = rng.randrange(len(content) + 1)
    length = rng.choice((1, 2, 4, 16, 100))
    way = rng.choice(
        ("cut", "flip", "flip", "head", "zeros", "ones", "noise", "drop", "copy", "add")
    )
    if way == "cut":
        return content[:place]
    if way in ("flip", "head"):
        within = min(len(content), 64) if way == "head" else len(content)
        for _ in range(rng.choice((1, 1, 3, 20)) if within else 0):
            changed[rng.randrange(within)] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if way == "drop":
        del changed[place : place + length]
    elif way == "copy":
        changed[place:place] = changed[place : place + 10 * length]
    elif way == "add":
        changed[place:place] = rng.randbytes(length)
    else:
        filling = {"zeros": bytes(length), "ones": b"\xff" * length, "noise": rng.randbytes(length)}
        changed[place : place + length] = filling[way]
    return bytes(changed)


def mutate_file(path: Path, rng: random.Random) -> None:
    """Damage a file."""
    path.write_bytes(mutate(path.read_bytes(), rng))


def row_text(row: dict[str, Any], **raw: str) -> str:
    """A row as a line of JSON, some of its values given as JSON text."""
    pairs = {key: json.dumps(value, ensure_ascii=False) for key, value in row.items()} | raw
    return "{" + ", ".join(f'"{key}": {value}' for key, value in pairs.items()) + "}"


def rows_there(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, as a reader would have them who believes everything."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    return [json.loads(line) for line in content.split(b"\n") if line.strip()]
