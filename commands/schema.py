"""Check JSON against types: everything read from a file passes through here.

    @dataclass(frozen=True)
    class Entry:
        id: str
        num_frames: PositiveInt

    entry = check_json(line, Entry, where="data/x.jsonl:3")

Pydantic does the checking, strictly: "3" is not 3, "false" is not false, an unknown key or a number
that is not finite is an error. This module adds one-line messages that say where the error is, and
refuses duplicate keys.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from commands.errors import InputError, nearest_name

Value = TypeVar("Value")

MAX_SHOWN_CHARACTERS = 60  # of a wrong value, in a message


def check_json(
    text: str | bytes, type_: type[Value], *, where: str, ignore_unknown: bool = False
) -> Value:
    """Parse JSON text as a value of the expected type.

    Args:
        text: one JSON value; bytes must be UTF-8.
        type_: any annotated type that pydantic supports, usually a dataclass.
        where: file and line, for the message.
        ignore_unknown: ignore keys that the type does not have, in a file written by others.

    Returns:
        The value; for a dataclass, an instance.

    Raises:
        InputError: not valid JSON, a key is missing, unknown or repeated, or a value is of the
            wrong type or out of range.
    """
    try:
        value = _adapter(cast(Hashable, type_)).validate_json(
            text, strict=True, extra="ignore" if ignore_unknown else "forbid"
        )
    except ValidationError as error:
        raise InputError(f"{where}: {describe(error, type_)}") from None
    parse_json(text, where=where)  # pydantic takes the last of two equal keys
    return cast(Value, value)


def parse_json(text: str | bytes, *, where: str) -> Any:
    """Parse JSON text as plain Python objects, whose keys the caller looks up.

    Args:
        text: one JSON value; bytes must be UTF-8.
        where: file and line, for the message.

    Raises:
        InputError: not UTF-8, not valid JSON, nested too deeply, NaN, half of a surrogate pair,
            or a repeated key in an object.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_refuse_equal_keys, parse_constant=_refuse_constant
        )
        if "\\u" in text:  # only an escape can be half of a pair
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: holds half of a surrogate pair, which is no text") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from None
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _refuse_equal_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shorten(twice)} is repeated")
    return values


def describe(error: ValidationError, type_: object = None) -> str:
    """The first error, in one line: "'duration_s' must be greater than 0, got -1".

    Args:
        error: pydantic's error.
        type_: the expected type; for an unknown key of a dataclass, the nearest name is suggested.
    """
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    kind, value = first["type"], first["input"]
    if kind == "value_error":  # our own message
        said = str(first["ctx"]["error"])
        return said if not name or not said.startswith("must ") else f"{name!r} {said}"
    if kind == "json_invalid":
        return f"not valid JSON: {first['ctx']['error']}"
    if kind == "missing":
        return f"has no {name!r}"
    if kind == "unexpected_keyword_argument":
        unknown = str(first["loc"][-1])
        known = _field_names(type_) if len(first["loc"]) == 1 else []
        return f"unknown key {name!r}" + (f": {nearest_name(unknown, known)}" if known else "")
    if value is None:
        return f"{name!r} is null" if name else "is null"
    wanted = first["msg"].removeprefix("Input should be ").removeprefix("an instance of ")
    return f"{repr(name) + ' ' if name else ''}must be {wanted}, got {shorten(value)}"


def shorten(value: object) -> str:
    """A wrong value as messages show it: on one line, and truncated if long."""
    shown = repr(value)
    if len(shown) > MAX_SHOWN_CHARACTERS:
        shown = shown[:MAX_SHOWN_CHARACTERS] + "..."
    return shown


@functools.cache
def _adapter(type_: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, type_))


def _field_names(type_: object) -> list[str]:
    if not (isinstance(type_, type) and dataclasses.is_dataclass(type_)):
        return []
    return [field.name for field in dataclasses.fields(type_) if field.init]


def as_mapping(value: object, *, where: str) -> Mapping[str, Any]:
    """A dict whose keys are not known beforehand; InputError if it is anything else."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a dict, got {type(value).__name__}")
    return value
