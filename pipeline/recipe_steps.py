"""A recipe that can be run: command lines, one after another, in a TOML file.

    [values]                        # names in braces; an empty one must be given: --set corpus=...
    corpus = ""
    gemma = "google/gemma-4-E4B-it"
    others = ["common_voice=cv/tw"] # as many words as there are, or none

    [run]
    title = "My corpora"
    language = "twi"                # of all its texts: see data_manifests/language.py
    commands = '''
    data data_manifests.build
        --corpus fisd_asante={corpus} {others} --out {out}/manifests

    stage1 stage1_rvq.embed
        --manifest {out}/manifests/train.jsonl --gemma {gemma} --out {out}/embeddings/train
    '''

Each paragraph is a stage, a command and its words, as in `steps.py`; `{out}` is the folder of the
run. A recipe that is also run with fewer hours of speech (`hours_curve.py`) has a value `hours`,
writes into `{shared}` what is the same for all hours, and is judged by `{judge}`, a recogniser; by
itself it is run with `{shared}` = `{out}` and `{judge}` = `{out}/recognizer`. The other tables of
the file are for the plan (`recipe.py`). A recipe may be `like = "x.toml"`, another one beside it,
and say only what differs.
"""

import importlib
import string
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.command_line import parse_config
from commands.errors import InputError, nearest_name
from commands.setting_groups import values_of
from data_manifests.language import speaking
from pipeline.steps import Step, read_steps

# The commands of recipes, and the dataclass of their settings. They are imported by name: no module
# imports a command.
CONFIGS = {
    "data_manifests.build": "BuildConfig",
    "data_manifests.check": "CheckConfig",
    "data_manifests.subset": "SubsetConfig",
    "stage1_rvq.embed": "EmbedConfig",
    "stage1_rvq.train_recognizer": "TrainRecognizerConfig",
    "stage1_rvq.train": "TrainConfig",
    "stage1_rvq.evaluate": "EvaluateConfig",
    "stage1_rvq.tokenize_corpus": "TokenizeConfig",
    "stage1_rvq.export": "ExportConfig",
    "stage2_speechless.train": "TrainConfig",
    "stage2_speechless.evaluate": "EvaluateConfig",
    "stage2_speechless.build_text": "BuildTextConfig",
    "stage2_speechless.generate": "GenerateConfig",
    "stage3_finetune.build_dialogues": "BuildDialoguesConfig",
    "stage3_finetune.speak_dialogues": "SpeakDialoguesConfig",
    "stage3_finetune.train": "TrainConfig",
    "stage3_finetune.evaluate": "EvaluateConfig",
    "stage3_finetune.export": "ExportConfig",
    "speech_head.states": "StatesConfig",
    "speech_head.train": "TrainConfig",
    "speech_head.evaluate": "EvaluateConfig",
    "speech_head.speak": "SpeakConfig",
    "speech_head.synthesize": "SynthesizeConfig",
    "pipeline.preflight": "PreflightConfig",
    "pipeline.publish": "PublishConfig",
    "demo.world.make_corpus": "MakeCorpusConfig",
}
# Tables of a recipe that are no commands.
OWN_TABLES = ("corpus", "voice", "dialogues", "text", "values", "run")
RECOGNIZER_NAME = "recognizer"


@dataclass(frozen=True)
class Places:
    """The folders of a run.

    Attributes:
        out: everything that it makes.
        shared: what is the same for several runs; None: there is only this one.
        judge: the recogniser that judges; None: the run's own.
    """

    out: Path
    shared: Path | None = None
    judge: Path | None = None

    def as_values(self) -> dict[str, Path]:
        """What takes the place of `{out}`, `{shared}` and `{judge}`."""
        judge = self.judge or self.out / RECOGNIZER_NAME
        return {"out": self.out, "shared": self.shared or self.out, "judge": judge}


@dataclass(frozen=True)
class RunnableRecipe:
    """A recipe as it is run.

    Attributes:
        title: what it makes, for the report.
        language: as in `SPOKEN_LANGUAGE`; "" for the language that is in use.
        steps: the commands in order, their values filled in.
    """

    title: str
    language: str
    steps: list[Step]

    @property
    def stages(self) -> list[str]:
        """The stages in order."""
        return list(dict.fromkeys(step.stage for step in self.steps))


