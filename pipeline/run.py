"""Run a recipe: its commands one after another, from corpora to a judged Gemma that speaks.

    python -m pipeline.run recipes/common_voice.toml --set common_voice=cv-corpus/tw --out runs/cv

A recipe is a TOML file of command lines (`recipe_steps.py`). Every flag in it is checked before
anything runs. Run it again, and it goes on where it stopped: what is finished is not done twice.
`--dry-run` prints the lines, which can be typed one by one, and what they will take. At the end it
writes `report.json`, `report.txt` and `report.html`.
"""

import resource
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from commands.command_line import parse_config, run_command
from commands.errors import InputError, nearest_name
from commands.folder_lock import folder_lock
from commands.setting_types import PositiveInt
from data_manifests.language import VARIABLE, speaking
from pipeline.recipe_steps import RunnableRecipe, read_runnable
from pipeline.report import About, write_report
from pipeline.run_step import StepFailed, processes_of, refuse_too_few_gpus, run_step
from pipeline.run_steps import run_steps
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
    """print the command lines and the plan, and run nothing; exit code 1 where something will not
    fit"""
    plan: bool = True
    """with --dry-run, also print what it will take; that measures this device for a minute"""


def main(argv: list[str] | None = None) -> None:
    """Run the recipe; prints the table of the report and where it is."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--recipe")
    config = parse_config(RunConfig, words)
    recipe = read_runnable(config.recipe, config.out, config.set)
    steps = chosen_steps(recipe, config.from_stage, config.to_stage)
    refuse_too_few_gpus(config.devices)
    if config.dry_run:
        if recipe.language:
            print(f"export {VARIABLE}={shlex.quote(recipe.language)}\n")
        print(as_script(steps, config.devices), flush=True)
        sys.exit(show_plan(config) if config.plan else 0)
    config.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(config.out), speaking(recipe.language):
        run = partial(run_step, devices=config.devices, logs=config.out / "logs")
        try:
            seconds = run_steps(steps, config.out, run)
        except StepFailed as error:
            print(f"{error}\nrun the recipe again to go on there", file=sys.stderr)
            sys.exit(error.exit_code if error.exit_code > 0 else 1)
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


def show_plan(config: RunConfig) -> int:
    """Say what the whole recipe will take; returns 1 where something will not fit."""
    words = [str(config.recipe), "--out", str(config.out), "--devices", str(config.devices)]
    words += ["--set", *config.set] if config.set else []
    print("\n# What all of it takes:", flush=True)
    line = [sys.executable, "-m", "pipeline.plan", *words]
    return subprocess.run(line, check=False).returncode


if __name__ == "__main__":
    run_command(main)
