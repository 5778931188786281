"""Texts, tables of dialogues, and pairs of transcripts: damaged, or of another shape than they say.

What is accepted must have as many lines, or rows, as another reader finds.
"""

import csv
import gzip
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.attacks.harness import Case
from tests.attacks.mutations import NASTY_JSON, draw, mutate, row_text, rows_there

KIND = "sentences and scores"
LINES = ("Me din de Ama.", "Wo ho te sɛn?", "Medaase paa.", "Kofi kɔ sukuu.")
HEARD = ("me din de Ama", "wo ho te sen", "", "Kofi kɔ")
ROWS = [
    {"instruction": line, "input": "", "output": f"Aane, {answer}"}
    for line, answer in zip(LINES, LINES[::-1], strict=True)
]

Damage = Callable[[bytes, random.Random], bytes]


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """A third of each: scores, tables of dialogues, and, with a Speechless, sentences to speak."""
    kinds: list[Callable[[str, Damage], Case]] = [_score_case, _table_case]
    if (world / "speechless").is_dir():
        kinds.append(partial(_generate_case, world))
    fixed = [make(name, damage) for name, damage in DAMAGES.items() for make in kinds]
    fixed += [_placed_score_case(name, place) for name, place in PLACES]
    fixed += [_unwritable_case(out) for out in UNWRITABLE]
    fixed += [_format_case(name, content) for name, content in TABLES.items()]

    def make_random(rng: random.Random, number: int) -> Case:
        if rng.random() < 0.4:
            nasty = rng.choice(NASTY_JSON)
            return _table_case(
                f"a cell is {nasty[:30]!r}, {number}", partial(_put_cell, nasty), suffix=".jsonl"
            )
        return rng.choice(kinds)(f"damaged, {number}", mutate)

    return draw(fixed, make_random, seed, count)


def _score_case(name: str, damage: Damage) -> Case:
    def make(folder: Path, rng: random.Random) -> None:
        contents = {"r.txt": _as_lines(LINES), "h.txt": _as_lines(HEARD)}
        for file in rng.choice((["r.txt"], ["h.txt"], ["r.txt", "h.txt"])):
            contents[file] = damage(contents[file], rng)
        for file, content in contents.items():
            (folder / file).write_bytes(content)

    return Case(KIND, f"{name}: score", "data_manifests.score", SCORE, make, _check_score)


SCORE = ("--references", "r.txt", "--hypotheses", "h.txt", "--per-utterance", "u.jsonl")


def _check_score(folder: Path) -> str:
    there = [
        (folder / file).read_bytes().removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
        for file in ("r.txt", "h.txt")
    ]
    num_scored = len(rows_there(folder / "u.jsonl"))
    if num_scored != len(there[0]) or num_scored != len(there[1]):
        return f"{num_scored} scored of {len(there[0])} and {len(there[1])}"
    return ""


def _placed_score_case(name: str, place: Callable[[Path], None]) -> Case:
    def make(folder: Path, rng: random.Random) -> None:
        (folder / "h.txt").write_bytes(_as_lines(HEARD))
        place(folder / "r.txt")

    return Case(KIND, f"{name}: score", "data_manifests.score", SCORE, make, _check_score)


PLACES: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("nothing", lambda path: None),
    ("a folder", Path.mkdir),
    ("a pipe", lambda path: os.mkfifo(path)),
    ("a loop", lambda path: path.symlink_to(path.name)),
    ("/dev/zero", lambda path: path.symlink_to("/dev/zero")),
    ("/dev/null", lambda path: path.symlink_to("/dev/null")),
)
UNWRITABLE = (
    "no/u.jsonl",
    "r.txt",
    ".",
    "/dev/full/x",
    "x" * 300,
    "x" * 253,
    "a\0b",
    "/proc/x",
    "",
)


def _unwritable_case(out: str) -> Case:
    def make(folder: Path, rng: random.Random) -> None:
        (folder / "r.txt").write_bytes(_as_lines(LINES))
        (folder / "h.txt").write_bytes(_as_lines(HEARD))

    words = (*SCORE[:-1], out)
    name = f"into {out[:20]!r}, {len(out)} long: score"
    return Case(KIND, name, "data_manifests.score", words, make)


def _table_case(name: str, damage: Damage, suffix: str = "") -> Case:
    suffix = suffix or random.Random(name).choice((".jsonl", ".json", ".csv", ".tsv"))

    def make(folder: Path, rng: random.Random) -> None:
        (folder / f"table{suffix}").write_bytes(damage(_table(suffix), rng))

    return Case(
        KIND, f"{name}: dialogues{suffix}", "stage3_finetune.build_dialogues",
        ("--table", f"table{suffix}", "--out", "out"), make, _check_dialogues,
    )  # fmt: skip


def _format_case(name: str, content: bytes) -> Case:
    def make(folder: Path, rng: random.Random) -> None:
        (folder / name).write_bytes(content)

    return Case(
        KIND, f"{name}: dialogues", "stage3_finetune.build_dialogues",
        ("--table", name, "--out", "out"), make, _check_dialogues,
    )  # fmt: skip


def _check_dialogues(folder: Path) -> str:
    """Rows are numbered from 0, and each is a dialogue or was dropped."""
    dialogues = rows_there(folder / "out" / "dialogues.jsonl")
    numbers = [int(row["id"].removeprefix("row-")) for row in dialogues]
    numbers += [row["row"] for row in rows_there(folder / "out" / "dropped.jsonl")]
    if sorted(numbers) != list(range(len(numbers))):
        return "rows are missing"
    if any(not message["content"] for row in dialogues for message in row["messages"]):
        return "an empty turn"
    return ""


