"""Groups of settings: fields of a command's dataclass that are frozen dataclasses themselves.

    schedule: ScheduleSettings = ScheduleSettings(learning_rate=2e-4, warmup_steps=1000)

`--help` shows a group under a title of its own, with the docstring below the field as its
description. Everywhere else names are flat: the flag is `--learning-rate`, and so are the keys of
TOML files and of `config.json`. A name may therefore occur only once in a command.

A class variable is a fixed setting: it has no flag, and is recorded in `config.json`.
"""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar


@dataclass(frozen=True)
class Setting:
    """One setting of a command.

    Attributes:
        name: of its field.
        type: annotation of its field, with the limits of `setting_types.py`.
        default: `dataclasses.MISSING` if it must be given.
        group: name of the group that it is in; "" at the top level.
    """

    name: str
    type: Any
    default: Any
    group: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def is_list(self) -> bool:
        is_annotated = typing.get_origin(self.type) is Annotated
        plain = typing.get_args(self.type)[0] if is_annotated else self.type
        return typing.get_origin(plain) is tuple


def settings_of(config_class: type) -> list[Setting]:
    """All settings of a command, those of its groups included, in the order of its fields."""
    types = typing.get_type_hints(config_class, include_extras=True)
    settings = []
    for field in dataclasses.fields(config_class):
        if not dataclasses.is_dataclass(types[field.name]):
            settings.append(Setting(field.name, types[field.name], field.default, ""))
            continue
        group = types[field.name]
        types_in_group = typing.get_type_hints(group, include_extras=True)
        settings += [
            Setting(
                inner.name, types_in_group[inner.name], getattr(field.default, inner.name),
                field.name,
            )
            for inner in dataclasses.fields(group)
        ]  # fmt: skip
    return settings


def values_of(config: Any) -> dict[str, Any]:
    """The value of every setting by its name."""
    return {
        setting.name: getattr(
            getattr(config, setting.group) if setting.group else config, setting.name
        )
        for setting in settings_of(type(config))
    }


def fixed_values_of(config_class: type) -> dict[str, Any]:
    """The value of every fixed setting by its name."""
    values = {}
    for name, type_ in typing.get_type_hints(config_class).items():
        if typing.get_origin(type_) is ClassVar:
            values[name] = getattr(config_class, name)
        elif isinstance(type_, type) and dataclasses.is_dataclass(type_):
            values |= fixed_values_of(type_)
    return values
