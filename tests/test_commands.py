"""Every command: help, unknown flags, unknown keys, and the exact line that runs it in its
docstring."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from every_command import find_commands
from fork_server import MARK

from commands.errors import InputError

COMMANDS = find_commands()


def test_the_commands_users_need_are_there():
    expected = {
        "data_manifests.build", "data_manifests.check", "data_manifests.subset",
        "data_manifests.score", "data_manifests.degrade", "data_manifests.spell_numbers",
        "data_manifests.phonemes",
        "stage1_rvq.embed", "stage1_rvq.train", "stage1_rvq.train_recognizer",
        "stage1_rvq.evaluate",
        "stage1_rvq.tokenize_corpus", "stage1_rvq.transcribe", "stage1_rvq.compare_codes",
        "stage2_speechless.train", "stage2_speechless.build_text", "stage2_speechless.generate",
        "stage2_speechless.evaluate", "stage3_finetune.build_dialogues",
        "stage3_finetune.speak_dialogues", "stage3_finetune.train", "stage3_finetune.evaluate",
        "stage3_finetune.evaluate_noise",
        "stage3_finetune.chat", "stage3_finetune.transcribe", "stage3_finetune.export",
        "speech_head.states", "speech_head.train", "speech_head.speak", "speech_head.evaluate",
        "speech_head.synthesize",
        "speech_head.judge",
        "voice_chat.chat", "voice_chat.talk", "voice_chat.serve", "pipeline.preflight",
        "pipeline.compare_precision", "pipeline.publish", "pipeline.hours_curve", "demo.run",
    }  # fmt: skip
    assert expected <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_unknown_flag(command, capsys):
    module = importlib.import_module(command)
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    assert "--" in capsys.readouterr().out
    with pytest.raises(InputError, match="unknown flag --no-such-thing"):
        module.main(["--no-such-thing", "1"])


@pytest.mark.parametrize("command", COMMANDS)
def test_docstring_shows_how_to_run_it(command):
    assert f"python -m {command}" in importlib.import_module(command).__doc__


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_key_of_a_config_file(command, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("no_such_key = 1\n")
    with pytest.raises(InputError, match="unknown key 'no_such_key'"):
        importlib.import_module(command).main(["--config", str(path)])


FOLDER_COMMANDS = [
    command
    for command in COMMANDS
    if "run_folder(" in (ROOT / f"{command.replace('.', '/')}.py").read_text(encoding="utf-8")
]


@pytest.mark.parametrize("command", FOLDER_COMMANDS)
def test_every_command_that_writes_a_folder_can_continue_it_or_write_it_again(command, capsys):
    module = importlib.import_module(command)
    with pytest.raises(SystemExit):
        module.main(["--help"])
    shown = capsys.readouterr().out
    assert ("--resume" in shown) != ("--overwrite" in shown)


def test_loading_and_help_write_nothing_to_stderr(forks, tmp_path):
    """Through real processes: libraries talk while they are loaded."""
    marks = [f"{MARK} {command}" for command in COMMANDS]
    assert forks.loading.splitlines() == marks
    (tmp_path / "lines.json").write_text(json.dumps([[command, "--help"] for command in COMMANDS]))
    process = forks.run("tests.run_lines", "lines.json", folder=tmp_path)
    assert process.returncode == 0 and process.stderr.splitlines() == marks
    used = re.findall(r"^usage: python -m (\S+)", process.stdout, flags=re.MULTILINE)
    assert used == COMMANDS


@pytest.mark.parametrize(
    ("wanted", "spins"), [({}, "1000"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")], ids=["ours", "user"]
)
def test_threads_that_wait_soon_sleep_in_a_command_started_by_hand(wanted, spins):
    """As OpenMP itself says when torch loads it; by torch alone it spins 300,000 times."""
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **wanted}
    process = subprocess.run(
        [sys.executable, "-c", "import commands.device"],
        cwd=ROOT, capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    said = re.findall(r"GOMP_SPINCOUNT = '(\w+)'", process.stderr)
    if not said:
        pytest.skip("another OpenMP than GNU's")
    assert said == [spins]


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    """Through a real process: no traceback, one line on stderr, code 2."""
    words = ["-m", "data_manifests.check", "--manifest", str(tmp_path / "absent.jsonl")]
    process = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=os.environ.copy()
    )
    assert process.returncode == 2
    errors = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "absent.jsonl" in errors[0]
    assert "Traceback" not in process.stderr
