"""Load every command once, and fork from there what is to run in a process of its own.

    with forks() as forks:
        ended = forks.run("tests.run_lines", "lines.json", folder=tmp_path)

A program then begins within milliseconds, as a new interpreter would that has loaded the commands
and computed nothing. What they wrote to stderr while they were loaded, a line before each, is in
`forks.loading`.
"""

import contextlib
import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import MappingProxyType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
MARK = "####"
NOTHING: Mapping[str, str] = MappingProxyType({})


class Forks:
    """Where programs are forked: see `forks`."""

    def __init__(self, server: subprocess.Popen[str], loading: Path) -> None:
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
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return [subprocess.CompletedProcess((module, *line), *ended) for ended in self._reply()]

    def _reply(self) -> Any:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())


@contextlib.contextmanager
def forks() -> Iterator[Forks]:
    """Start the process that programs are forked from, and end it."""
    with TemporaryDirectory() as folder, (Path(folder) / "stderr").open("wb") as loading:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server"], cwd=ROOT, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=loading,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        with server:
            try:
                yield Forks(server, Path(loading.name))
            finally:
                server.kill()  # it has nothing to tidy up


def main() -> None:
    """Load, then run what each line of stdin asks for."""
    from tests.every_command import find_commands

    for command in find_commands():
        print(f"{MARK} {command}", file=sys.stderr, flush=True)
        importlib.import_module(command)
    print(json.dumps("loaded"), flush=True)
    for line in sys.stdin:
        print(json.dumps(_run_forks(*json.loads(line))), flush=True)


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
) -> None:
    """In the fork: never returns."""
    code = 1
    try:
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
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
