"""Commands in processes of their own, forked from one that has imported everything.

    ended = run_child(Path("point"), "stage1_rvq.train", ["--out", "run", ...], act=kill_before(7))

A command runs inside `point/case`, so a relative path is one in there. `act` is called before every
change that the command is about to make in `point/case`, and may kill it, stop it, or refuse the
change. Nothing may have computed with torch in the process that forks.
"""

import contextlib
import importlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.command_line import run_command

TIMEOUT_S = 180
# Written by a thread of TensorBoard's own, whenever it comes to it: its changes have no number.
EVENTS_FILE = "events.out.tfevents"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Where each of Python's audit events has its paths, and the folder descriptors these are relative
# to. What shutil does comes down to these.
PATHS_OF_EVENTS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "open": ((0, None),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
}


@dataclass(frozen=True)
class Change:
    """A change that is about to be made.

    Attributes:
        number: 1 for the first.
        event: Python's name of it: "os.rename".
        path: what is changed, inside the case's folder.
        takes_space: whether a full disk refuses it: all but a removal.
        flags: with which a file is opened; 0 for another event.
    """

    number: int
    event: str
    path: Path
    takes_space: bool
    flags: int


Act = Callable[[Change], None]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code; negative, the signal that ended it.
        stderr: what it wrote there.
        seconds: how long it ran.
    """

    code: int
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Child:
    """A command that runs."""

    pid: int
    folder: Path
    began: float
    stderr: int | None = None  # where to read it, if it is a pipe

    def import_the_same(self) -> None:
        """Import what it has imported, so that later children need not."""
        for module in (self.folder / "imported").read_text().splitlines():
            with contextlib.suppress(ImportError):  # some put modules there that have no file
                importlib.import_module(module)

    def wait(self) -> Ended:
        """Wait for its end."""
        if self.stderr is not None:
            with os.fdopen(self.stderr, "rb") as pipe:
                (self.folder / "stderr").write_bytes(pipe.read())
        _, status = os.waitpid(self.pid, 0)
        return self._ended(status)

    def wait_until_stopped(self) -> Ended | None:
        """Wait until it has stopped itself (None), or ended."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return None if os.WIFSTOPPED(status) else self._ended(status)

    def _ended(self, status: int) -> Ended:
        stderr = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace")
        seconds = time.monotonic() - self.began
        return Ended(os.waitstatus_to_exitcode(status), stderr, seconds)


def run_child(folder: Path, command: str, words: Sequence[str], **settings: Any) -> Ended:
    """Run a command to its end; as `start_child`."""
    return start_child(folder, command, words, **settings).wait()


def start_child(
    folder: Path,
    command: str,
    words: Sequence[str],
    *,
    act: Act = lambda change: None,
    prepare: Callable[[], None] = lambda: None,
    name: str = "",
    has_pipe: bool = False,
) -> Child:
    """Start a command.

    Args:
        folder: `case` in it is the command's working directory; its output lies beside that.
        command: dotted name; imported before.
        words: its flags.
        act: called before each change inside `case`.
        prepare: called in the child, before the command.
        name: begins the names of the files that hold its output.
        has_pipe: write errors into a pipe, for which files may be as short as they like.
    """
    case = folder / "case"
    case.mkdir(parents=True, exist_ok=True)
    outputs = folder / name if name else folder
    outputs.mkdir(exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    reader, writer = os.pipe() if has_pipe else (None, None)
    pid = os.fork()
    if pid == 0:
        _become_command(case, outputs, command, words, act, prepare, writer)
    if writer is not None:
        os.close(writer)
    return Child(pid, outputs, began, reader)


def stderr_lines(text: str) -> list[str]:
    """The lines a user reads, without progress bars."""
    lines = [line.rsplit("\r", 1)[-1].strip() for line in text.split("\n")]
    return [line for line in lines if line and not re.search(r"\[\d+:\d\d[,<]", line)]


def _become_command(
    case: Path,
    outputs: Path,
    command: str,
    words: Sequence[str],
    act: Act,
    prepare: Callable[[], None],
    stderr: int | None,
) -> None:
    """In the child: never returns."""
    code, imported = 1, set(sys.modules)
    try:
        os.chdir(case)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(TIMEOUT_S)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, name in ((1, "stdout"), (2, "stderr")):
            flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
            os.dup2(os.open(outputs / name, flags, 0o666), stream)
        if stderr is not None:
            os.dup2(stderr, 2)
            os.close(stderr)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        sys.argv = [command, *words]
        prepare()
        sys.addaudithook(_Hook(case.resolve(), act))
        run_command(sys.modules[command].main)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
            (outputs / "imported").write_text("\n".join(sorted(set(sys.modules) - imported)))
        os._exit(code)


class _Hook:
    """Counts the changes inside a folder, and hands each to `act`."""

    def __init__(self, case: Path, act: Act) -> None:
        self.case = f"{case}/"
        self.act = act
        self.num_changes = 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        positions = PATHS_OF_EVENTS.get(event)
        if positions is None or (event == "open" and not args[2] & WRITING):
            return
        for path, folder in positions:
            name = _absolute(args[path], args[folder] if folder is not None else -1)
            if name.startswith(self.case) and EVENTS_FILE not in name:
                self.num_changes += 1
                takes_space = event not in ("os.remove", "os.rmdir", "os.truncate")
                flags = args[2] if event == "open" else 0
                self.act(Change(self.num_changes, event, Path(name), takes_space, flags))
                return


def _absolute(path: Any, folder: int) -> str:
    """A path as an audit event has it -> an absolute one; "" where it is none."""
    if not isinstance(path, str | bytes | os.PathLike):
        return ""  # an open file
    name = os.fsdecode(path)
    if folder is not None and folder >= 0:
        name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
    return os.path.abspath(name)
