"""A line is run into a fault, resumed without it, and compared with one left alone."""

import errno
import os
import pwd
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from .children import Act, Change, Ended, run_child, start_child, stderr_lines
from .faults import Fault, Kind
from .points import forked_pool, judge

Verdict = Literal["one line", "unclear", "wrong exit code", "cannot resume", "differs"]
FAILURES: tuple[Verdict, ...] = ("unclear", "wrong exit code", "cannot resume", "differs")
# How a command ends, and 0 where the fault meets nothing: no file is that long.
CODES: dict[Kind, set[int]] = {
    "any moment": {0, -signal.SIGALRM},
    "full disk": {1},
    "file limit": {0, 1},
    "SIGTERM": {128 + signal.SIGTERM},
    "SIGINT": {128 + signal.SIGINT},
    "below a file": {2},
    "read-only": {1, 2},
    "not mine": {1, 2},
    "two runs": {2},
    "two threads": {0},
}
_NUMBERS = re.compile(r"[\d.,]*\d")
BEGINNINGS = ("error: ", "terminated", "interrupted", "resumed under other conditions (num_threads")


@dataclass(frozen=True)
class FaultOutcome:
    """How a fault ended, and what shows it."""

    fault: Fault
    verdict: Verdict
    evidence: str


def try_faults(faults: Sequence[Fault], *, num_workers: int) -> Iterator[FaultOutcome]:
    """Try faults, a few at a time; folders of failures stay for a look."""
    with forked_pool(num_workers) as pool:
        futures = [pool.submit(try_fault, fault) for fault in faults]
        for future in tqdm(as_completed(futures), "faults", len(faults), unit=" faults"):
            yield future.result()


def try_fault(fault: Fault) -> FaultOutcome:
    """Run a line into a fault, then resume it without, and compare."""
    shutil.rmtree(fault.folder, ignore_errors=True)
    (fault.folder / "case").mkdir(parents=True)
    verdict, evidence = _ATTEMPTS[fault.kind](fault)
    if verdict == "one line":
        shutil.rmtree(fault.folder)
    return FaultOutcome(fault, verdict, evidence)


def format_faults(outcomes: Sequence[FaultOutcome]) -> str:
    """A row for each kind, a column for each verdict."""
    verdicts: tuple[Verdict, ...] = ("one line", *FAILURES)
    rows = [f"{'':16}{'tried':>8}" + "".join(f"{verdict:>17}" for verdict in verdicts)]
    for kind in (*dict.fromkeys(o.fault.kind for o in outcomes), "all"):
        of_kind = [o for o in outcomes if kind in ("all", o.fault.kind)]
        numbers = [sum(o.verdict == verdict for o in of_kind) for verdict in verdicts]
        cells = "".join(f"{number:17d}" for number in numbers)
        rows.append(f"{kind:16}{len(of_kind):8d}{cells}")
    return "\n".join(rows)


def _refused_then_resumed(fault: Fault) -> tuple[Verdict, str]:
    """The line with a fault from its beginning; then without."""
    line, inputs = fault.reference.line, fault.reference.inputs
    ended = run_child(
        fault.folder, line.command, line.begin(inputs), name="refused", act=_act(fault),
        prepare=_limit_files(fault.number) if fault.kind == "file limit" else lambda: None,
        has_pipe=fault.kind == "file limit",
    )  # fmt: skip
    return _judge_refusal(fault, ended) or _resume(fault, is_begun=ended.code != 0)


def _any_moment(fault: Fault) -> tuple[Verdict, str]:
    """Killed by a clock, wherever it is: in the middle of a write, or of a step."""
    line, inputs = fault.reference.line, fault.reference.inputs

    def wind_clock() -> None:
        signal.setitimer(signal.ITIMER_REAL, fault.number / 1000)

    ended = run_child(
        fault.folder, line.command, line.begin(inputs), prepare=wind_clock, name="killed"
    )
    if ended.code not in CODES[fault.kind]:
        return "wrong exit code", f"{ended.code}: {ended.stderr[-500:]}"
    return _resume(fault, is_begun=bool(line.again) or ended.code != 0)


def _below_a_file(fault: Fault) -> tuple[Verdict, str]:
    line, inputs = fault.reference.line, fault.reference.inputs
    (fault.folder / "case" / "file").write_text("no folder", encoding="utf-8")
    words = [*line.begin(inputs)[:-1], f"file/{line.out}"]
    ended = run_child(fault.folder, line.command, words, name="refused")
    return _judge_refusal(fault, ended) or ("one line", "")


def _read_only(fault: Fault) -> tuple[Verdict, str]:
    line, inputs = fault.reference.line, fault.reference.inputs
    ended = _run_without_rights(fault, fault.folder / "case", line.begin(inputs))
    if refusal := _judge_refusal(fault, ended):
        return refusal
    left = sorted(path.name for path in (fault.folder / "case").iterdir())
    return ("differs", f"left {left}") if left else ("one line", "")


