"""Text files with one sentence per line."""

import codecs
from pathlib import Path

from commands.errors import InputError
from commands.json_files import MAX_FILE_BYTES, refuse_other_encoding
from commands.regular_files import read_regular

# Several hours of speech. The time to align two lines grows with the square of their length.
MAX_LINE_BYTES = 200_000


def read_lines(path: Path, *, flag: str = "") -> list[str]:
    """Read a text file with one utterance per line; a byte order mark and CRLF line ends are
    tolerated.

    Only line feeds end a line, so a stray U+2028 or form feed inside a transcript does not shift
    the lines.

    Args:
        path: the file.
        flag: the flag that named it, for the message if it cannot be read.

    Raises:
        InputError: the file is missing, unreadable, over 1 GiB, empty, compressed or not UTF-8, or
            has a line of over 200,000 bytes.
    """
    content = read_regular(path, max_bytes=MAX_FILE_BYTES, flag=flag)
    refuse_other_encoding(content[:4], path)
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content:
        raise InputError(f"{path}: empty; expected one utterance a line")
    lines = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        if len(line) > MAX_LINE_BYTES:
            raise InputError(f"{path}: line {number} has {len(line)} bytes, one utterance is less")
        try:
            lines.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            where = f"line {number} is not UTF-8 (byte 0x{line[error.start]:02x})"
            raise InputError(f"{path}: {where}; save the file as UTF-8") from None
    return lines
