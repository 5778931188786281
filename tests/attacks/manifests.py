"""Manifests that are damaged, in another encoding, or say what cannot be.

What a command accepts must be what another, trusting reader finds in the file: as many rows, each
id with its own text.
"""

import bz2
import gzip
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks.audio import TEXTS, write_recordings
from tests.attacks.audio_files import SECONDS
from tests.attacks.harness import Case
from tests.attacks.mutations import NASTY_JSON, draw, mutate, row_text, rows_there

KIND = "manifests"
FIELDS = (
    "id", "audio", "text", "duration_s", "speaker", "dialect", "corpus", "split", "license",
    "start_s", "sample_rate_hz", "dialect_guess", "origin", "no_such_key",
)  # fmt: skip
COMMANDS = (
    ("data_manifests.check", ("--out", "out")),
    ("data_manifests.check", ("--out", "out", "--no-decode")),
    ("data_manifests.check", ("--out", "out", "--fix")),
    ("data_manifests.check", ("--out", "out", "--fix", "--no-decode")),
    ("data_manifests.subset", ("--out", "out")),
    ("stage1_rvq.embed", ("--out", "out", "--skip-bad-audio")),
)

# The bytes of a manifest, of those of a good one.
Damage = Callable[[bytes, random.Random], bytes]


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """Damaged manifests, each given to one of the commands that read them."""
    rng = random.Random(f"{seed} {KIND}")
    fixed = [_case(world, *named, *rng.choice(COMMANDS)) for named in _damages().items()]
    fixed += [_placed_case(name, place) for name, place in PLACES]

    def make_random(rng: random.Random, number: int) -> Case:
        if rng.random() < 0.3:
            damage: Damage = _mutate
            name = f"damaged, {number}"
        else:
            field, nasty = rng.choice(FIELDS), rng.choice(NASTY_JSON)
            damage = partial(_set_field, field, nasty)
            name = f"{field} is {nasty[:30]!r}, {number}"
        return _case(world, name, damage, *rng.choice(COMMANDS))

    return draw(fixed, make_random, seed, count)


def good_rows() -> list[dict[str, Any]]:
    """Of the recordings that `write_recordings` makes."""
    return [
        {
            "id": f"u{number}", "audio": f"{number}.wav", "text": text, "duration_s": SECONDS,
            "speaker": f"s{number}", "dialect": "asante", "corpus": "noise", "split": "train",
            "license": "CC0-1.0",
        }
        for number, text in enumerate(TEXTS)
    ]  # fmt: skip


def _case(world: Path, name: str, damage: Damage, command: str, flags: tuple[str, ...]) -> Case:
    words = ("--manifest", "m.jsonl", *flags)
    if command == "stage1_rvq.embed":
        words += ("--gemma", str(world / "gemma"), "--device", "cpu")

    def make(folder: Path, rng: random.Random) -> None:
        write_recordings(folder)
        content = "".join(row_text(row) + "\n" for row in good_rows()).encode()
        (folder / "m.jsonl").write_bytes(damage(content, rng))

    return Case(
        kind=KIND,
        name=f"{name}: {' '.join((command, *flags))}",
        command=command,
        words=words,
        make=make,
        check=CHECKS.get(command, check_cleaned),
    )


def check_cleaned(folder: Path, manifest: str = "m.jsonl") -> str:
    """Rows are counted right, and those that are kept are those that were given."""
    given = rows_there(folder / manifest)
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    if report["num_rows"] != len(given):
        return f"{report['num_rows']} rows counted of {len(given)}"
    cleaned = folder / "out" / Path(manifest).name
    if not cleaned.exists():
        return "" if report["num_problems"] == 0 else "problems, and accepted"
    kept = rows_there(cleaned)
    if len(kept) + report["num_problems"] != len(given):
        return f"{len(kept)} rows kept, {report['num_problems']} removed of {len(given)}"
    return _differences(kept, given)


def _check_embeddings(folder: Path) -> str:
    given = rows_there(folder / "m.jsonl")
    index = rows_there(folder / "out" / "shard_00000.jsonl")
    skipped = rows_there(folder / "out" / "skipped.jsonl")
    if len(index) + len(skipped) != len(given):
        return f"{len(index)} embedded, {len(skipped)} skipped of {len(given)}"
    return _differences(index, given)


