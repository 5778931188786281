"""Flags and TOML files that no command may take, for every command and every one of its settings.

All inputs that are named do not exist, so that a command which takes an odd value for sound ends in
one line all the same; what no value may be must be refused in a line that names the setting.
"""

import dataclasses
import importlib
import inspect
import json
import random
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from commands import setting_groups
from tests.attacks.harness import Case
from tests.every_command import find_commands

KIND = "settings"
# Commands that need no input: given a sound setting they would begin to work.
WORKS_ALONE = ("demo.", "benchmarks.", "pipeline.preflight")
# What a command wants beside the settings that have no default.
MORE_WORDS = {
    "speech_head.speak": ("--head", "absent", "--text", "Maakye."),
    "speech_head.synthesize": ("--head", "absent", "--text", "absent"),
    "speech_head.evaluate": ("--texts", "absent", "--recognizer", "absent"),
    "speech_head.judge": ("--recognizer", "absent"),
    "stage1_rvq.tokenize_corpus": ("--embeddings", "absent"),
    "stage1_rvq.transcribe": ("--embeddings", "absent", "--recognizer", "absent"),
    "stage2_speechless.build_text": ("--corpus", "text=absent"),
    "stage3_finetune.build_dialogues": ("--table", "absent"),
    "voice_chat.chat": ("--head", "absent"),
    "voice_chat.serve": ("--head", "absent"),
    "voice_chat.talk": ("--head", "absent"),
}  # fmt: skip

