"""Every setting of every command: what it may be follows from its annotation, and is checked before
anything is loaded or written."""

import dataclasses
import shlex
from collections.abc import Sequence

import pytest
from every_command import find_commands
from pydantic import TypeAdapter

from commands import setting_groups
from commands.command_line import config_as_dict, parse_config
from commands.device import pick_device
from commands.errors import InputError
from commands.json_files import read_json
from commands.resumed_settings import FREE_ON_RESUME
from data_manifests.language import language
from demo.shipped import WEIGHTS
from tests.attacks.settings import (
    NONSENSE,
    TOML_NONSENSE,
    Setting,
    config_class_of,
    settings_of,
    words_beside,
)

MAX_AT_TOP_LEVEL = 16
MAX_SETTINGS = {
    "speech_head.train": 33,  # two architectures, each with its shape
    "stage2_speechless.train": 28,
    "stage3_finetune.train": 30,  # what is learnt from: codes, recordings, or both
    "speech_head.evaluate": 28,  # what is spoken, by whom, in which voice, and who judges it
    "speech_head.synthesize": 31,  # the same, and which processes share the work
    # Who talks, in which voice, what is remembered, how turns are told, and how many come.
    "voice_chat.serve": 29,
    "voice_chat.talk": 29,
    "benchmarks.browser_microphone": 27,
    "benchmarks.echo": 28,
    "benchmarks.hands_free": 28,
    "benchmarks.many_talkers": 29,
    "benchmarks.later_questions": 28,
}
SETTINGS = [setting for command in find_commands() for setting in settings_of(command)]
# What no run can have less than one of, or none of, whatever the command.
AT_LEAST_ONE = (
    "steps", "batch_size", "batch_frames", "batch_tokens", "save_every", "rounds", "takes",
    "variants", "accumulate", "width", "num_layers", "depth_width", "num_units", "num_codebooks",
    "beam_size", "max_characters", "lora_rank", "task_utterances", "num_dev_sentences",
    "max_joined",
)  # fmt: skip
NOT_NEGATIVE = (
    "learning_rate", "warmup_steps", "num_workers", "seed", "temperature", "top_k", "dropout",
    "history_dropout", "text_dropout", "lora_dropout", "task_weight", "max_cer", "guidance",
    "noise",
)  # fmt: skip


def parse(setting: Setting, value: str) -> object:
    """The command's settings, with one value that is given."""
    words = words_beside(settings_of(setting.command), but=setting.name)
    return parse_config(config_class_of(setting.command), [*words, f"{setting.flag}={value}"])


def some_of(values: Sequence[str], number: int) -> Sequence[str]:
    """A sixth of the values, another one for each setting: `tests.attacks` tries them all."""
    return values[number % 6 :: 6]


@pytest.mark.parametrize("command", find_commands())
def test_no_setting_takes_nonsense(command, tmp_path):
    path = tmp_path / "settings.toml"
    settings = settings_of(command)
    for number, setting in enumerate(settings):
        for value in some_of(NONSENSE[setting.kind], number):
            with pytest.raises(InputError) as caught:
                parse(setting, value)
            message = str(caught.value)
            assert setting.name in message.replace("-", "_"), (setting.flag, value, message)
            assert "\n" not in message and len(message) < 1000
        for value in () if setting.is_list else some_of(TOML_NONSENSE[setting.kind], number):
            path.write_text(f"{setting.name} = {value}\n", encoding="utf-8")
            words = [*words_beside(settings, but=setting.name), "--config", str(path)]
            with pytest.raises(InputError) as caught:
                parse_config(config_class_of(command), words)
            assert setting.name in str(caught.value).replace("-", "_"), (setting.flag, value)


def test_numbers_have_their_limits():
    """By name, so that a new command's steps cannot be of another type by mistake."""
    seen = set()
    for setting in SETTINGS:
        if setting.kind not in ("int", "float") or setting.is_list:
            continue
        wrong = {"-1"} if setting.name in (*AT_LEAST_ONE, *NOT_NEGATIVE) else set()
        for value in wrong | ({"0"} if setting.name in AT_LEAST_ONE else set()):
            with pytest.raises(InputError, match=setting.flag):
                parse(setting, value)
            seen.add(setting.name)
    assert seen == {*AT_LEAST_ONE, *NOT_NEGATIVE}


def test_defaults_are_what_their_annotations_allow():
    """A default is not checked as it is used, so it is here."""

    for command in find_commands():
        for setting in setting_groups.settings_of(config_class_of(command)):
            if setting.default not in (dataclasses.MISSING, ""):
                TypeAdapter(setting.type).validate_python(setting.default)


@pytest.mark.parametrize("command", find_commands())
def test_settings_are_few_and_each_has_its_own_name(command):
    """Those of groups too: flags and the keys of `config.json` are flat."""
    config_class = config_class_of(command)
    settings = setting_groups.settings_of(config_class)
    names = [setting.name for setting in settings] + [*setting_groups.fixed_values_of(config_class)]
    assert len(set(names)) == len(names)
    assert len([setting for setting in settings if not setting.group]) <= MAX_AT_TOP_LEVEL
    assert len(settings) <= MAX_SETTINGS.get(command, 25)


def test_shipped_runs_would_be_resumed():
    """Their command lines, read today, are the settings that were recorded then."""
    for name in ("finetune", "head"):
        provenance = read_json(WEIGHTS / name / "provenance.json")
        line = provenance["command_line"].replace("--reader", "--recognizer")  # its name then
        words = shlex.split(line.removeprefix("python -m "))
        recorded = read_json(WEIGHTS / name / "config.json")
        recorded.pop("recorded_codes", None)  # --transcribed now, and empty then
        if "reader" in recorded:
            recorded["recognizer"] = recorded.pop("reader")
        read = config_as_dict(parse_config(config_class_of(words[0]), words[1:]))
        for key in {*recorded, *read} - set(FREE_ON_RESUME):
            # A list that was not there then may be empty now.
            assert read.get(key) == recorded.get(key) or (key not in recorded and read[key] == [])


@pytest.mark.parametrize("name", ["meta", "cuda:", "cuda:-1", "xla", "gpu", "cpu:0:1", "CPU", ""])
def test_a_device_that_is_none(name):
    command = "stage1_rvq.train"
    [setting] = [s for s in settings_of(command) if s.name == "device"]
    with pytest.raises(InputError, match=r"--device must be auto, cpu, cuda"):
        parse(setting, name)


def test_a_device_that_is_not_here():
    with pytest.raises(InputError, match="--device cuda:99: not available here"):
        pick_device("cuda:99")


def test_there_are_four_dialects():
    assert language().all_dialects == ("asante", "akuapem", "fante", "unknown")
