"""Load every command once, and fork from there what is to run in a process of its own.

    with forks(folder) as forks:
        ended = forks.run("tests.run_lines", "lines.json", folder=tmp_path)

A program then begins within milliseconds, as a new interpreter would that has loaded the commands
and computed nothing. What they wrote to stderr while they were loaded, a line before each, is in
`forks.loading`. Whoever names the same folder meanwhile shares what is loaded.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO, Any, NoReturn

from tests.forking import end_with

ROOT = Path(__file__).resolve().parents[1]
MARK = "####"
HOST = "127.0.0.1"
NOTHING: Mapping[str, str] = MappingProxyType({})
# What commands import only when they need it, four seconds of it: here, not in each fork again.
IMPORTED_LATE = (
    "datasets", "librosa.core.audio", "matplotlib.backends.backend_agg", "matplotlib.figure",
    "torch.utils.tensorboard", "transformers.trainer", "trl.trainer.sft_trainer",
)  # fmt: skip


class Forks:
    """Where programs are forked: see `forks`."""

    def __init__(self, server: IO[str], loading: Path) -> None:
        self._server = server
        self._reply()  # once all is loaded
        self.loading = loading.read_text(encoding="utf-8")

    def run(
        self, module: str, *words: object, folder: Path, environment: Mapping[str, str] = NOTHING
    ) -> subprocess.CompletedProcess[str]:
        """Run a module as `python -m` does, and wait for its end.

        Args:
            module: dotted name.
            words: its command line.
            folder: where it runs.
            environment: variables that are set besides this process's own.
        """
        [ended] = self.run_together(module, *words, folder=folder, environments=[environment])
        return ended

    def run_together(
        self, module: str, *words: object, folder: Path, environments: Sequence[Mapping[str, str]]
    ) -> list[subprocess.CompletedProcess[str]]:
        """The same in as many processes at a time as there are environments, one for each."""
        line = [str(word) for word in words]
        request = (module, line, str(folder), [dict(variables) for variables in environments])
        self._server.write(json.dumps(request) + "\n")
        self._server.flush()
        return [subprocess.CompletedProcess((module, *line), *ended) for ended in self._reply()]

    def _reply(self) -> Any:
        return json.loads(self._server.readline())


@contextlib.contextmanager
def forks(folder: Path) -> Iterator[Forks]:
    """Connect to the process that programs are forked from.

    Args:
        folder: an existing one; who is the first to name it starts the process, which ends when
            nobody is connected.
    """
    loading, port = folder / "loading.txt", folder / "port"
    with port.open("a+") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        locked.seek(0)
        connection = _connect(locked.read()) or _start(port, loading)
    with connection, connection.makefile("rw", encoding="utf-8") as server:
        yield Forks(server, loading)


def look_seldom_for_garbage() -> None:
    """What is imported stays: Python need not look through it for garbage, half a second a time.
    And as seldom through the rest, which otherwise takes a fifteenth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _connect(port: str) -> socket.socket | None:
    try:
        return socket.create_connection((HOST, int(port))) if port else None
    except ConnectionRefusedError:  # it has ended
        return None


def _start(port: Path, loading: Path) -> socket.socket:
    with socket.create_server((HOST, 0)) as listener, loading.open("wb") as stderr:
        subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(listener.fileno())], cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            pass_fds=[listener.fileno()], env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        number = listener.getsockname()[1]
        port.write_text(str(number))
        return socket.create_connection((HOST, number))


def main() -> None:
    """Load, then serve whoever connects, each from a fork, until none is left."""
    from tests.every_command import find_commands

    listener = socket.socket(fileno=int(sys.argv[1]))
    for command in find_commands():
        print(f"{MARK} {command}", file=sys.stderr, flush=True)
        importlib.import_module(command)
    for module in IMPORTED_LATE:
        importlib.import_module(module)
    look_seldom_for_garbage()
    served = {_serve(listener)}
    while served:
        if select.select([listener], [], [], 1.0)[0]:
            served.add(_serve(listener))
        served = {pid for pid in served if os.waitpid(pid, os.WNOHANG)[0] == 0}


def _serve(listener: socket.socket) -> int:
    """Fork what does as each line of the next connection asks for; returns its number."""
    connection, _ = listener.accept()
    with connection:
        if pid := os.fork():
            return pid
        listener.close()
        with connection.makefile("rw", encoding="utf-8") as client:
            print(json.dumps("loaded"), file=client, flush=True)
            for line in client:
                print(json.dumps(_run_forks(*json.loads(line))), file=client, flush=True)
        os._exit(0)


def _run_forks(
    module: str, words: list[str], folder: str, environments: list[dict[str, str]]
) -> list[tuple[int, str, str]]:
    with contextlib.ExitStack() as stack:
        forked = []
        for environment in environments:
            stdout, stderr = (stack.enter_context(TemporaryFile()) for _ in range(2))
            pid = os.fork()
            if pid == 0:
                _become(module, words, folder, environment, stdout, stderr)
            forked.append((pid, stdout, stderr))
        ended = []
        for pid, *files in forked:
            _, status = os.waitpid(pid, 0)
            written = []
            for file in files:
                file.seek(0)
                written.append(file.read().decode(errors="replace"))
            ended.append((os.waitstatus_to_exitcode(status), written[0], written[1]))
    return ended


def _become(
    module: str,
    words: list[str],
    folder: str,
    environment: dict[str, str],
    stdout: IO[bytes],
    stderr: IO[bytes],
) -> NoReturn:
    """In the fork: never returns."""

    def run() -> None:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        os.chdir(folder)
        os.environ.update(environment)
        if threads := environment.get("OMP_NUM_THREADS"):
            import torch

            torch.set_num_threads(int(threads))  # it has read the variable already
        sys.argv = [module, *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    end_with(run)


if __name__ == "__main__":
    main()
