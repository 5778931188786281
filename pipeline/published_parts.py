"""The folders of a published pipeline: what is needed to use a part, and no more.

Checkpoints, logs and plots stay behind, and so do the folders of a user's disk that settings and
provenance name: of an absolute path only the last name is kept. A copy is a finished folder of its
command, as every command takes it.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commands.atomic_write import write_json
from commands.errors import InputError
from commands.finished_folder import open_input
from commands.json_files import read_json
from commands.run_folder import OutputFolder
from commands.schema import as_mapping
from commands.trained_pipeline import PartName

# The parts that are trained here, and the commands that write them.
MADE_BY: Mapping[PartName, str] = {
    "finetune": "stage3_finetune.train",
    "head": "speech_head.train",
    "rvq": "stage1_rvq.train",
    "recognizer": "stage1_rvq.train_recognizer",
    "speechless": "stage2_speechless.train",
}
KEPT = ("config.json", "provenance.json", "units.json", "model", "adapter")
# JSON files in which commands and libraries record where something was.
RECORDS = ("config.json", "provenance.json", "adapter_config.json")
# Of a checkpoint of transformers: no pickles, and nothing of other frameworks.
KEPT_OF_CHECKPOINT = (".safetensors", ".json", ".jinja", ".model", ".txt", ".md")
# An absolute path, where a text begins or after a space, "=" or a quotation mark.
LOCAL_PATH = re.compile(r"(?<![^\s='\"])(?:/|~/)[^\s'\"]+")


def open_part(part: PartName, folder: Path) -> None:
    """Refuse a folder that is not a finished one of this part's command, or that holds no model."""
    open_input(folder, made_by=MADE_BY[part], flag=f"--{part}")
    kept = "adapter" if part == "finetune" else "model"
    if not (folder / kept).is_dir():
        raise InputError(f"--{part} {folder}: no {kept} in it: its training kept none")


def copy_part(run: Path, target: Path) -> None:
    """Copy a finished folder of a training, without what is only needed to train on."""
    target.mkdir()
    for name in KEPT:
        if (run / name).exists():
            copy_files(run / name, target / name)
    for path in sorted(target.rglob("*.json")):
        if path.name in RECORDS:
            _shorten_local_paths(path)
    OutputFolder(target, is_done=False).finish()


def copy_checkpoint(folder: Path, target: Path) -> None:
    """Copy a checkpoint of transformers: weights, settings, tokenizer and its card."""
    target.mkdir()
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.suffix in KEPT_OF_CHECKPOINT or path.stem == "LICENSE"):
            shutil.copyfile(path, target / path.name)


def copy_files(source: Path, target: Path) -> None:
    """Copy a file, or a folder and all that is in it."""
    # Not shutil.copytree, whose own error hides that the disk is full.
    for path in (source, *sorted(source.rglob("*"))):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir(parents=True, exist_ok=True)
        else:
            shutil.copyfile(path, target / path.relative_to(source))


def _shorten_local_paths(path: Path) -> None:
    content = read_json(path)
    shortened = as_mapping(_without_local_paths(content), where=str(path))
    if shortened != content:
        write_json(path, shortened)


def _without_local_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_local_paths(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_local_paths(part) for part in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~/")):  # it may hold spaces
        return Path(value).name
    return LOCAL_PATH.sub(lambda found: Path(found[0]).name, value)
