"""Every kill point of a command: killed just before a change of its folder, and resumed."""

import os
import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from .children import Act, Change, Ended, run_child, start_child, stderr_lines
from .folders import first_difference
from .lines import Line, write_made

Verdict = Literal["same bytes", "refused", "cannot resume", "differs"]
FAILURES: tuple[Verdict, ...] = ("refused", "cannot resume", "differs")


@dataclass(frozen=True)
class Reference:
    """A line that was left alone.

    Attributes:
        line: the command line.
        case: the folder it ran in.
        inputs: what the lines that it needs have written, by their names.
        changes: what it changed in its folder, in order, and the first one's number is 1.
        seconds: how long it took.
    """

    line: Line
    case: Path
    inputs: dict[str, Path]
    changes: list[str]
    seconds: float


@dataclass(frozen=True)
class Point:
    """Where to kill: before a change; or where it opens a file, after that, and before anything
    is written."""

    reference: Reference
    number: int
    is_just_opened: bool
    folder: Path

    @property
    def name(self) -> str:
        """For people: "head 17: before os.rename run/done.tmp"."""
        when = "just after" if self.is_just_opened else "before"
        change = self.reference.changes[self.number - 1]
        return f"{self.reference.line.name} {self.number}: {when} {change}"


@dataclass(frozen=True)
class Outcome:
    """What came of a point, and what shows it."""

    point: Point
    verdict: Verdict
    evidence: str


class BrokenLine(Exception):
    """A line of ours does not run, or does not give the same bytes twice."""


def make_references(lines: Sequence[Line], folder: Path) -> Iterator[Reference]:
    """Run every line once, and leave it alone; one that is there already, finished, is taken."""
    inputs = {"made": folder / "made"}
    if not inputs["made"].is_dir():
        write_made(inputs["made"])
    for line in lines:
        place = folder / line.name / "reference"
        found = folder / line.name / "given"
        inputs[line.name] = (found if found.is_dir() else place / "case" / line.out).absolute()
        if found.is_dir():
            continue
        log = place / "changes"
        shutil.rmtree(place, ignore_errors=True)
        act = _list_changes(log, place)
        child = start_child(place, line.command, line.begin(inputs), act=act)
        ended = child.wait()
        if ended.code != 0:
            raise BrokenLine(f"{line.name}: exit code {ended.code}\n{ended.stderr[-2000:]}")
        child.import_the_same()
        changes = log.read_text(encoding="utf-8").splitlines()
        yield Reference(line, place / "case", dict(inputs), changes, ended.seconds)


def points_of(reference: Reference, folder: Path) -> Iterator[Point]:
    """All points of a line, in order."""
    for number, change in enumerate(reference.changes, start=1):
        for is_just_opened in (False, True):
            if is_just_opened and not change.startswith("open "):
                continue
            name = f"{number:04d}{'_opened' if is_just_opened else ''}"
            yield Point(reference, number, is_just_opened, folder / reference.line.name / name)


def try_points(points: Sequence[Point], *, num_workers: int) -> Iterator[Outcome]:
    """Kill and resume at every point, a few at a time; folders of failures stay for a look."""
    with forked_pool(num_workers) as pool:
        futures = [pool.submit(try_point, point) for point in points]
        for future in tqdm(as_completed(futures), "kill points", len(points), unit=" points"):
            yield future.result()


def forked_pool(num_workers: int) -> ProcessPoolExecutor:
    """Processes that run children; all are forked at once, before this one has threads.

    One that dies raises `BrokenProcessPool`; `multiprocessing.Pool` would wait for it for ever.
    """
    default_end = (signal.SIGTERM, signal.SIG_DFL)  # a command's own is not for them
    return ProcessPoolExecutor(num_workers, get_context("fork"), signal.signal, default_end)


def try_point(point: Point) -> Outcome:
    """Kill a line at a point, resume it, and compare."""
    line, inputs = point.reference.line, point.reference.inputs
    shutil.rmtree(point.folder, ignore_errors=True)
    killed = run_child(
        point.folder, line.command, line.begin(inputs), act=kill_at(point), name="killed"
    )
    if killed.code != -signal.SIGKILL:
        return Outcome(point, "differs", f"was not killed: {_last_line(killed)}")
    resumed = run_child(point.folder, line.command, line.go_on(inputs), name="resumed")
    verdict, evidence = judge(point.reference, point.folder / "case", resumed)
    if verdict == "same bytes":
        shutil.rmtree(point.folder)
    return Outcome(point, verdict, evidence)


def judge(reference: Reference, case: Path, resumed: Ended) -> tuple[Verdict, str]:
    """What a resumed run made of what it found."""
    if resumed.code == 2:
        return "refused", _last_line(resumed)
    if resumed.code != 0:
        return "cannot resume", _last_line(resumed)
    difference = first_difference(reference.case, case)
    return ("differs", difference) if difference else ("same bytes", "")


def kill_at(point: Point) -> Act:
    """Ends the process at a point, as `kill -9` does."""

    def act(change: Change) -> None:
        if change.number != point.number:
            return
        if point.is_just_opened:
            os.open(change.path, change.flags, 0o644)
        os.kill(os.getpid(), signal.SIGKILL)

    return act


def format_table(outcomes: Iterable[Outcome], seconds: dict[str, float]) -> str:
    """A row for each line, a column for each verdict."""
    verdicts: tuple[Verdict, ...] = ("same bytes", *FAILURES)
    outcomes = list(outcomes)
    rows = [
        f"{'':52}{'seconds':>8}{'points':>8}" + "".join(f"{verdict:>15}" for verdict in verdicts)
    ]
    lines = list(dict.fromkeys(outcome.point.reference.line for outcome in outcomes))
    for line in [*lines, None]:
        of_line = [o for o in outcomes if line is None or o.point.reference.line == line]
        numbers = [sum(o.verdict == verdict for o in of_line) for verdict in verdicts]
        name = f"{line.name} ({line.command})" if line else "all"
        took = f"{seconds[line.name]:8.1f}" if line else f"{sum(seconds.values()):8.1f}"
        cells = "".join(f"{number:15d}" for number in numbers)
        rows.append(f"{name:52}{took}{len(of_line):8d}{cells}")
    return "\n".join(rows)


def _list_changes(log: Path, place: Path) -> Act:
    place.mkdir(parents=True, exist_ok=True)
    case = (place / "case").resolve()
    file = log.open("w", encoding="utf-8", buffering=1)

    def act(change: Change) -> None:
        file.write(f"{change.event} {change.path.relative_to(case)}\n")

    return act


def _last_line(ended: Ended) -> str:
    lines = stderr_lines(ended.stderr) or [f"exit code {ended.code}, and no word"]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines)[-1][:300]
