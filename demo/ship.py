"""Copy models of a training or demo run to `demo/weights`, with a record of how they were made.

    python -m demo.ship --gemma runs/train-gemma --mimi runs/train-mimi --demo runs/demo

For each model it copies the weights, settings, provenance and a thinned training log. `make demo`
starts from Gemma and Mimi, `make chat` from all of them.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.atomic_write import write_json, write_text, written_aside
from commands.command_line import parse_config, run_command
from commands.finished_folder import open_input
from commands.json_files import read_json
from commands.new_paths import refuse_unwritable
from commands.run_folder import OutputFolder
from demo.shipped import WEIGHTS
from pipeline.published_parts import copy_files

_README = shutil.ignore_patterns("README.md")
# Lines of a training log that are kept, in addition to every evaluation on dev.
NUM_LOG_LINES = 200


@dataclass(frozen=True, kw_only=True)
class ShipConfig:
    """Copy trained models of the demo to the folder that is shipped."""

    gemma: Path | None = None
    """folder of demo.gemma.train"""
    mimi: Path | None = None
    """folder of demo.mimi.train"""
    demo: Path | None = None
    """folder of demo.run: its adapter and speech head, for make chat"""
    out: Path = WEIGHTS
    """folder to copy to; existing models in it are replaced"""


def main(argv: list[str] | None = None) -> None:
    """Copy; prints the size of everything shipped."""
    config = parse_config(ShipConfig, argv)
    refuse_unwritable(config.out, flag="--out", is_folder=True, may_exist=True)
    if config.gemma:
        ship_model(config.gemma, config.out / "gemma", made_by="demo.gemma.train", flag="--gemma")
    if config.mimi:
        ship_model(config.mimi, config.out / "mimi", made_by="demo.mimi.train", flag="--mimi")
    if config.demo:
        for name, made_by, kept in (
            ("finetune", "stage3_finetune.train", "adapter"),
            ("head", "speech_head.train", "model"),
        ):
            ship_run(config.demo / name, config.out / name, made_by=made_by, kept=kept)
    num_bytes = sum(path.stat().st_size for path in config.out.rglob("*") if path.is_file())
    print(f"{config.out}: {num_bytes / 1e6:.1f} MB")


def ship_model(run: Path, target: Path, *, made_by: str, flag: str) -> None:
    """A training run's `model/` -> a checkpoint folder, with the record of the training in
    `training/`, and in `training/before/` that of the model it went on from; a README.md written by
    hand stays."""
    open_input(run, made_by=made_by, flag=flag)
    readme = target / "training" / "README.md"
    written = readme.read_text(encoding="utf-8") if readme.exists() else None
    with written_aside(target) as aside:
        copy_files(run / "model", aside)
        _copy_record(run, aside / "training")
        if init_from := read_json(run / "config.json").get("init_from"):
            record = Path(init_from) / "training"
            if record.is_dir():
                shutil.copytree(record, aside / "training" / "before", ignore=_README)
        if written:
            write_text(aside / "training" / "README.md", written)


def ship_run(run: Path, target: Path, *, made_by: str, kept: str) -> None:
    """Copy a stage's finished output folder without checkpoints; it reads like the original."""
    open_input(run, made_by=made_by, flag="--demo")
    with written_aside(target) as aside:
        copy_files(run / kept, aside / kept)
        _copy_record(run, aside)
        OutputFolder(aside, is_done=False).finish()


def _copy_record(run: Path, target: Path) -> None:
    """Copy settings, provenance and logs; paths stay as given on the command line."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "config.json", target / "config.json")
    write_json(target / "provenance.json", read_json(run / "provenance.json"))
    for log in sorted(run.rglob("metrics.jsonl")):
        name = "_".join([*log.relative_to(run).parent.parts, "metrics.jsonl"])
        write_text(target / name, _thinned(log.read_text(encoding="utf-8").splitlines()))


def _thinned(lines: list[str]) -> str:
    entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
    every = max(1, len(entries) // NUM_LOG_LINES)
    kept = [e for i, e in enumerate(entries) if i % every == 0 or e["split"] != "train"]
    return "".join(json.dumps(entry) + "\n" for entry in kept)


if __name__ == "__main__":
    run_command(main)
