"""The documents are true: commands exist with their flags, links lead somewhere, files exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from commands.setting_groups import settings_of
from tests.attacks.settings import config_class_of
from tests.every_command import ROOMS, find_commands

MAX_README_WORDS = 900
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "demo/README.md",
    "demo/weights/README.md",
    "demo/weights/gemma/training/README.md",
    "demo/weights/mimi/training/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("**/*.md")),
)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
README = TEXTS["README.md"]

# In a code block a command ends with its line, unless "\" joins the next; in running text with "`".
COMMAND = re.compile(r"(?:python|launch) -m ((?:[a-z0-9_]+\.)+[a-z0-9_]+(?:\\\n|[^`\n|])*)")
# The same without "python -m", where a sentence names a command with its flags.
SHORT_COMMAND = re.compile(rf"`((?:{'|'.join((*ROOMS, 'benchmarks'))})\.[a-z0-9_.]+ --[^`|]*)`")
COMMAND_LINES = sorted(
    {
        line
        for text in TEXTS.values()
        for pattern in (COMMAND, SHORT_COMMAND)
        for line in pattern.findall(text)
    }
)
# What `python -m` runs beside our own commands: programs of others, and of the tests.
NOT_OURS = {
    *("tests.variants", "tests.attacks", "tests.kill_points", "tests.ray_kills"),
    "tests.mirrors",
}
# Flags of other programs, and of ours that take more than settings.
OTHER_FLAGS = {"config", "help"}
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    bare = (re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in bare}


def test_every_stage_is_documented():
    for room in ("data_manifests", "stage1_rvq", "stage2_speechless", "stage3_finetune"):
        assert any(line.startswith(room) for line in COMMAND_LINES), room
    documented = {line.split()[0] for line in COMMAND_LINES}
    internal = {"demo.tiny_models", "demo.ship", "demo.world.describe"}
    assert set(find_commands()) - documented - internal == set()


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_and_their_flags_exist(line):
    command, *words = shlex.split(line.replace("\\\n", " "), comments=True)
    command = command.rstrip(".,;:)")
    if command in NOT_OURS:
        pytest.skip("a program of the tests")
    assert command in find_commands()
    flags = {setting.name for setting in settings_of(config_class_of(command))}
    flags |= {"no_" + flag for flag in flags} | {"config", "help"}
    used = {word[2:].split("=")[0].replace("-", "_") for word in words if re.match("--[a-z]", word)}
    assert used <= flags, f"{command} has no {used - flags}"


def test_flags_that_stand_alone_exist():
    flags = {
        setting.name.replace("_", "-")
        for command in find_commands()
        for setting in settings_of(config_class_of(command))
    }
    flags |= {"no-" + flag for flag in flags} | OTHER_FLAGS
    for name, text in TEXTS.items():
        for flag in re.findall(r"`--([a-z][a-z-]*)", text):
            assert flag in flags, f"{name}: --{flag}"


@pytest.mark.parametrize("command", find_commands())
def test_every_flag_is_used(command):
    """By a document, a recipe, the demo or a test: a flag that none of them knows, nobody needs."""
    paths = [ROOT / "Makefile", ROOT / "demo" / "run.py", *(ROOT / "tests").glob("**/*.py")]
    used = "".join([*TEXTS.values(), *(path.read_text(encoding="utf-8") for path in paths)])
    for setting in settings_of(config_class_of(command)):
        assert re.search(rf"--(no-)?{setting.flag[2:]}(?![\w-])", used), setting.flag


def test_messages_are_those_of_the_code():
    """What the page quotes of a message, apart from names and numbers, stands in a string."""
    source = "".join(
        path.read_text(encoding="utf-8")
        for room in ROOMS
        for path in sorted((ROOT / room).glob("**/*.py"))
    )
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # one string, written on several lines
    page = TEXTS["docs/troubleshooting.md"]
    for message in re.findall(r"^\| `([^`]+)`[^|]*\|", page, re.MULTILINE):
        for part in re.split(
            r"\.\.\.|\b[A-Z]+\b|\d[\d,]*|aplay.*ffplay|'|--|-it|\. |; |\(|\band\b", message
        ):
            words = part.strip(" ,.:)")
            if len(words) > 10:
                assert words in source, f"{message!r}: no {words!r} in the code"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", TEXTS[name], re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for link in LINK.findall(FENCED.sub("", TEXTS[name])):
        if re.match("https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name} links to {link}"
        if anchor:
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), f"{name}: {link}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_files_exist(name):
    """Paths in backticks that begin with one of our folders: files, or folders ending in "/"."""
    folders = "|".join((*ROOMS, "benchmarks", "tests", "docs", r"\.ci", r"\.github"))
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", TEXTS[name]):
        assert (ROOT / path).exists(), f"{name} names {path}"


def test_the_readme_is_short():
    assert len(README.split()) <= MAX_README_WORDS


def test_the_file_tree_is_the_disk():
    tree = re.search(r"^## How the rooms lie\n\n.*?```\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    assert tree
    named = [line.split()[0].rstrip("/") for line in tree[1].splitlines()]
    try:
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # a copy without its history
        pytest.skip("no git here to say which folders belong to the project")
    folders = {Path(path).parts[0] for path in listed if "/" in path}
    assert sorted(named) == sorted(name for name in folders if name[0] != ".")


def test_every_document_is_reached_from_the_readme():
    linked, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        linked.add(name)
        for link in LINK.findall(FENCED.sub("", TEXTS[name])):
            path = ((ROOT / name).parent / link.partition("#")[0]).resolve()
            found = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
            if found in TEXTS and found not in linked:
                waiting.append(found)
    assert linked == set(DOCUMENTS)


@pytest.mark.parametrize(
    "stage", ["stage1_rvq", "stage2_speechless", "stage3_finetune", "speech_head"]
)
def test_every_stage_has_the_same_four_files(stage):
    for name in ("model.py", "data.py", "train.py", "evaluate.py"):
        assert (ROOT / stage / name).is_file()
