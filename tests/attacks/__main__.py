"""Give every command hostile input by the thousand, and count how it ends.

    python -m tests.attacks --count 1000 --out runs/attacks

Prints the table, and every fault with what shows it; exit code 1 where there is one. A fault is a
traceback, a hang, a result that is silently wrong, code of the input that ran, a file written
outside. What faulty cases left stays in the folder. The same seed gives the same cases.
"""

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from commands.atomic_write import write_text
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import NumWorkers, PositiveInt, Seed
from tests.attacks.harness import FAULTS, Case, format_faults, format_table, run_cases

# Kind of inputs, and its share of the cases.
KINDS = {
    "checkpoints": 6, "pickles": 1, "remote_code": 1, "settings": 6,
    "audio": 3, "manifests": 3, "sentences": 1, "corpora": 2,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """Give every command hostile input, and count how it ends."""

    out: Path
    """new folder: the world, and what faulty cases left"""
    count: PositiveInt = 1000
    """cases in all"""
    kinds: tuple[str, ...] = ()
    """only these kinds of inputs; all where none is given"""
    seed: Seed = 0
    """of which cases are drawn, and of what is damaged where"""
    num_workers: NumWorkers = 2
    """cases at a time"""
    world: Path | None = None
    """folder of valid inputs; made, with tests.attacks.world, where not given"""


def main(argv: list[str] | None = None) -> None:
    """Run the cases; exit code 1 where there is a fault."""
    config = parse_config(AttackConfig, argv)
    if config.out.exists():
        raise InputError(f"--out {config.out} exists already; name a new folder")
    if unknown := set(config.kinds) - KINDS.keys():
        raise InputError(f"--kinds: {min(unknown)!r} is none of {', '.join(KINDS)}")
    world = (config.world or config.out / "world").resolve()
    if not config.world:
        # In a process of its own: this one will be forked, and must not have computed with torch.
        subprocess.run(
            [sys.executable, "-m", "tests.attacks.world", "--out", str(world)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    cases = draw_cases(world, config.seed, config.count, config.kinds)
    outcomes = run_cases(
        cases, config.out / "cases", seed=config.seed, num_workers=config.num_workers or 1
    )
    config.out.mkdir(exist_ok=True)
    faults = format_faults(outcomes)
    write_text(config.out / "faults.txt", faults + "\n")
    print(format_table(outcomes))
    print(faults)
    sys.exit(1 if any(outcome.verdict in FAULTS for outcome in outcomes) else 0)


def draw_cases(world: Path, seed: int, count: int, kinds: tuple[str, ...] = ()) -> list[Case]:
    """Cases of every kind, in proportion; of those kinds there are generators for.

    Args:
        world: made by `world.py`.
        seed: of what is drawn.
        count: how many in all, about.
        kinds: only these; all where none is given.
    """
    names = [name for name in KINDS if not kinds or name in kinds]
    there = [name for name in names if importlib.util.find_spec(f"tests.attacks.{name}")]
    whole = sum(KINDS[name] for name in there)
    cases: list[Case] = []
    for name in there:
        module = importlib.import_module(f"tests.attacks.{name}")
        cases += module.cases(world, seed, round(count * KINDS[name] / whole))
    return cases


if __name__ == "__main__":
    run_command(main)