def _table(suffix: str) -> bytes:
    if suffix == ".jsonl":
        return "".join(row_text(row) + "\n" for row in ROWS).encode()
    if suffix == ".json":
        return json.dumps(ROWS, ensure_ascii=False).encode()
    delimiter = "," if suffix == ".csv" else "\t"
    lines = [delimiter.join(ROWS[0])]
    lines += [delimiter.join(f'"{cell}"' for cell in row.values()) for row in ROWS]
    return _as_lines(tuple(lines))


def _put_cell(nasty: str, content: bytes, rng: random.Random) -> bytes:
    column = rng.choice((*ROWS[0], "more"))
    rows = [row_text(row) for row in ROWS]
    place = rng.randrange(len(rows))
    rows[place] = row_text(ROWS[place], **{column: nasty})
    return "".join(row + "\n" for row in rows).encode()


def _generate_case(world: Path, name: str, damage: Damage) -> Case:
    suffix = random.Random(name).choice((".txt", ".jsonl"))
    rows = [{"id": f"s{number}", "text": line} for number, line in enumerate(LINES)]
    good = _as_lines(LINES)
    if suffix == ".jsonl":
        good = "".join(row_text(row) + "\n" for row in rows).encode()

    def make(folder: Path, rng: random.Random) -> None:
        (folder / f"s{suffix}").write_bytes(damage(good, rng))

    return Case(
        KIND, f"{name}: generate{suffix}", "stage2_speechless.generate",
        ("--text", f"s{suffix}", "--speechless", str(world / "speechless"), "--out", "out",
         "--device", "cpu"),
        make, partial(_check_generated, f"s{suffix}"),
    )  # fmt: skip


def _check_generated(file: str, folder: Path) -> str:
    content = (folder / file).read_bytes().removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n")
    lines = content.split(b"\n")
    num_there = len(lines) if file.endswith(".txt") else sum(bool(line.strip()) for line in lines)
    num_made = len(rows_there(folder / "out" / "kept.jsonl"))
    num_dropped = len(rows_there(folder / "out" / "dropped.jsonl"))
    if num_made + num_dropped != num_there:
        return f"{num_made} spoken and {num_dropped} dropped of {num_there}"
    return ""


def _as_lines(lines: tuple[str, ...]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def _replace(old: str, new: bytes) -> Damage:
    return lambda content, rng: content.replace(old.encode(), new)


DAMAGES: dict[str, Damage] = {
    "as it is": lambda content, rng: content,
    "UTF-16": lambda content, rng: content.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda content, rng: content.decode().encode("utf-16-le"),
    "UTF-32": lambda content, rng: content.decode().encode("utf-32"),
    "Latin-1": _replace("ɛ", b"\xe9"),
    "surrogates in bytes": _replace("Kofi", b"\xed\xa0\x80"),
    "a surrogate escaped": _replace("Kofi", b"\\ud800"),
    "gz": lambda content, rng: gzip.compress(content),
    "BOM": lambda content, rng: b"\xef\xbb\xbf" + content,
    "CRLF": _replace("\n", b"\r\n"),
    "CR": _replace("\n", b"\r"),
    "U+2028": _replace("Kofi", "Ko\u2028fi".encode()),
    "NEL and form feeds": _replace("Kofi", "Ko\x85f\x0ci".encode()),
    "NUL": _replace("Kofi", b"Ko\0fi"),
    "NUL first": lambda content, rng: b"\0" + content,
    "empty": lambda content, rng: b"",
    "one blank line": lambda content, rng: b"\n",
    "blank": lambda content, rng: b"\n \n\n\t\n",
    "no last line end": lambda content, rng: content.rstrip(b"\n"),
    "blank lines behind": lambda content, rng: content + b"\n\n",
    "a line more": lambda content, rng: content + content.split(b"\n")[0] + b"\n",
    "a line less": lambda content, rng: content.partition(b"\n")[2],
    "a huge line": lambda content, rng: content + b"Kofi " * 2**21 + b"\n",
    "a long line": lambda content, rng: content + b"Kofi " * 20_000 + b"\n",
    "many digits": _replace("Kofi", b"9" * 6000),
    "an open quotation mark": lambda content, rng: b'"' + content,
    "quotation marks": _replace("Kofi", b'Ko"fi'),
    "deep": _replace("Kofi", b"[" * 100_000),
    "brackets": _replace("Kofi", b"(" * 20_000),
    "marks": _replace("Kofi", "o\u0301".encode() * 20_000),
}  # fmt: skip


def _broken_csv() -> bytes:
    lines = [",".join(ROWS[0]), '"a,b,c', "a,b", "a,b,c,d", '"x""y,z', '"Bra","","Aane"']
    return "\n".join(lines).encode()


TABLES = {
    "no.parquet": b"PAR1" + bytes(100) + b"PAR1",
    "cut.parquet": b"PAR1",
    "broken.csv": _broken_csv(),
    "header.csv": b"instruction,input,output\n",
    "twice.csv": b"instruction,input,output,output\na,b,c,d\n",
    "large.csv": b"instruction,input,output\n" + b"x" * (csv.field_size_limit() + 1) + b",,y\n",
    "scalar.json": b"3",
    "nested.json": b'{"data": {"instruction": ["a"]}}',
    "other.json": b'[{"instruction": {"a": 1}, "input": [], "output": 3}]',
    "mixed.jsonl": b'{"instruction": "Bra", "input": "", "output": "Aane"}\n{"instruction": 3}\n',
    "table.txt": b"instruction\n",
    "table.xlsx": b"PK\x03\x04" + bytes(100),
}