def _not_mine(fault: Fault) -> tuple[Verdict, str]:
    """Begun by somebody, resumed by somebody else, who may not write there; then by the first."""
    line, inputs = fault.reference.line, fault.reference.inputs
    run_child(fault.folder, line.command, line.begin(inputs), act=_kill(fault), name="killed")
    ended = _run_without_rights(fault, fault.folder / "case" / line.out, line.go_on(inputs))
    return _judge_refusal(fault, ended) or _resume(fault)


def _two_runs(fault: Fault) -> tuple[Verdict, str]:
    """A second run into the folder while a first one stands still; then the first goes on."""
    line, inputs = fault.reference.line, fault.reference.inputs

    def stand_still(change: Change) -> None:
        if change.number == fault.number:
            os.kill(os.getpid(), signal.SIGSTOP)

    first = start_child(
        fault.folder, line.command, line.begin(inputs), act=stand_still, name="first"
    )
    if ended := first.wait_until_stopped():
        return "differs", f"did not stand still: exit code {ended.code}"
    second = run_child(fault.folder, line.command, line.go_on(inputs), name="refused")
    os.kill(first.pid, signal.SIGCONT)
    ended = first.wait()
    if refusal := _judge_refusal(fault, second):
        return refusal
    verdict, evidence = judge(fault.reference, fault.folder / "case", ended)
    return ("one line", "") if verdict == "same bytes" else ("differs", f"first run: {evidence}")


def _two_threads(fault: Fault) -> tuple[Verdict, str]:
    """Begun with one thread, resumed with two: it goes on, and says so."""
    import torch

    line, inputs = fault.reference.line, fault.reference.inputs
    run_child(fault.folder, line.command, line.begin(inputs), act=_kill(fault), name="killed")
    ended = run_child(
        fault.folder, line.command, line.go_on(inputs), name="refused",
        prepare=lambda: torch.set_num_threads(2),
    )  # fmt: skip
    if "num_threads" not in (fault.reference.case / line.out / "provenance.json").read_text(
        "utf-8"
    ):
        return "one line", "it does not compute with torch"
    return _judge_refusal(fault, ended) or ("one line", "")


_ATTEMPTS: dict[Kind, Callable[[Fault], tuple[Verdict, str]]] = {
    "any moment": _any_moment,
    "full disk": _refused_then_resumed,
    "file limit": _refused_then_resumed,
    "SIGTERM": _refused_then_resumed,
    "SIGINT": _refused_then_resumed,
    "below a file": _below_a_file,
    "read-only": _read_only,
    "not mine": _not_mine,
    "two runs": _two_runs,
    "two threads": _two_threads,
}


def _judge_refusal(fault: Fault, ended: Ended) -> tuple[Verdict, str] | None:
    """What is wrong with how a command ended; None where nothing is."""
    # Numbers aside: memory and times are not those of the reference.
    told = (fault.reference.case.parent / "stderr").read_text(encoding="utf-8")
    usual = {_NUMBERS.sub("#", line) for line in stderr_lines(told)}
    lines = [line for line in stderr_lines(ended.stderr) if _NUMBERS.sub("#", line) not in usual]
    shown = " / ".join(lines[-12:])[-1500:]
    if ended.code not in CODES[fault.kind]:
        return "wrong exit code", f"{ended.code}: {shown}"
    if ended.code == 0 and fault.kind == "file limit":
        return None
    if len(lines) != 1 or not lines[0].startswith(BEGINNINGS):
        return "unclear", f"{len(lines)} lines: {shown}"
    return None


def _resume(fault: Fault, *, is_begun: bool = True) -> tuple[Verdict, str]:
    """Go on without the fault."""
    line, inputs = fault.reference.line, fault.reference.inputs
    case = fault.folder / "case"
    if is_begun:
        ended = run_child(fault.folder, line.command, line.go_on(inputs), name="resumed")
        if ended.code != 0:
            return "cannot resume", " / ".join(stderr_lines(ended.stderr)[-5:])[-1000:]
        verdict, evidence = judge(fault.reference, case, ended)
        if verdict != "same bytes":
            return "differs", evidence
    return "one line", ""


def _act(fault: Fault) -> Act:
    number = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}.get(fault.kind)

    def act(change: Change) -> None:
        if number is not None and change.number == fault.number:
            os.kill(os.getpid(), number)
        if fault.kind == "full disk" and change.number >= fault.number and change.takes_space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(change.path))

    return act


def _kill(fault: Fault) -> Act:
    def act(change: Change) -> None:
        if change.number == fault.number:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def _limit_files(num_bytes: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))

    return limit


def _run_without_rights(fault: Fault, folder: Path, words: list[str]) -> Ended:
    """Run the line where it may not write to a folder: as nobody, since root may write anywhere."""

    def become_nobody() -> None:
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)

    folder.chmod(0o555)
    try:
        command = fault.reference.line.command
        return run_child(fault.folder, command, words, name="refused", prepare=become_nobody)
    finally:
        folder.chmod(0o755)
