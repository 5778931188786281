"""How many hours of speech does it take? Run a recipe with few and with many, and draw the curve.

    python -m pipeline.hours_curve recipes/common_voice.toml --set common_voice=cv-corpus/tw \
        --hours 0.05 0.1 0.2 --out runs/hours

The recipe is run once for each amount, in a folder of its own (`runs/hours/0.1h`); its `[values]`
have `hours`, and it takes a part of its training speech that is contained in that of more hours
(`data_manifests.subset`). What it writes into `{shared}` is made once, and what writes nothing is
run once. Recorded hours are what is scarce: the text of stage 3 is the same for every amount, and
so are dev, test and the judge, the recogniser of the most hours (`{judge}`).

Amounts are run in the order in which they are named, after that recogniser. Run it again, and it
goes on where it stopped. An amount whose command fails keeps what it has measured, and the next
one begins. After each, `curve.json`, `curve.txt` and `curve.svg` are written anew.
"""

import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from commands.atomic_write import write_json, write_text
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.folder_lock import folder_lock
from commands.setting_types import PositiveFloats, PositiveInt
from data_manifests.language import speaking
from pipeline.curve import Point, format_curve, read_point
from pipeline.curve_plot import plot_curve
from pipeline.recipe_steps import RECOGNIZER_NAME, Places, read_runnable
from pipeline.report import About, write_report
from pipeline.run_step import StepFailed, refuse_too_few_gpus, run_step
from pipeline.run_steps import in_this_process, read_seconds, run_steps
from pipeline.steps import Step

HOURS_VALUE = "hours"
CAVEAT = "One amount of speech of a curve: judged by the recogniser of the largest amount."
Run = Callable[[Step], str]


@dataclass(frozen=True, kw_only=True)
class HoursCurveConfig:
    """Run a recipe with several amounts of speech, and show what each stage reaches with them."""

    recipe: Path
    """recipe whose [values] have hours; --recipe may be left out before it"""
    out: Path
    """folder for the runs and the curve"""
    hours: PositiveFloats = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    """hours of training speech, in the order in which they are run"""
    set: tuple[str, ...] = ()
    """NAME=VALUE for the other names in the recipe's [values]"""
    devices: PositiveInt = 1
    """GPUs to use, as in pipeline.run"""
    one_process: bool = False
    """run all commands in this process, which loads the libraries once: for small models"""

    def __post_init__(self) -> None:
        if len(set(self.hours)) < len(self.hours):
            raise ValueError("--hours: an amount is named twice")
        if any(pair.startswith(f"{HOURS_VALUE}=") for pair in self.set):
            raise ValueError("--set hours=...: name all amounts with --hours")
        if self.one_process and self.devices > 1:
            raise ValueError("--one-process uses one device: leave out --devices")


@dataclass(frozen=True)
class Amount:
    """One amount of speech, and its commands: those that all amounts share, and its own."""

    hours: float
    folder: Path
    title: str
    language: str
    shared: list[Step]
    steps: list[Step]


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with every amount; prints the table and where the picture is."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--recipe")
    config = parse_config(HoursCurveConfig, words)
    judge = folder_of(config.out, max(config.hours)) / RECOGNIZER_NAME
    amounts = [read_amount(config, hours, judge) for hours in config.hours]
    refuse_unlike(amounts)
    first = steps_of_judge(amounts, judge)
    refuse_too_few_gpus(config.devices)
    config.out.mkdir(parents=True, exist_ok=True)
    run: Run = partial(run_step, devices=config.devices, logs=config.out / "logs")
    if config.one_process:
        run = in_this_process_or_failed
    failures: dict[float, str] = {}
    with folder_lock(config.out), speaking(amounts[0].language):
        try:
            run_in(shared_of(config.out), amounts[0].shared, run)
            run_in(judge.parent, first, run)
        except StepFailed as error:
            print(f"{error}\nrun it again to go on there", file=sys.stderr)
            sys.exit(1)
        for amount in amounts:
            failures[amount.hours] = run_amount(amount, run)
            write_curve(config, amounts, failures, judge)
    print((config.out / "curve.txt").read_text(encoding="utf-8"))
    print(config.out / "curve.svg")
    sys.exit(1 if any(failures.values()) else 0)


