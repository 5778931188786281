"""Run a list of steps, one after another; run again, it goes on where it stopped.

seconds = run_steps(steps, Path("runs/cv"), in_this_process)
"""

import importlib
import io
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from commands.atomic_write import remove, write_json, write_text
from commands.errors import InputError
from commands.fingerprints import is_changed
from commands.json_files import read_json
from pipeline.steps import Step

FINISHED_FILE = "finished.json"


def run_steps(steps: Sequence[Step], out: Path, run: Callable[[Step], str]) -> dict[str, float]:
    """Run the steps that are not finished, each line and its place in the list on stderr.

    Args:
        out: folder whose `finished.json` says which lines have finished, and in what time.
        run: runs a step, and returns what it printed.

    Returns:
        Seconds that each stage took, in this run and earlier.

    Raises:
        InputError: a step has finished, but what it was made from is no longer the same.
    """
    path = out / FINISHED_FILE
    finished = _read_finished(path)
    for number, step in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {step.stage}\n$ {step.line}", file=sys.stderr, flush=True)
        done = finished.setdefault(step.stage, {})
        if step.line in done and step.has_all_files:
            refuse_changed_inputs(step)
            print("done before", file=sys.stderr)
            continue
        if step.out and step.out.is_file():
            remove(step.out)  # interrupted after it was written, but before that was noted
        started = time.monotonic()
        printed = run(step)
        print(printed, end="", file=sys.stderr, flush=True)
        if step.description:
            write_text(step.description, printed)
        done[step.line] = done.get(step.line, 0.0) + time.monotonic() - started
        write_json(path, finished)
    return read_seconds(out)


def refuse_changed_inputs(step: Step) -> None:
    """Raise InputError if an input of a finished step is another one now than it was then. An input
    that has been deleted, or that has a name on a hub or a store, is not compared."""
    provenance = step.out / "provenance.json" if step.out else None
    if provenance is None or not provenance.is_file():
        return
    for recorded in read_json(provenance).get("inputs", {}).values():
        path = recorded["path"]
        if is_changed(path, recorded):
            raise InputError(
                f"{step.out} was made from another {path} than there is now: delete {step.out}, "
                "to have it made again, or bring the earlier one back"
            )


def read_seconds(out: Path) -> dict[str, float]:
    """Seconds that each stage has taken so far; empty if none was begun."""
    finished = _read_finished(out / FINISHED_FILE)
    return {stage: sum(lines.values()) for stage, lines in finished.items()}


def _read_finished(path: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = read_json(path) if path.exists() else {}
    return found


def in_this_process(step: Step) -> str:
    """Run a step in this process, without loading the libraries anew; resumes it if it was
    interrupted."""
    # Set sys.argv as on its own command line, which is recorded in its provenance.
    outer, sys.argv = sys.argv, [step.command, *step.words_to_go_on()]
    try:
        with redirect_stdout(io.StringIO()) as written:
            importlib.import_module(step.command).main()
    finally:
        sys.argv = outer
    return written.getvalue()
