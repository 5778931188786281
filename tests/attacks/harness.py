"""Run commands on hostile input, each in a process of its own, and judge how they end.

    outcomes = run_cases(cases, folder, num_workers=2)
    print(format_table(outcomes))

A case is right where the command refuses it in one clear line with exit code 2, or accepts it and
does what it should (`check`). Everything else is a fault: a traceback, a hang, a result that is
silently wrong, code of the input that ran, a file written outside.
"""

import contextlib
import importlib
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from commands.command_line import run_command
from tests.forking import no_shared_locks

Verdict = Literal["refused", "accepted", "traceback", "hung", "wrong", "ran code", "wrote outside"]
FAULTS: tuple[Verdict, ...] = ("traceback", "hung", "wrong", "ran code", "wrote outside")
TIMEOUT_S = 120.0
# In the environment of every case: hostile code creates the file of this name.
CANARY = "ATTACK_CANARY"
MAX_ERROR_CHARACTERS = 1000
MAX_CASE_BYTES = 2**35  # of address space: a case that asks for more gets a MemoryError
BROKEN_CASE = 99  # exit code where the input itself could not be made
# What commands import only when they need it; once for all cases is quicker.
WARM_MODULES = (
    "tyro", "commands.setting_checks", "datasets", "peft", "librosa", "scipy.signal",
    "matplotlib.figure", "torch.utils.tensorboard",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One hostile input, and the command it is given to.

    Attributes:
        kind: class of inputs, a row of the table: "audio", "manifests".
        name: what was done to the input, in a few words; unique within its kind.
        command: dotted name of the command.
        words: its flags. The command runs inside the case's own empty folder, so a relative path
            is one in there.
        make: writes the input into that folder; its random numbers depend on the case alone.
        check: where the command accepts the input: what is wrong with what it made of it; "" where
            nothing is. None where accepting it is right in any case.
        mentions: what the one line must say where the command refuses the input, as a regular
            expression: the file, the flag.
        stdin: what a user would be typing.
    """

    kind: str
    name: str
    command: str
    words: tuple[str, ...]
    make: Callable[[Path, random.Random], None] = lambda folder, rng: None
    check: Callable[[Path], str] | None = None
    mentions: str = ""
    stdin: str = "y\n" * 20


@dataclass(frozen=True)
class Outcome:
    """How a case ended, and what shows it: the last lines of stderr, or what is wrong."""

    case: Case
    verdict: Verdict
    evidence: str
    seconds: float


def run_cases(
    cases: Iterable[Case], folder: Path, *, seed: int = 0, num_workers: int = 2
) -> list[Outcome]:
    """Run cases, a few at a time; each gets `folder/<number>/case` to live in.

    Commands are imported before the first process is forked, so that a case takes as long as its
    command needs and no longer. Nothing may have computed with torch in this process before: its
    threads do not survive a fork, and the child would wait for them.

    Args:
        cases: what to run.
        folder: an empty one; what faulty cases leave stays for a look, the rest is removed.
        seed: of the cases' random numbers.
        num_workers: cases at a time.
    """
    cases = list(cases)
    for module in WARM_MODULES:
        importlib.import_module(module)
    for command in sorted({case.command for case in cases}):
        importlib.import_module(command)
    waiting = list(enumerate(cases))[::-1]
    running: dict[int, _Process] = {}
    outcomes: list[Outcome | None] = [None] * len(cases)
    with no_shared_locks(), tqdm(total=len(cases), desc="attacks", unit=" cases") as progress:
        while waiting or running:
            while waiting and len(running) < num_workers:
                number, case = waiting.pop()
                running[number] = _Process(case, folder / f"{number:05d}", seed)
            select.select([process.ended for process in running.values()], [], [], 1.0)
            for number, process in list(running.items()):
                if outcome := process.poll():
                    outcomes[number] = outcome
                    if outcome.verdict not in FAULTS:
                        shutil.rmtree(folder / f"{number:05d}")
                    del running[number]
                    progress.update()
    return [outcome for outcome in outcomes if outcome is not None]


def format_table(outcomes: Sequence[Outcome]) -> str:
    """A row for each kind, a column for each verdict, as the README and notes show them."""
    verdicts: tuple[Verdict, ...] = ("refused", "accepted", *FAULTS)
    lines = [f"{'':24}{'tried':>8}" + "".join(f"{verdict:>15}" for verdict in verdicts)]
    kinds = list(dict.fromkeys(outcome.case.kind for outcome in outcomes))
    for kind in [*kinds, "all"]:
        counts = Counter(o.verdict for o in outcomes if kind in ("all", o.case.kind))
        numbers = "".join(f"{counts[verdict]:15d}" for verdict in verdicts)
        lines.append(f"{kind:24}{counts.total():8d}{numbers}")
    return "\n".join(lines)


def format_faults(outcomes: Sequence[Outcome]) -> str:
    """Every fault with its evidence."""
    return "\n".join(
        f"{o.verdict}: {o.case.kind}: {o.case.name}: python -m {o.case.command} "
        f"{' '.join(o.case.words)}\n    {o.evidence}"
        for o in outcomes
        if o.verdict in FAULTS
    )


class _Process:
    """A case that is running."""

    def __init__(self, case: Case, folder: Path, seed: int) -> None:
        self.case = case
        self.folder = folder
        self.inside = folder / "case"
        self.inside.mkdir(parents=True)
        self.rng = random.Random(f"{seed} {case.kind} {case.name}")
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._make_input()
                self._become_command()
            finally:
                os._exit(BROKEN_CASE)
        self.ended = os.pidfd_open(self.pid)

    def poll(self) -> Outcome | None:
        """How it ended; None while it runs."""
        seconds = time.monotonic() - self.began
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0 and seconds < TIMEOUT_S:
            return None
        if pid == 0:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what it may have started
        os.close(self.ended)
        if pid == 0:
            return Outcome(self.case, "hung", f"after {seconds:.0f} s", seconds)
        verdict, evidence = self._judge(os.waitstatus_to_exitcode(status))
        return Outcome(self.case, verdict, evidence, seconds)

    def _make_input(self) -> None:
        """In the child, and not in its parent, where torch must not compute."""
        os.setsid()
        torch.set_num_threads(1)
        try:
            self.case.make(self.inside, self.rng)
        except BaseException:
            (self.folder / "stderr").write_text(traceback.format_exc(), encoding="utf-8")
            os._exit(BROKEN_CASE)

    def _become_command(self) -> None:
        """In the child: never returns."""
        os.chdir(self.inside)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_CASE_BYTES, MAX_CASE_BYTES))
        os.environ[CANARY] = str(self.folder / "canary")
        reader, writer = os.pipe()
        os.write(writer, self.case.stdin.encode())
        os.close(writer)
        os.dup2(reader, 0)
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(self.folder / name, os.O_CREAT | os.O_WRONLY, 0o644), stream)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        sys.argv = [self.case.command, *self.case.words]
        code = 1
        try:
            run_command(sys.modules[self.case.command].main)
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _judge(self, code: int) -> tuple[Verdict, str]:
        stderr = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace")
        tail = stderr[-MAX_ERROR_CHARACTERS:].replace("\n", "\n    ")
        assert code != BROKEN_CASE, f"{self.case.kind}: {self.case.name}: {stderr}"
        if (self.folder / "canary").exists():
            return "ran code", tail
        outside = {path.name for path in self.folder.iterdir()} - {"case", "stdout", "stderr"}
        if outside:
            return "wrote outside", f"{sorted(outside)}"
        # A progress bar moves about; what follows it stands on the same line, or one above.
        lines = re.split(r"\r|\n|\x1b\[A", stderr)
        errors = [line for line in lines if line.startswith("error: ")]
        if code == 2 and len(errors) == 1 and "Traceback" not in stderr:
            if not re.search(self.case.mentions, errors[0]):
                return "wrong", f"the refusal does not say {self.case.mentions!r}: {errors[0]}"
            return "refused", errors[0]
        if code != 0 or "Traceback" in stderr:
            return "traceback", f"exit code {code}\n    {tail}"
        wrong = self.case.check(self.inside) if self.case.check else ""
        return ("wrong", wrong) if wrong else ("accepted", "")