def _check_subset(folder: Path) -> str:
    """Without --hours, all rows are taken."""
    given, taken = rows_there(folder / "m.jsonl"), rows_there(folder / "out" / "train.jsonl")
    if len(taken) != len(given):
        return f"{len(taken)} rows taken of {len(given)}"
    return _differences(taken, given)


CHECKS = {"stage1_rvq.embed": _check_embeddings, "data_manifests.subset": _check_subset}


def _differences(kept: list[dict[str, Any]], given: list[dict[str, Any]]) -> str:
    there = {(row["id"], row["text"], row["speaker"]) for row in given}
    ids = [row["id"] for row in kept]
    if len(set(ids)) < len(ids):
        return "an id twice"
    for row in kept:
        if (row["id"], row["text"], row["speaker"]) not in there:
            return f"{row['id']!r} is not what it was"
    return ""


def _mutate(content: bytes, rng: random.Random) -> bytes:
    return mutate(content, rng)


def _set_field(field: str, nasty: str, content: bytes, rng: random.Random) -> bytes:
    """One value, or all of a column, replaced; None of the others is touched."""
    rows = good_rows()
    chosen = rng.choice(([rng.randrange(len(rows))], range(len(rows))))
    lines = [
        row_text(row, **{field: nasty}) if number in chosen else row_text(row)
        for number, row in enumerate(rows)
    ]
    return "".join(line + "\n" for line in lines).encode()


def _add_pair(pair: str, content: bytes, rng: random.Random) -> bytes:
    lines = content.decode().split("\n")
    lines[1] = lines[1][:-1] + f", {pair}}}"
    return "\n".join(lines).encode()


def _swap_fields(content: bytes, rng: random.Random) -> bytes:
    rows = good_rows()
    one, other = rng.sample(FIELDS[:9], 2)
    rows[1][one], rows[1][other] = rows[1][other], rows[1][one]
    return "".join(row_text(row) + "\n" for row in rows).encode()


def _swap_rows(content: bytes, rng: random.Random) -> bytes:
    rows = good_rows()
    field = rng.choice(("audio", "text", "id"))
    rows[0][field] = rows[1][field]
    return "".join(row_text(row) + "\n" for row in rows).encode()


