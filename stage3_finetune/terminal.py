"""A conversation at the terminal that survives the user's mistakes.

An error is reported in one line on stderr, and the next line is read. Ctrl-C while an answer is
printed or spoken stops the answer; at the prompt it ends the program, as in other chat programs.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from commands.errors import InputError, Terminated, WriteError, describe_os_error
from commands.setting_types import refuse_impossible_path


def converse(take: Callable[[str], None], *, commands: str) -> None:
    """Read lines until the input ends or `/quit`.

    Args:
        take: handles one line; its InputError, WriteError and OSError are reported.
        commands: what can be typed, shown first.
    """
    print(commands, file=sys.stderr)
    for line in _typed_lines():
        if line.split(" ")[0] == "/quit":
            return
        try:
            refuse_other_encoding(line)
            take(line)
        except (InputError, WriteError) as error:
            _say(f"error: {error}")
        except BrokenPipeError:  # the recogniser of our stdout has gone
            raise
        except OSError as error:
            _say(f"error: {describe_os_error(error)}")
        except Terminated:
            raise
        except KeyboardInterrupt:
            print(flush=True)
            _say("stopped; Ctrl-C at the prompt, or /quit, ends the conversation")


def refuse_other_encoding(line: str) -> None:
    """Raise InputError if a line was typed in another encoding than the terminal's."""
    try:
        line.encode()
    except UnicodeEncodeError:
        raise InputError("that line is not text in UTF-8: set the terminal to UTF-8") from None


def path_of(argument: str, *, commands: str) -> Path:
    """The path typed after a command; raises InputError if it is missing or cannot exist."""
    if not argument.strip():
        raise InputError(f"a file is missing: {commands}")
    try:
        return refuse_impossible_path(Path(argument.strip()))
    except ValueError as error:
        raise InputError(f"the file's name {error}") from None


def recording_named(line: str) -> tuple[Path, str] | None:
    """The file whose path was typed, and the text after it ("" if there is none); None if the line
    is something else, such as a question.

    Raises:
        InputError: the path exists but is not a file: a folder or a pipe, for example.
    """
    # os.path, because Path's own tests raise if a name is too long or holds a NUL.
    words = line.split(" ")
    for count in range(len(words), 0, -1):  # names may have spaces: the longest that is a file
        name = " ".join(words[:count])
        if os.path.isfile(name):
            return Path(name), " ".join(words[count:]).strip()
    if os.sep in line and os.path.exists(line):
        raise InputError(f"{line}: not a file, so no recording")
    return None


def announce_forgotten(num_turns: int) -> None:
    """Report on stderr that the oldest turns were forgotten, if there were any."""
    if num_turns:
        print(
            f"(the conversation is long: its {num_turns} oldest turns are forgotten; /reset starts "
            "anew)",
            file=sys.stderr,
        )


def _typed_lines() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # report Latin-1, do not crash
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return


def _say(message: str) -> None:
    print(" ".join(message.split("\n")), file=sys.stderr, flush=True)
