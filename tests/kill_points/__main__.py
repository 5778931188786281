"""Kill every command before every change of its run folder, resume it, and compare the bytes.

    OMP_NUM_THREADS=1 python -m tests.kill_points
    python -m tests.kill_points --commands stage1_rvq.train speech_head.states --every 5
    python -m tests.kill_points --no-points --faults 3

With `--faults`, also in other ways: a full disk, a folder that cannot be written, signals, a second
run into the same folder. Prints tables; exit code 1 where anything fails.
"""

import os

# One thread: bits depend on their number, and a forked process has none of its parent's.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from commands.command_line import parse_config, run_command
from commands.errors import InputError, nearest_name
from commands.setting_types import NonNegativeInt, PositiveInt, Seed
from tests.forking import no_shared_locks

from .fault_attempts import FAILURES as FAULT_FAILURES
from .fault_attempts import format_faults, try_faults
from .faults import KINDS, Kind, faults_of
from .lines import LINES, import_commands, lines_for
from .points import FAILURES as POINT_FAILURES
from .points import (
    Reference,
    format_table,
    make_references,
    points_of,
    try_points,
)


@dataclass(frozen=True, kw_only=True)
class KillPointsConfig:
    """Kill commands before every change of their folder, resume them, and compare the bytes."""

    commands: tuple[str, ...] = ()
    """dotted names of the commands to kill; all, where none is given"""
    points: bool = True
    """kill before every change"""
    faults: NonNegativeInt = 0
    """try so many of every other kind of fault on each command"""
    kinds: tuple[Kind, ...] = KINDS
    """with --faults: which kinds"""
    seed: Seed = 0
    """of where faults are"""
    every: PositiveInt = 1
    """try one point in so many"""
    first: NonNegativeInt = 0
    """with --every: the first point to try, so that another number samples others"""
    num_workers: PositiveInt = 2
    """points tried at a time"""
    out: Path | None = None
    """folder that is kept, with what failed in it; where not given a temporary one"""


def main(argv: list[str] | None = None) -> None:
    """Try the points; prints the table, and every failure."""
    config = parse_config(KillPointsConfig, argv)
    known = sorted({line.command for line in LINES})
    for command in config.commands:
        if command not in known:
            raise InputError(f"--commands {command}: {nearest_name(command, known)}")
    with tempfile.TemporaryDirectory() as temporary, no_shared_locks():
        folder = (config.out or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # a child that became nobody reads there
        is_well = _try_all(config, folder)
    if not is_well:
        sys.exit(1)


def _try_all(config: KillPointsConfig, folder: Path) -> bool:
    """Try what was asked for, and print it; returns whether all went well."""
    lines = lines_for(config.commands)
    import_commands(lines)
    references = []
    for reference in make_references(lines, folder):
        line = reference.line
        print(f"{line.name}: {reference.seconds:.1f} s, {len(reference.changes)} changes",
              file=sys.stderr)  # fmt: skip
        if line.is_tested and (not config.commands or line.command in config.commands):
            references.append(reference)
    is_well = True
    if config.points:
        is_well &= _try_points(config, references, folder)
    if config.faults:
        is_well &= _try_faults(config, references, folder)
    return is_well


def _try_points(config: KillPointsConfig, references: list[Reference], folder: Path) -> bool:
    began = time.monotonic()
    points = [point for reference in references for point in points_of(reference, folder)]
    points = points[config.first % config.every :: config.every]
    outcomes = []
    for outcome in try_points(points, num_workers=config.num_workers):
        outcomes.append(outcome)
        if outcome.verdict in POINT_FAILURES:
            _print_failure(outcome.verdict, outcome.point.name, outcome.evidence)
    order = {point.folder: i for i, point in enumerate(points)}
    outcomes.sort(key=lambda outcome: order[outcome.point.folder])
    print(format_table(outcomes, {r.line.name: r.seconds for r in references}))
    print(f"{len(points)} points in {time.monotonic() - began:.0f} s")
    return not any(outcome.verdict in POINT_FAILURES for outcome in outcomes)


def _try_faults(config: KillPointsConfig, references: list[Reference], folder: Path) -> bool:
    began = time.monotonic()
    faults = [
        fault
        for reference in references
        for fault in faults_of(
            reference, folder, config.kinds, num_each=config.faults, seed=config.seed
        )
    ]
    outcomes = []
    for outcome in try_faults(faults, num_workers=config.num_workers):
        outcomes.append(outcome)
        if outcome.verdict in FAULT_FAILURES:
            fault = outcome.fault
            name = f"{fault.reference.line.name}: {fault.kind} {fault.number}"
            _print_failure(outcome.verdict, name, outcome.evidence)
    order = {fault.folder: i for i, fault in enumerate(faults)}
    outcomes.sort(key=lambda outcome: order[outcome.fault.folder])
    print(format_faults(outcomes))
    print(f"{len(faults)} faults in {time.monotonic() - began:.0f} s")
    return not any(outcome.verdict in FAULT_FAILURES for outcome in outcomes)


def _print_failure(verdict: str, name: str, evidence: str) -> None:
    """Print it at once: a run of hours that is stopped has shown something."""
    tqdm.write(f"{verdict}: {name}\n    {evidence}", file=sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    run_command(main)
