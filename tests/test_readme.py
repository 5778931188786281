"""The README is true: its commands exist with their flags, its file tree is the disk."""

import dataclasses
import importlib
import inspect
import re
import shlex

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND_LINES = sorted(set(re.findall(r"python -m ([a-z0-9_]+\.[a-z_]+[^`\n|]*)", README)))


def config_class(module):
    """The settings dataclass of a command."""
    classes = [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__
        and dataclasses.is_dataclass(value)
        and value.__name__.endswith("Config")
    ]
    assert len(classes) == 1, f"{module.__name__}: {classes}"
    return classes[0]


def test_there_are_commands_for_every_stage():
    for package in (
        "data_manifests",
        "stage1_rvq",
        "stage2_speechless",
        "stage3_finetune",
        "speech_head",
    ):
        assert any(line.startswith(package) for line in COMMAND_LINES)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_and_their_flags_exist(line):
    command, *words = shlex.split(line)
    if command.endswith("."):
        command = command[:-1]
    module = importlib.import_module(command)
    flags = {f.name for f in dataclasses.fields(config_class(module))} | {"config", "help"}
    used = {word[2:].replace("-", "_") for word in words if word.startswith("--")}
    assert used <= flags, f"{command} has no {used - flags}"


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", README, re.MULTILINE):
        name = target[0] or target[1]
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_the_file_tree_is_the_disk():
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", README, re.DOTALL)[1]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines()}
    ignored = {"runs", "data"}
    on_disk = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in ignored
    }
    on_disk = {name for name in on_disk if not name.endswith(".egg-info") and name[0] != "_"}
    assert named == on_disk


def test_files_to_edit_exist():
    for path in re.findall(r"`((?:[a-z0-9_]+/)+[a-z0-9_]+\.(?:py|tsv))`", README):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize(
    "stage", ["stage1_rvq", "stage2_speechless", "stage3_finetune", "speech_head"]
)
def test_every_stage_has_the_same_four_files(stage):
    for name in ("model.py", "data.py", "train.py", "evaluate.py"):
        assert (ROOT / stage / name).is_file()