def read_runnable(path: Path, out: Path | Places, given: Sequence[str]) -> RunnableRecipe:
    """Read a recipe's command lines, and check every flag before anything runs.

    Args:
        path: the recipe.
        out: folder of the run, or more of its folders.
        given: NAME=VALUE, in place of what `[values]` says.

    Raises:
        InputError: it cannot be read, has no command lines, a value is missing or unknown, or a
            command does not take its words.
    """
    tables = read_tables(path)
    if "run" not in tables:
        raise InputError(f"{path}: no [run] in it: it can be planned (pipeline.plan), not run")
    values = _fill(path, tables.get("values", {}), given)
    if missing := [name for name, value in values.items() if value == ""]:
        flags = " ".join(f"{name}=..." for name in missing)
        raise InputError(f"{path} needs --set {flags}: what they are, the file says")
    places = out if isinstance(out, Places) else Places(out)
    steps = _read_steps(path, tables["run"], {**values, **places.as_values()})
    used = language_of(path, tables)
    with speaking(used):
        for step in steps:
            parse_step(step, where=str(path))
    return RunnableRecipe(str(tables["run"].get("title", path.stem)), used, steps)


def language_of(path: Path, tables: Mapping[str, Any]) -> str:
    """The language that a recipe says, "" if it says none: the name of one that comes along, or the
    path of a file, seen from the recipe."""
    used = tables.get("run", {}).get("language", "")
    if not isinstance(used, str):
        raise InputError(f'{path}: [run] language must be a name, as in "ewe"')
    return str((path.parent / used).resolve()) if used.endswith(".toml") else used


def recipe_settings(
    path: Path, tables: Mapping[str, Any], given: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """All settings of each command of a runnable recipe, by its name: of a command that runs more
    than once, those of the first time. What is needed and not given stands in by its name.

    Raises:
        InputError: as `read_runnable`.
    """
    filled = _fill(path, tables.get("values", {}), given)
    values = {name: name if value == "" else value for name, value in filled.items()}
    settings: dict[str, dict[str, Any]] = {}
    with speaking(language_of(path, tables)):
        values |= {name: str(place) for name, place in Places(Path("runs")).as_values().items()}
        for step in _read_steps(path, tables["run"], values):
            if step.command not in settings:
                settings[step.command] = values_of(parse_step(step, where=str(path)))
    return settings


def config_class_of(command: str) -> type:
    """The dataclass of a command's settings."""
    config_class: type = getattr(importlib.import_module(command), CONFIGS[command])
    return config_class


def parse_step(step: Step, *, where: str) -> Any:
    """The settings of a step; raises InputError for a command or a flag that does not exist."""
    if step.command not in CONFIGS:
        hint = nearest_name(step.command, list(CONFIGS))
        raise InputError(f"{where}: {step.command} is no command of a recipe: {hint}")
    try:
        return parse_config(config_class_of(step.command), list(step.words))
    except InputError as error:
        raise InputError(f"{where}: {step.command}: {error}") from None


def read_tables(path: Path) -> dict[str, Any]:
    """The content of a recipe, and of the one that it is like; raises InputError if either cannot
    be read."""
    tables = _read_toml(path)
    like = tables.pop("like", None)
    if like is None:
        return tables
    if not isinstance(like, str):
        raise InputError(f"{path}: like must be the name of a file")
    base = _read_toml(path.parent / like)
    if "like" in base:
        raise InputError(f"{path}: is like {like}, which is like another: name that one")
    for name, table in tables.items():
        both = isinstance(table, dict) and isinstance(base.get(name), dict)
        base[name] = {**base[name], **table} if both else table
    return base


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"--recipe {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or an impossible path
        raise InputError(f"--recipe {path}: not valid TOML: {error}") from None


def _fill(
    path: Path, values: Mapping[str, Any], given: Sequence[str]
) -> dict[str, str | tuple[str, ...]]:
    """The recipe's values, with those that were given in their place; a list as a tuple."""
    filled = {
        name: tuple(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }
    replaced: set[str] = set()
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not value:
            raise InputError(f"--set takes NAME=VALUE, got {pair!r}")
        if name not in filled:
            raise InputError(
                f"--set {pair}: {path} has no {name!r}: {nearest_name(name, list(filled))}"
            )
        before = filled[name]
        if isinstance(before, tuple):
            as_it_is = value.replace("{", "{{").replace("}", "}}")
            filled[name] = (*(before if name in replaced else ()), as_it_is)
        else:
            filled[name] = value
        replaced.add(name)
    return filled


def _read_steps(path: Path, run: Any, values: Mapping[str, object]) -> list[Step]:
    text = run.get("commands") if isinstance(run, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{path}: [run] has no commands")
    try:
        lists = [word for value in values.values() if isinstance(value, tuple) for word in value]
        parts = [part for one in (text, *lists) for part in string.Formatter().parse(one)]
        names = {name for _, name, _, _ in parts if name}
    except ValueError as error:
        raise InputError(f"{path}: [run]: {error}") from None
    if unknown := sorted(names - values.keys()):
        raise InputError(f"{path}: [run] uses {{{unknown[0]}}}, which [values] does not have")
    try:
        return read_steps(text, values)
    except ValueError:  # a paragraph of one word
        raise InputError(
            f"{path}: [run]: each paragraph is a stage, a command, its flags"
        ) from None
