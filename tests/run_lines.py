"""Run command lines one after the other in one process, and mark on stderr where each begins.

    python -m tests.run_lines lines.json      [["stage1_rvq.embed", "--out", "runs/x"], ...]

Each ends as in a process of its own (`run_command`), and the first that fails ends this one.
Libraries are loaded once, so that a walk of twenty commands takes a fraction of twenty processes'
time.
"""

import json
import runpy
import sys
from pathlib import Path

from tests.fork_server import MARK


def main() -> None:
    for command, *words in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        print(f"{MARK} {command}", file=sys.stderr, flush=True)
        sys.argv[1:] = words
        sys.modules.pop(command, None)  # or runpy warns that it was imported already
        try:  # as `python -m` does
            runpy.run_module(command, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if ended.code:  # 0 after --help
                raise


if __name__ == "__main__":
    main()
