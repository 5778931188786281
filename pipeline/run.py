"""Run a recipe: its commands one after another, from corpora to a judged Gemma that speaks.

    python -m pipeline.run recipes/common_voice.toml --set common_voice=cv-corpus/tw --out runs/cv

A recipe is a TOML file of command lines (`recipe_steps.py`). Every flag in it is checked before
anything runs. Run it again, and it goes on where it stopped: what is finished is not done twice.
`--dry-run` prints the lines, which can be typed one by one, and what they will take. At the end it
writes `report.json`, `report.txt` and `report.html`.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands.atomic_write import write_json, write_text
from commands.command_line import parse_config, run_command
from commands.errors import InputError, nearest_name
from commands.folder_lock import folder_lock
from commands.json_files import read_json
from commands.setting_types import PositiveInt
from pipeline.recipe_steps import RunnableRecipe, read_runnable
from pipeline.report import About, write_report
from pipeline.run_step import StepFailed, processes_of, run_step
from pipeline.steps import Step

CAVEAT = (
    "Every number is of this run's own held-out data, and of the judges that it trained or named; "
    "a recogniser's verdict stands beside its error on recordings."
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run the commands of a recipe one after another; run again, it goes on where it stopped."""

    recipe: Path
    """TOML file with command lines; --recipe may be left out before it"""
    out: Path
    """folder for everything that the recipe makes"""
    set: tuple[str, ...] = ()
    """NAME=VALUE for the names in the recipe's [values]: where a corpus is, which Gemma"""
    from_stage: str = ""
    """first stage to run, by its name in the recipe; those before it must be finished"""
    to_stage: str = ""
    """last stage to run"""
    devices: PositiveInt = 1
    """GPUs to use, or processes on a CPU: corpora are shared out in parts, trainings run as one in
    so many processes, each with the recipe's batch"""
    dry_run: bool = False
    """print the command lines and the plan, and run nothing"""
    plan: bool = True
    """with --dry-run, also print what it will take; that measures this device for a minute"""


RunStep = Callable[[Step, int, Path], str]


def main(argv: list[str] | None = None, *, run: RunStep = run_step) -> None:
    """Run the recipe; prints the table of the report and where it is."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--recipe")
    config = parse_config(RunConfig, words)
    recipe = read_runnable(config.recipe, config.out, config.set)
    steps = chosen_steps(recipe, config.from_stage, config.to_stage)
    if config.dry_run:
        print(as_script(steps, config.devices))
        if config.plan:
            print_plan(config)
        return
    config.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(config.out):
        seconds = run_steps(steps, config.out, config.devices, run)
        peak_rss_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        write_report(config.out, seconds, peak_rss_mb, About(recipe.title, CAVEAT))
    print((config.out / "report.txt").read_text(encoding="utf-8"))
    print(config.out / "report.html")


def chosen_steps(recipe: RunnableRecipe, first: str, last: str) -> list[Step]:
    """The steps from one stage to another; raises InputError for a stage that the recipe does not
    have, or that comes before the first."""
    stages = recipe.stages
    for flag, stage in (("--from-stage", first), ("--to-stage", last)):
        if stage and stage not in stages:
            raise InputError(f"{flag} {stage}: {nearest_name(stage, stages)}")
    start = stages.index(first) if first else 0
    end = stages.index(last) if last else len(stages) - 1
    if end < start:
        raise InputError(f"--to-stage {last} comes before --from-stage {first}")
    return [step for step in recipe.steps if step.stage in stages[start : end + 1]]


def as_script(steps: list[Step], devices: int) -> str:
    """The command lines as a shell script, a comment before each stage."""
    lines: list[str] = []
    for i, step in enumerate(steps):
        if i == 0 or steps[i - 1].stage != step.stage:
            lines += ["", f"# {step.stage}"]
        for together in processes_of(step, devices):
            lines += [process.line + (" &" if len(together) > 1 else "") for process in together]
            lines += ["wait"] if len(together) > 1 else []
    return "\n".join(lines[1:])


def print_plan(config: RunConfig) -> None:
    """Say what the whole recipe will take."""
    words = [str(config.recipe), "--out", str(config.out), "--devices", str(config.devices)]
    gemma = [pair.partition("=")[2] for pair in config.set if pair.startswith("gemma=")]
    words += ["--gemma", gemma[-1]] if gemma else []
    print("\n# What all of it takes:", flush=True)
    subprocess.run([sys.executable, "-m", "pipeline.plan", *words], check=False)


def run_steps(steps: list[Step], out: Path, devices: int, run: RunStep) -> dict[str, float]:
    """Run what is not finished, each step by `run`; returns the seconds that each stage took, in
    this run and earlier.

    Raises:
        SystemExit: a command failed, with its exit code.
    """
    finished_path = out / "finished.json"
    finished: dict[str, dict[str, float]] = (
        read_json(finished_path) if finished_path.exists() else {}
    )
    for number, step in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {step.stage}\n$ {step.line}", file=sys.stderr, flush=True)
        done = finished.setdefault(step.stage, {})
        if step.line in done and (step.out is None or step.out.exists()):
            print("done before", file=sys.stderr)
            continue
        started = time.monotonic()
        try:
            printed = run(step, devices, out / "logs")
        except StepFailed as error:
            print(f"step {number} of {len(steps)} failed, {error}", file=sys.stderr)
            print("run the recipe again to go on there", file=sys.stderr)
            sys.exit(error.exit_code if error.exit_code > 0 else 1)
        print(printed, end="", file=sys.stderr, flush=True)
        if step.out and step.out.suffix and "--json" in step.words:
            write_text(step.out.with_suffix(".json"), printed)
        done[step.line] = time.monotonic() - started
        write_json(finished_path, finished)
    return {stage: sum(lines.values()) for stage, lines in finished.items()}


if __name__ == "__main__":
    run_command(main)
