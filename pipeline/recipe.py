"""A recipe: how much speech and text there is, and which commands will run with which settings.

    [corpus]
    hours = 1000

    [stage1_rvq.embed]      # python -m stage1_rvq.embed --batch-size 16
    batch_size = 16

The tables of `[corpus]`, `[voice]`, `[dialogues]` and `[text]` say what the commands work on. Every
other table is a command, in the order in which it will run; its keys are the command's flags, and
what is not given is the command's own default. Paths of inputs may be given, and are not opened.

A recipe that can be run has command lines in place of such tables (`recipe_steps.py`).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from commands.errors import InputError, nearest_name
from commands.schema import check_json
from commands.setting_checks import settings_of_table
from commands.setting_groups import settings_of
from commands.setting_types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from data_manifests.manifest import read_manifest
from pipeline.recipe_steps import OWN_TABLES, config_class_of, read_tables, recipe_settings

# The commands that can be planned.
PLANNED = (
    "data_manifests.build", "data_manifests.check", "stage1_rvq.embed",
    "stage1_rvq.train_recognizer", "stage1_rvq.train", "stage1_rvq.evaluate",
    "stage1_rvq.tokenize_corpus", "stage2_speechless.train", "stage2_speechless.evaluate",
    "stage3_finetune.speak_dialogues", "stage3_finetune.train", "stage3_finetune.evaluate",
    "speech_head.states", "speech_head.train", "speech_head.evaluate",
)  # fmt: skip

Settings = Mapping[str, Any]
Table = TypeVar("Table")


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Recorded and transcribed speech.

    Attributes:
        hours: of the train split.
        dev_hours, test_hours: of the other splits.
        seconds_an_utterance: mean length.
        megabytes_an_hour: of the recordings that `data_manifests.build` unpacks; 115 is 16 kHz WAV,
            0 where they stay in their archives.
    """

    hours: PositiveFloat
    dev_hours: NonNegativeFloat = 1.0
    test_hours: NonNegativeFloat = 1.0
    seconds_an_utterance: PositiveFloat = 6.0
    megabytes_an_hour: NonNegativeFloat = 115.0

    @property
    def all_hours(self) -> float:
        """Hours of all splits."""
        return self.hours + self.dev_hours + self.test_hours

    def count_utterances(self, hours: float) -> int:
        """Utterances in so many hours."""
        return max(1, round(hours * 3600 / self.seconds_an_utterance)) if hours else 0


@dataclass(frozen=True, kw_only=True)
class Dialogues:
    """Questions and answers, as text.

    Attributes:
        number: dialogues to train on.
        test_number: held-out dialogues with a recorded question.
        spoken_turns: user turns of a dialogue that are spoken.
        question_characters, answer_characters: mean lengths of a turn.
    """

    number: PositiveInt
    test_number: NonNegativeInt = 200
    spoken_turns: PositiveFloat = 1.0
    question_characters: PositiveFloat = 60.0
    answer_characters: PositiveFloat = 150.0


@dataclass(frozen=True, kw_only=True)
class Text:
    """How long text is when it is spoken, and as Gemma's tokens.

    Attributes:
        characters_a_second: of speech, spaces included.
        characters_a_token: of Gemma's tokenizer on Twi: a guess, not yet measured.
    """

    characters_a_second: PositiveFloat = 14.0
    characters_a_token: PositiveFloat = 2.5


@dataclass(frozen=True)
class Recipe:
    """What is worked on, and the commands in order.

    Attributes:
        corpus: speech that stages 1 and 2 learn from.
        voice: speech of the voice that will answer; the corpus if there is no such table.
        dialogues: None if there is no such table.
        text: lengths of text.
        commands: every setting of each command by its name, except inputs that are not given.
        counted: the tables whose hours were counted in manifests, not stated.
    """

    corpus: Speech
    voice: Speech
    dialogues: Dialogues | None
    text: Text
    commands: dict[str, Settings]
    counted: tuple[str, ...] = ()

    def settings(self, command: str) -> Settings:
        """The settings of a command, also of one that is not in the recipe: its own defaults."""
        if command in self.commands:
            return self.commands[command]
        return all_settings(command, {}, where="")


