"""Other ways to end a command: a full disk, a folder that cannot be written, a signal, a second run
into the same folder. Each must end in one line, and resume to the bytes of a run left alone."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .points import Reference

Kind = Literal[
    "any moment", "full disk", "file limit", "SIGTERM", "SIGINT", "below a file", "read-only",
    "not mine", "two runs", "two threads",
]  # fmt: skip
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Fault:
    """One fault in one line.

    Attributes:
        kind: what goes wrong.
        reference: the line, left alone.
        number: the change at which it does; for a file limit, the bytes a file may have; for any
            moment, the milliseconds after which it does.
        folder: where to try it.
    """

    kind: Kind
    reference: Reference
    number: int
    folder: Path


def faults_of(
    reference: Reference, folder: Path, kinds: Sequence[Kind], *, num_each: int, seed: int
) -> Iterator[Fault]:
    """Faults to try in a line: a few of each kind, at changes drawn by chance."""
    line = reference.line
    for kind in kinds:
        rng = random.Random(f"{seed} {line.name} {kind}")
        if kind == "file limit":
            sizes = sorted({path.stat().st_size for path in reference.case.rglob("*")} - {0})
            numbers = [size // 2 for size in rng.sample(sizes, min(num_each, len(sizes)))]
        elif kind == "any moment":
            numbers = rng.sample(range(1, round(1000 * reference.seconds) + num_each), num_each)
        elif kind in ("below a file", "read-only"):
            numbers = [1]
        elif kind in ("not mine", "two runs", "two threads"):
            # What has no run folder is not taken up again, nor locked; and the number of threads is
            # known once it is written, some changes later.
            begun = [n for n, change in enumerate(reference.changes, 1) if "/config.json" in change]
            after = range(begun[0] + 8, len(reference.changes)) if begun else range(0)
            is_told = line.again == "--resume" if kind == "two threads" else bool(line.again)
            numbers = rng.sample(after, min(num_each, len(after))) if is_told else []
        else:
            num_changes = len(reference.changes)
            numbers = rng.sample(range(1, num_changes + 1), min(num_each, num_changes))
        for number in sorted(numbers):
            name = f"{kind.replace(' ', '_')}_{number:04d}"
            yield Fault(kind, reference, number, folder / line.name / name)
