"""Processes that open one corpus together, of which the first is killed while it writes the copy.

    python -m tests.shared_copy codes-folder

The second waits for the first and writes the copy in its place; the third finds it. Each is forked
from this process, which has computed nothing. Prints a JSON object for each of the last two: what
it wrote to stdout and to stderr, and its exit code.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from commands import table_copies
from stage2_speechless.corpus import open_corpus
from stage2_speechless.vocabulary import Vocabulary
from tests.forking import end_with


def main() -> None:
    folder = Path(sys.argv[1])
    table_copies.IN_MEMORY_BYTES = 0  # written, however small it is
    killed = Opening(folder, pause_s=3600)
    try:
        assert killed.stdout.readline() == "writing\n"
        waiting = Opening(folder, pause_s=0)
        told = waiting.stderr.readline()
        assert "waiting for another process" in told, told
    finally:
        os.kill(killed.pid, signal.SIGKILL)  # its lock goes with it
    print(json.dumps(waiting.end()))
    print(json.dumps(Opening(folder, pause_s=0).end()))


class Opening:
    """A process that opens the corpus, and prints how many utterances it has."""

    def __init__(self, folder: Path, pause_s: float) -> None:
        (out, to_out), (err, to_err) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(to_out, 1)
            os.dup2(to_err, 2)
            _open_slowly(folder, pause_s)
        os.close(to_out)
        os.close(to_err)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)

    def end(self) -> dict[str, str | int]:
        """Wait for its end."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return {"stdout": self.stdout.read(), "stderr": self.stderr.read(), "code": code}


def _open_slowly(folder: Path, pause_s: float) -> NoReturn:
    """In the child: never returns."""
    write = table_copies.TableWriter.write

    def write_slowly(self: table_copies.TableWriter, columns: list[object]) -> None:
        print("writing", flush=True)
        time.sleep(pause_s)
        write(self, columns)

    def run() -> None:
        table_copies.TableWriter.write = write_slowly
        print(len(open_corpus(folder, Vocabulary()).utterances))

    end_with(run)


if __name__ == "__main__":
    main()
