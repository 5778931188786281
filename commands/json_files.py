"""Read and check JSON and JSON Lines; errors name the file and line.

Lines end at line feeds and nowhere else: a transcript may hold U+2028, U+2029 or NEL, at which
Python's `str.splitlines` would break it.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from commands.errors import InputError
from commands.regular_files import open_regular, read_regular
from commands.schema import as_mapping, check_json, parse_json
from commands.stores import exists, url_of

Row = TypeVar("Row")

MAX_LINE_BYTES = 2**24  # 16 MiB, far more than any of our rows
MAX_FILE_BYTES = 2**30  # for a file that is read as a whole


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object, whose keys the caller looks up.

    Raises:
        InputError: missing, not UTF-8, not valid JSON, nested too deeply, or not an object.
    """
    content = read_regular(path, max_bytes=MAX_FILE_BYTES)
    refuse_other_encoding(content[:4], path)
    value = parse_json(content.removeprefix(codecs.BOM_UTF8), where=str(path))
    return dict(as_mapping(value, where=str(path)))


def read_json_as(path: Path, type_: type[Row], *, ignore_unknown: bool = False) -> Row:
    """Read a JSON file into a dataclass; arguments and InputError as in `read_json` and
    `check_json`."""
    content = read_regular(path, max_bytes=MAX_FILE_BYTES).removeprefix(codecs.BOM_UTF8)
    return check_json(content, type_, where=str(path), ignore_unknown=ignore_unknown)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of one of our JSON Lines files; none if it has not been written yet."""
    if not exists(path):
        return []
    return [
        dict(as_mapping(parse_json(line, where=where), where=where))
        for where, line in read_lines(path)
    ]


def read_rows(path: Path, row_type: type[Row]) -> Iterator[Row]:
    """Stream a JSON Lines file, each row checked against its type; InputError names the line."""
    for where, line in read_lines(path):
        yield check_json(line, row_type, where=where)


def read_lines(path: Path, *, flag: str = "") -> Iterator[tuple[str, bytes]]:
    """Stream the non-blank lines of a text file, each after its location: "x.jsonl:3".

    Args:
        path: the file; a byte order mark is skipped.
        flag: the flag that named it, for the message if it cannot be read.

    Raises:
        InputError: it cannot be read, is compressed or in UTF-16, or has a line over 16 MiB.
    """
    shown = url_of(path)
    try:
        with open_regular(path) as file:
            start = file.read(4)
            refuse_other_encoding(start, path)
            file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if len(line) == MAX_LINE_BYTES:
                    raise InputError(f"{shown}:{number}: a line of over {MAX_LINE_BYTES} bytes")
                if line.strip():
                    yield f"{shown}:{number}", line
    except OSError as error:
        named = f"{flag} {shown}" if flag else shown
        raise InputError(f"{named}: {error.strerror or error}") from None


def refuse_other_encoding(start: bytes, path: Path) -> None:
    """Raise InputError if the first bytes of a text file show that it is UTF-16 or compressed."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in start:
        raise InputError(f"{path}: not UTF-8 (UTF-16 or binary); save it as UTF-8")
    if start.startswith((b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
        raise InputError(f"{path}: compressed; unpack it first")
