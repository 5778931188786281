"""Count what a recipe will take, before it starts: hours, operations, memory, disk, GPU hours.

    python -m pipeline.plan recipes/thousand_hours.toml --out runs
    python -m pipeline.plan recipes/thousand_hours.toml --no-calibrate --tflops 400 --device-gib 80

A recipe lists the commands that you will run, with their flags as keys (`recipe.py`). Nothing is
downloaded, and no checkpoint is read: models are built with random weights. The first line measures
this device for about a minute; the second counts for a device that is not here. Prints a line for
each command, and what will not fit; the exit code is 1 if something will not.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from commands.command_line import parse_config, run_command
from commands.device import DeviceName, pick_device
from commands.errors import InputError
from commands.setting_types import ModelName, PositiveFloat, PositiveInt, Share, StorePath
from gemma4.memory_plan import GIB
from pipeline.calibrate import assume, calibrate, existing_folder
from pipeline.plan_case import Case
from pipeline.plan_steps import works_of
from pipeline.plan_table import Limits, find_misfits, format_plan, make_row, plan_as_dict
from pipeline.preflight_memory import host_memory_there, memory_there
from pipeline.recipe import read_recipe

FLOAT32_OF_PEAK = 16  # an A100 computes so many times as fast in bfloat16; newer GPUs fewer times


@dataclass(frozen=True, kw_only=True)
class ThereSettings:
    """A device that is not here, in place of a measurement."""

    calibrate: bool = True
    """measure this device; off, --tflops says how fast it is"""
    tflops: PositiveFloat | None = None
    """with --no-calibrate: peak of the device in 10^12 operations a second, dense, in bfloat16; an
    H100's is 989, an A100's 312"""
    tflops_float32: PositiveFloat | None = None
    """the same in float32, without TF32; an H100's is 67, an A100's 19.5; default: a sixteenth of
    --tflops"""
    utilization: Share = 0.3
    """share of the peak that models reach (a guess; large models reach 0.3 to 0.5)"""
    device_gib: PositiveFloat | None = None
    """memory of the device, in GiB; if not given, that of the device here, or with --no-calibrate
    it is not compared"""
    host_gib: PositiveFloat | None = None
    """memory of its host, in GiB; the same"""


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Count hours, operations, memory and disk of every command of a recipe, and what will not
    fit."""

    recipe: Path
    """TOML file that lists the commands; --recipe may be left out before it"""
    out: Path = Path("runs")
    """where the commands will write: the disk whose free space counts"""
    manifest: tuple[StorePath, ...] = ()
    """manifests of the corpus, counted in place of the hours in [corpus]"""
    voice_manifest: tuple[StorePath, ...] = ()
    """manifests of the answering voice, in place of [voice]"""
    set: tuple[str, ...] = ()
    """NAME=VALUE for the names in the recipe's [values], as of pipeline.run"""
    gemma: ModelName | None = None
    """in place of every command's Gemma: E2B, E4B, 12B, or a folder with a config.json"""
    devices: PositiveInt = 1
    """devices that share what can be divided (--part)"""
    max_hours: PositiveFloat | None = None
    """hours that all commands may take together"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    there: ThereSettings = ThereSettings()
    json: bool = False
    """print the plan as JSON"""


def main(argv: list[str] | None = None) -> None:
    """Print the plan; exits with 1 if something will not fit."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--recipe")
    config = parse_config(PlanConfig, words)
    there = config.there
    # Here, and not in the dataclass: a value that no setting takes is to be named first.
    if there.calibrate and (there.tflops or there.tflops_float32):
        raise InputError("--tflops needs --no-calibrate: else this device is measured")
    if not there.calibrate and not there.tflops:
        raise InputError("--no-calibrate needs --tflops: how fast the device is")
    recipe = read_recipe(
        config.recipe, manifests=config.manifest, voice_manifests=config.voice_manifest,
        gemma=config.gemma, given=config.set,
    )  # fmt: skip
    device = planned_device(config)
    works = works_of(Case(recipe, device))
    if there.tflops:
        float32 = there.tflops_float32 or there.tflops / FLOAT32_OF_PEAK
        rates = assume(device, there.tflops, float32, there.utilization)
    else:
        rates = calibrate(works, device, config.out)
    rows = [make_row(work, rates, config.devices) for work in works]
    limits = find_limits(config, device)
    misfits = find_misfits(rows, limits)
    if config.json:
        print(json.dumps(plan_as_dict(rows, rates, limits, misfits), indent=1))
    else:
        print(format_plan(rows, rates, limits, config.devices))
        print("\n".join(f"will not fit: {misfit}" for misfit in misfits) or "all of it fits")
    sys.exit(1 if misfits else 0)


def planned_device(config: PlanConfig) -> torch.device:
    """The device here; with --no-calibrate one of the kind that --device names, CUDA by default."""
    if config.there.calibrate:
        return pick_device(config.device)
    return torch.device("cuda" if config.device == "auto" else config.device)


def find_limits(config: PlanConfig, device: torch.device) -> Limits:
    """What there is: as the flags say, else as it is here."""
    there = config.there
    device_bytes: int | None = None
    if there.device_gib:
        device_bytes = round(GIB * there.device_gib)
    elif there.calibrate:
        device_bytes = memory_there(device)
    host_bytes = round(GIB * there.host_gib) if there.host_gib else None
    if host_bytes is None and there.calibrate:
        host_bytes = host_memory_there()
    free = shutil.disk_usage(existing_folder(config.out)).free
    return Limits(device_bytes, host_bytes, free, config.max_hours)


if __name__ == "__main__":
    run_command(main)