def read_recipe(
    path: Path,
    *,
    manifests: tuple[Path, ...] = (),
    voice_manifests: tuple[Path, ...] = (),
    gemma: str | None = None,
    given: tuple[str, ...] = (),
) -> Recipe:
    """Read a recipe.

    Args:
        path: TOML file.
        manifests: manifests of the corpus, whose utterances are counted in place of `[corpus]`.
        voice_manifests: those of the voice, in place of `[voice]`.
        gemma: takes the place of every command's `gemma`.
        given: NAME=VALUE, in place of what `[values]` says.

    Raises:
        InputError: it cannot be read, an unknown table or key (the nearest is named), a value of
            another type, or no command at all.
    """
    tables = _read_tables(path)
    counted = {"corpus": manifests, "voice": voice_manifests}
    for name, paths in counted.items():
        if paths:
            stated = tables.get(name, {})
            tables[name] = {**stated, **_count_manifests(paths)}
    if "corpus" not in tables:
        raise InputError(f"{path}: needs a table [corpus] with its hours, or --manifest")
    corpus = _as_dataclass(tables.pop("corpus"), Speech, where=f"{path}: [corpus]")
    voice = tables.pop("voice", None)
    dialogues = tables.pop("dialogues", None)
    text = _as_dataclass(tables.pop("text", {}), Text, where=f"{path}: [text]")
    commands = _read_commands(path, tables, given)
    if not commands:
        raise InputError(f"{path}: no command in it; a table such as [stage1_rvq.embed] is one")
    if gemma:
        commands = {
            name: {**settings, "gemma": gemma} if "gemma" in settings else settings
            for name, settings in commands.items()
        }
    return Recipe(
        corpus=corpus,
        voice=_as_dataclass(voice, Speech, where=f"{path}: [voice]") if voice else corpus,
        dialogues=(
            _as_dataclass(dialogues, Dialogues, where=f"{path}: [dialogues]") if dialogues else None
        ),
        text=text,
        commands=commands,
        counted=tuple(name for name, paths in counted.items() if paths),
    )


def all_settings(command: str, table: Mapping[str, Any], *, where: str) -> Settings:
    """Every setting of a command by its name: what a table gives, else the default; an input that
    has neither is not among them.

    Raises:
        InputError: as `settings_of_table`.
    """
    config_class = config_class_of(command)
    given = settings_of_table(table, config_class, where=where)
    defaults = {
        setting.name: setting.default
        for setting in settings_of(config_class)
        if setting.default is not dataclasses.MISSING
    }
    return {**defaults, **given}


def _read_commands(
    path: Path, tables: Mapping[str, dict[str, Any]], given: tuple[str, ...]
) -> dict[str, Settings]:
    """The settings of each command that can be planned, from its table or from command lines."""
    if "run" in tables:
        lines = recipe_settings(path, tables, given)
        return {name: settings for name, settings in lines.items() if name in PLANNED}
    if given:
        raise InputError(f"--set {given[0]}: {path} has no [run] whose values could be set")
    return {
        name: all_settings(name, table, where=f"{path}: [{name}]")
        for name, table in tables.items()
        if name not in OWN_TABLES
    }


def _read_tables(path: Path) -> dict[str, dict[str, Any]]:
    """All tables by their names, `[a.b]` as "a.b", in the order of the file."""
    content = read_tables(path)
    known = (*OWN_TABLES, *PLANNED)
    tables: dict[str, dict[str, Any]] = {}
    for name, value in content.items():
        if not isinstance(value, dict):
            raise InputError(f"{path}: {name!r} stands outside of a table")
        if name not in OWN_TABLES and not value:
            raise InputError(
                f"{path}: [{name}] is no table of a recipe: {nearest_name(name, known)}"
            )
        is_own = name in OWN_TABLES
        inner = {name: value} if is_own else {f"{name}.{k}": v for k, v in value.items()}
        for key, table in inner.items():
            if key not in known or not isinstance(table, dict):
                hint = nearest_name(key, known)
                raise InputError(f"{path}: [{key}] is no table of a recipe: {hint}")
            tables[key] = table
    commands = [name for name in tables if name not in OWN_TABLES]
    if commands and "run" in tables:
        raise InputError(f"{path}: has [run] and [{commands[0]}]: one way or the other")
    return tables


def _as_dataclass(table: Mapping[str, Any], type_: type[Table], *, where: str) -> Table:
    try:
        written = json.dumps(table)
    except TypeError:  # a date, which JSON does not have
        raise InputError(f"{where}: holds a date or time, which no key takes") from None
    return check_json(written, type_, where=where)


def _count_manifests(paths: tuple[Path, ...]) -> dict[str, float]:
    """Hours by split, and the mean length, of all utterances of several manifests."""
    seconds = {"train": 0.0, "dev": 0.0, "test": 0.0}
    num_utterances = 0
    for path in paths:
        for utterance in read_manifest(path):
            seconds[utterance.split] += utterance.duration_s
            num_utterances += 1
    if not seconds["train"]:
        raise InputError(f"{paths[0]}: no utterance of the split train in the manifests")
    hours = {split: total / 3600 for split, total in seconds.items()}
    return {
        "hours": hours["train"],
        "dev_hours": hours["dev"],
        "test_hours": hours["test"],
        "seconds_an_utterance": sum(seconds.values()) / num_utterances,
    }