LONG = "x" * 300
# By the kind of a setting: flag values that are nonsense for it, and TOML values.
NOT_A_NUMBER = ("", "x", "nan", "inf", "-inf", "1e400", "--", "1,5", "0x", "1 2", "\0")
NONSENSE: dict[str, tuple[str, ...]] = {
    "int": (*NOT_A_NUMBER, "1.5", "1e3", str(10**30), str(-(10**30)), "9" * 5000),
    "float": NOT_A_NUMBER,
    "bool": ("maybe", "2", ""),
    "literal": ("", "no such", "\0", LONG, "NONE ", "\ud800"),
    "path": ("a\0b", LONG, "a/" * 3000, "\ud800"),
    "name": ("", "  ", "a\0b", LONG, "\ud800"),
    "text": ("\ud800",),
}
TOML_NONSENSE: dict[str, tuple[str, ...]] = {
    "int": ("nan", "inf", "1.5", '"3"', "true", "[]", "[1]", "{}", "{a = 1}", "1979-05-27",
            "9223372036854775808000", '""'),
    "float": ("nan", "inf", "-inf", '"3"', "true", "[]", "{}", "1979-05-27T07:32:00Z"),
    "bool": ("0", "1", '"false"', "[]", "{}", "07:32:00"),
    "literal": ("1", "true", "[]", "{}", '"no such"', "1979-05-27"),
    "path": ("1", "true", "[]", "{}", "1979-05-27", '"a\\u0000b"', f'"{LONG}"'),
    "name": ("1", "true", "[]", "{}", '""', '"a\\u0000b"', f'"{LONG}"'),
    "text": ("1", "true", "[]", "{}", "1979-05-27"),
}  # fmt: skip
# Sound for some settings and not for others: one line in any case.
ODD = {
    "int": ("-1", "0", "1000000000", "-5"), "float": ("-1", "0", "-0.0", "1e300", "1e-300"),
    "bool": ("True", "False"), "literal": (), "path": ("", ".", "/", "/dev/null", "~", "-", "ɛɔ"),
    "name": (".", "/", "a//b", "../x", "a/b/c"), "text": ("", " ", LONG, "\n", "-1", "a\0b"),
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One field of a command's settings."""

    command: str
    name: str
    kind: str
    is_list: bool
    has_default: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def cases(world: Path, seed: int, count: int) -> list[Case]:
    """Cases drawn over all commands, settings and values.

    Args:
        world: not needed.
        seed: of what is drawn.
        count: how many.
    """
    commands = find_commands()
    rng = random.Random(f"{seed} {KIND}")
    queues = [list(_all_cases(command)) for command in commands]
    for queue in queues:
        rng.shuffle(queue)
    drawn: list[Case] = []
    while len(drawn) < count and any(queues):
        drawn += [queue.pop() for queue in queues if queue]
    return drawn[:count]


def config_class_of(command: str) -> type:
    """The dataclass of a command's settings."""
    module = importlib.import_module(command)
    [name] = set(re.findall(r"\bparse_config\((\w+), ", inspect.getsource(module)))
    return typing.cast(type, getattr(module, name))


def settings_of(command: str) -> list[Setting]:
    """All settings of a command."""
    return [
        Setting(
            command, found.name, *_kind(_without_limits(found.type), found.type),
            has_default=found.default is not dataclasses.MISSING,
        )
        for found in setting_groups.settings_of(config_class_of(command))
    ]  # fmt: skip


def _without_limits(annotation: Any) -> Any:
    holder = type("Holder", (), {"__annotations__": {"value": annotation}})
    return typing.get_type_hints(holder)["value"]


def _kind(hint: Any, extra: Any) -> tuple[str, bool]:
    if get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        return _kind(parts[0], extra)
    if get_origin(hint) is tuple:
        return _kind(get_args(hint)[0], extra)[0], True
    if get_origin(hint) is Literal:
        return "literal", False
    if hint is str:
        return ("name" if "_refuse_impossible_name" in str(extra) else "text"), False
    return {int: "int", float: "float", bool: "bool", Path: "path"}[hint], False


def _all_cases(command: str) -> Iterator[Case]:
    settings = settings_of(command)
    works_alone = command.startswith(WORKS_ALONE)
    for setting in settings:
        for value in NONSENSE[setting.kind]:
            yield _flag_case(settings, setting, value, names_it=True)
        if not setting.is_list:
            for value in TOML_NONSENSE[setting.kind]:
                yield _toml_case(settings, setting, value)
        for value in () if works_alone else ODD[setting.kind]:
            yield _flag_case(settings, setting, value, names_it=False)
    words = words_beside(settings)
    name = f"{command}: "
    yield Case(KIND, name + "unknown flag", command, (*words, "--no-such-flag=1"),
               mentions="no-such-flag")  # fmt: skip
    yield Case(KIND, name + "a stray word", command, (*words, "stray"), mentions="stray")
    yield Case(KIND, name + "a flag of dashes", command, (*words, "----"), mentions="")
    for described, content in BROKEN_TOML.items():
        yield Case(
            KIND, f"{name}TOML: {described}", command, (*words, "--config", "s.toml"),
            lambda folder, rng, content=content: (folder / "s.toml").write_bytes(content) and None,
            mentions="toml",
        )  # fmt: skip
    for path in ("absent.toml", ".", LONG, "a\0b", "\ud800", ""):
        yield Case(
            KIND, f"{name}--config {path[:10]!r}", command, (*words, "--config", path),
            mentions="config|toml|UTF-8|NUL|long|TOML",
        )  # fmt: skip


BROKEN_TOML = {
    "unknown key": b"no_such_key = 1\n",
    "a table": b"[no_such_table]\na = 1\n",
    "twice the same": b"out = 'a'\nout = 'b'\n",
    "no TOML": b"{]",
    "UTF-16": "out = 'a'\n".encode("utf-16"),
    "Latin-1": "out = 'é'\n".encode("latin-1"),
    "deep": b"out = " + b"[" * 100_000,
    "a key without a name": b'"" = 1\n',
    "a key with a NUL": b'"a\\u0000" = 1\n',
    "config in itself": b"config = 's.toml'\n",
    "help": b"help = true\n",
}


def words_beside(settings: list[Setting], *, but: str = "") -> tuple[str, ...]:
    """Words that name inputs which are not there, but for one setting."""
    command = settings[0].command
    words: list[str] = []
    for setting in settings:
        if not setting.has_default and setting.name != but:
            words += [setting.flag, "out/new" if setting.name == "out" else "absent"]
    more = MORE_WORDS.get(command, ())
    for flag, value in zip(more[::2], more[1::2], strict=True):
        if flag != "--" + but.replace("_", "-") and flag not in words:
            words += [flag, value]
    return tuple(words)


def _flag_case(settings: list[Setting], setting: Setting, value: str, *, names_it: bool) -> Case:
    given = f"{setting.flag}={value}"
    words = (*words_beside(settings, but=setting.name), given)
    name = f"{setting.command}: {given if len(given) < 60 else given[:50] + '...'}"
    return Case(
        KIND, name.encode("unicode_escape").decode() + f" ({len(value)})", setting.command, words,
        check=_check_nonsense if names_it else None,
        mentions=setting.name.replace("_", "[-_]") if names_it else "",
    )  # fmt: skip


def _toml_case(settings: list[Setting], setting: Setting, value: str) -> Case:
    def make(folder: Path, rng: random.Random) -> None:
        key = setting.name if rng.random() < 0.5 else setting.name.replace("_", "-")
        (folder / "s.toml").write_text(f"{key} = {value}\n", encoding="utf-8")

    words = (*words_beside(settings, but=setting.name), "--config", "s.toml")
    name = f"{setting.command}: {setting.name} = {json.dumps(value[:40])} in TOML ({len(value)})"
    return Case(
        KIND, name, setting.command, words, make, _check_nonsense,
        mentions=setting.name.replace("_", "[-_]"),
    )  # fmt: skip


def _check_nonsense(folder: Path) -> str:
    return "was accepted"