def folder_of(out: Path, hours: float) -> Path:
    """The folder of an amount."""
    return out / f"{hours:g}h"


def shared_of(out: Path) -> Path:
    """The folder of what all amounts share."""
    return out / "shared"


def read_amount(config: HoursCurveConfig, hours: float, judge: Path) -> Amount:
    """The recipe's commands for an amount, but not the one that publishes; raises InputError as
    `read_runnable`, or if it cannot be run with fewer hours."""
    places = Places(folder_of(config.out, hours), shared_of(config.out), judge)
    recipe = read_runnable(config.recipe, places, (*config.set, f"{HOURS_VALUE}={hours:g}"))
    shared = [s for s in recipe.steps if not s.out or s.out.is_relative_to(shared_of(config.out))]
    own = [s for s in recipe.steps if s not in shared and s.command != "pipeline.publish"]
    return Amount(hours, places.out, recipe.title, recipe.language, shared, own)


def refuse_unlike(amounts: Sequence[Amount]) -> None:
    """Raise InputError if what is shared would depend on the amount."""
    for amount in amounts[1:]:
        for one, other in zip(amounts[0].shared, amount.shared, strict=True):
            if one != other:
                raise InputError(
                    f"{one.command} writes into {{shared}}, and reads {{hours}}, {{out}} or "
                    f"{{judge}}: {one.line}"
                )


def steps_of_judge(amounts: Sequence[Amount], judge: Path) -> list[Step]:
    """What the largest amount needs until its recogniser is trained."""
    steps = max(amounts, key=lambda amount: amount.hours).steps
    outs = [step.out for step in steps]
    if judge not in outs:
        raise InputError(f"no command of the recipe writes {{out}}/{RECOGNIZER_NAME}, which judges")
    return steps[: outs.index(judge) + 1]


def run_in(folder: Path, steps: Sequence[Step], run: Run) -> dict[str, float]:
    """Run steps whose progress is noted in a folder; the seconds of each stage."""
    folder.mkdir(parents=True, exist_ok=True)
    return run_steps(steps, folder, run)


def run_amount(amount: Amount, run: Run) -> str:
    """Run the commands of an amount, and write its report; returns what failed, or ""."""
    print(f"\n== {amount.hours:g} hours ==", file=sys.stderr, flush=True)
    try:
        seconds = run_in(amount.folder, amount.steps, run)
    except StepFailed as error:
        print(f"{error}\nthis amount stops there", file=sys.stderr)
        return str(error)
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    about = About(f"{amount.title}: {amount.hours:g} hours", CAVEAT)
    write_report(amount.folder, seconds, peak / 1024, about)
    return ""


def in_this_process_or_failed(step: Step) -> str:
    """Run a step in this process; raises StepFailed, after its traceback, if it fails."""
    try:
        return in_this_process(step)
    except Exception as error:
        traceback.print_exc()
        raise StepFailed(step.line, 1, None) from error


def write_curve(
    config: HoursCurveConfig, amounts: Sequence[Amount], failures: dict[float, str], judge: Path
) -> list[Point]:
    """Write `curve.json`, `curve.txt` and `curve.svg` of what is measured so far."""
    points = [
        read_point(
            amount.hours, amount.folder,
            seconds=sum(read_seconds(amount.folder).values()),
            failure=failures.get(amount.hours, ""),
        )
        for amount in sorted(amounts, key=lambda amount: amount.hours)
    ]  # fmt: skip
    written = {"recipe": str(config.recipe), "judge": str(judge), "set": list(config.set)}
    write_json(config.out / "curve.json", {**written, "points": [asdict(p) for p in points]})
    table = format_curve(points, title=amounts[0].title, judge=judge)
    write_text(config.out / "curve.txt", table + "\n")
    plot_curve(points, config.out / "curve.svg")
    return points


if __name__ == "__main__":
    run_command(main)
