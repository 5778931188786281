"""What every stage leaves, for tests that only read it (see the fixture `whole_world`)."""

import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from conftest import run

from commands.json_files import read_json_lines
from data_manifests.manifest import read_manifest, write_manifest
from stage1_rvq import evaluate
from stage3_finetune import export
from tests.attacks.world import plan, write_speech

FREE, NOT_FREE, OF_DIALOGUES = "CC0-1.0", "CC-BY-NC-4.0", "MIT"


def build_whole_world(world: Path, tiny_models: Path) -> None:
    """The commands of `tests.attacks.world`, on a manifest with two licences and on dialogues with
    a third one; the Gemma into which that adapter was merged; and two evaluations."""
    world.mkdir()
    write_speech(world)
    rows = list(read_manifest(world / "train.jsonl"))
    closed = [replace(row, corpus="closed", license=NOT_FREE) for row in rows[:3]]
    write_manifest(world / "train.jsonl", [*closed, *rows[3:]])
    dialogues = read_json_lines(world / "dialogues.jsonl")
    lines = [{**d, "corpus": "chats", "license": OF_DIALOGUES} for d in dialogues[:-1]]
    write_rows(world / "dialogues.jsonl", [*lines, dialogues[-1]])
    for name in ("gemma", "mimi"):
        shutil.copytree(tiny_models / name, world / name)
    for step in plan(world):
        run(importlib.import_module(step.command).main, *step.words)
    merged = ("--gemma", world / "gemma", "--finetune", world / "finetune")
    run(export.main, *merged, "--out", world / "merged")
    shutil.copytree(world / "speech", world / "head-test")
    run(
        evaluate.main, "--rvq", world / "rvq", "--embeddings", world / "embeddings",
        "--out", world / "rvq-test", "--device", "cpu",
    )  # fmt: skip


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
