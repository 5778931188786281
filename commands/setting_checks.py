"""Check settings from a TOML file or flags against the annotations of their dataclass."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from commands.errors import InputError, nearest_name
from commands.schema import describe, shorten
from commands.setting_groups import settings_of, values_of
from commands.setting_types import refuse_impossible_path


def flags_from_toml(path: Path, config_class: type, given: Sequence[str]) -> list[str]:
    """A TOML file's settings as command-line arguments, omitting those already `given` as flags."""
    try:
        refuse_impossible_path(path)
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # invalid TOML, UTF-8 or path
        raise InputError(f"--config {path}: not valid TOML: {error}") from None
    words = []
    for name, value in settings_of_table(table, config_class, where=str(path)).items():
        if name not in given and f"no_{name}" not in given:
            words += _as_words(name.replace("_", "-"), value, where=f"{path}: {name}")
    return words


def settings_of_table(
    table: Mapping[str, Any], config_class: type, *, where: str
) -> dict[str, Any]:
    """The settings that a TOML table gives, by their names.

    Args:
        table: keys with `-` or `_`.
        config_class: dataclass of a command.
        where: file, and name of the table if it has one, for the message.

    Raises:
        InputError: an unknown key (the nearest is named), or a value of another type.
    """
    types = {setting.name: setting.type for setting in settings_of(config_class)}
    settings = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in types:
            raise InputError(f"{where}: unknown key {key!r}: {nearest_name(name, list(types))}")
        _refuse_other_type(value, types[name], where=f"{where}: {key}")
        settings[name] = value
    return settings


def refuse_excluded_values(config: Any) -> None:
    """Raise InputError for a value that its annotation excludes, or for an impossible path.

    A value equal to its field's default is not checked.
    """
    values = values_of(config)
    for setting in settings_of(type(config)):
        flag, value = setting.flag, values[setting.name]
        if value == setting.default:
            continue
        try:
            for path in value if isinstance(value, tuple) else (value,):
                if isinstance(path, Path):
                    refuse_impossible_path(path)
                elif isinstance(path, str):
                    path.encode()
            TypeAdapter(setting.type).validate_python(value)
        except ValidationError as error:
            raise InputError(f"{flag} {describe(error)}") from None
        except UnicodeEncodeError:
            raise InputError(f"{flag} must be Unicode text, got {value!r}") from None
        except ValueError as error:
            raise InputError(f"{flag} {error}") from None


def _as_words(flag: str, value: Any, *, where: str) -> list[str]:
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if not isinstance(value, list):
        return [f"--{flag}={value}"]  # "=", so that a text may begin with a dash
    items = [str(item) for item in value]
    if dashed := [item for item in items if item.startswith("-")]:
        raise InputError(f"{where}: {dashed[0]!r} begins with a dash, which reads as a flag")
    return [f"--{flag}", *items]


def _refuse_other_type(value: Any, type_: Any, *, where: str) -> None:
    """Raise InputError if a TOML value has the wrong type: "3" for 3, a table for a string."""
    try:
        TypeAdapter(type_).validate_json(json.dumps(value), strict=True)
    except TypeError:  # a date, which JSON does not have
        raise InputError(f"{where}: {shorten(value)} is a date or time, not a setting") from None
    except ValidationError as error:
        raise InputError(f"{where} {describe(error)}") from None