def _damages() -> dict[str, Damage]:
    """By what is done."""
    damages: dict[str, Damage] = {
        "UTF-16": lambda content, rng: content.decode().encode("utf-16"),
        "UTF-16, little": lambda content, rng: content.decode().encode("utf-16-le"),
        "UTF-16, big": lambda content, rng: content.decode().encode("utf-16-be"),
        "UTF-32": lambda content, rng: content.decode().encode("utf-32"),
        "Latin-1": lambda content, rng: content.replace("ɛ".encode(), b"\xe9"),
        "half a letter": lambda content, rng: content.replace("ɛ".encode(), b"\xc9"),
        "surrogates in bytes": lambda content, rng: content.replace(b"Kofi", b"\xed\xa0\x80"),
        "overlong": lambda content, rng: content.replace(b"Kofi", b"\xc0\xaf"),
        "gz": lambda content, rng: gzip.compress(content),
        "bz2": lambda content, rng: bz2.compress(content),
        "zip": lambda content, rng: b"PK\x03\x04" + content,
        "BOM": lambda content, rng: b"\xef\xbb\xbf" + content,
        "two BOMs": lambda content, rng: 2 * b"\xef\xbb\xbf" + content,
        "CRLF": lambda content, rng: content.replace(b"\n", b"\r\n"),
        "CR": lambda content, rng: content.replace(b"\n", b"\r"),
        "NEL": lambda content, rng: content.replace(b"\n", "\x85".encode()),
        "U+2028": lambda content, rng: content.replace(b"\n", "\u2028".encode()),
        "form feeds": lambda content, rng: content.replace(b"\n", b"\n\x0c\n"),
        "NEL in texts": lambda content, rng: content.replace(b"Kofi", "Ko\x85fi".encode()),
        "U+2028 in texts": lambda content, rng: content.replace(b"Kofi", "Ko\u2028fi".encode()),
        "U+2029 in texts": lambda content, rng: content.replace(b"din", "d\u2029n".encode()),
        "U+2028 in ids": lambda content, rng: content.replace(b"u1", "u\u20281".encode()),
        "NUL in texts": lambda content, rng: content.replace(b"Kofi", b"Ko\0fi"),
        "NUL escaped": lambda content, rng: content.replace(b"Kofi", b"Ko\\u0000fi"),
        "NUL behind": lambda content, rng: content + bytes(5000),
        "empty": lambda content, rng: b"",
        "blank": lambda content, rng: b" \n\n\t\n",
        "no last line end": lambda content, rng: content.rstrip(b"\n"),
        "blank lines": lambda content, rng: content.replace(b"\n", b"\n\n \n"),
        "twice": lambda content, rng: 2 * content,
        "a line twice": lambda content, rng: content + content.split(b"\n")[0] + b"\n",
        "two rows in a line": lambda content, rng: content.replace(b"\n", b" ", 1),
        "a list": lambda content, rng: b"[" + content.rstrip().replace(b"\n", b",") + b"]",
        "indented": lambda content, rng: content.replace(b", ", b",\n "),
        "a huge line": lambda content, rng: content + b'{"id": "' + b"x" * 2**25 + b'"}\n',
        "a huge blank line": lambda content, rng: content + b" " * 2**25 + b"\n",
        "a long text": lambda content, rng: content.replace(b"Kofi", b"Kofi " * 100_000),
        "comments": lambda content, rng: b"# rows\n" + content,
        "single quotes": lambda content, rng: content.replace(b'"', b"'"),
        "deep": lambda content, rng: content + b'{"a":' * 100_000 + b"\n",
        "fields swapped": _swap_fields,
        "a value of another row": _swap_rows,
    }
    for pair in (
        '"id": "v"', '"text": "Other words."', '"duration_s": 2.0', '"origin": "x"',
        '"audio": "0.wav"', '"id ": "x"', '"": 1', '"start_s": null', '"start_s": 0',
        '"start_s": 1e300', '"start_s": -0.0', '"sample_rate_hz": 16000.0',
        '"sample_rate_hz": 16000', '"speker": "x"',
    ):  # fmt: skip
        damages[f"with {pair}"] = partial(_add_pair, pair)
    return damages


def _write(name: str, folder: Path, content: bytes) -> None:
    (folder / name).write_bytes(content)


def _make_unfinished(folder: Path, content: bytes) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "provenance.json").write_text('{"command": "data_manifests.build"}')
    (folder / "data" / "m.jsonl").write_bytes(content)


# What stands in place of the manifest: the name it is given by, and how it is made.
PLACES: tuple[tuple[str, Callable[[Path, bytes], None]], ...] = (
    ("a folder", lambda folder, content: (folder / "a folder").mkdir()),
    ("a pipe", lambda folder, content: os.mkfifo(folder / "a pipe")),
    ("a loop", lambda folder, content: (folder / "a loop").symlink_to("a loop")),
    *((name, lambda folder, content: None) for name in ("no", "/dev/zero", "/", "x" * 300, "a\0b")),
    ("data/m.jsonl", _make_unfinished),
    *(
        (name, partial(_write, name))
        for name in (
            "done", "config.json", "report.json", "removed.jsonl", "provenance.json", "a\nb.jsonl",
            "x" * 255, "x" * 252, "ɛ.jsonl", "m.jsonl.tmp", "durations.png", " ", "a.gz",
        )
    ),
)  # fmt: skip


def _placed_case(name: str, place: Callable[[Path, bytes], None]) -> Case:
    def make(folder: Path, rng: random.Random) -> None:
        write_recordings(folder)
        place(folder, "".join(row_text(row) + "\n" for row in good_rows()).encode())

    return Case(
        kind=KIND,
        name=f"in its place {name[:30]!r}, {len(name)} long",
        command="data_manifests.check",
        words=("--manifest", name, "--out", "out", "--fix"),
        make=make,
        check=partial(check_cleaned, manifest=name),
    )
