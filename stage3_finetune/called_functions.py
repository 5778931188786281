"""Calls of functions in dialogues: `tools`, `tool_calls` and `role: tool`, as Hugging Face's chat
templates and trl have them.

    {"tools": [{"type": "function", "function": {"name": "add", "description": "...",
                "parameters": {"type": "object", "properties": {...}}}}],
     "messages": [
        {"role": "user", "content": "Mmienu ne mmiɛnsa yɛ sɛn?", "spoken": true},
        {"role": "assistant", "tool_calls": [
            {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}]},
        {"role": "tool", "name": "add", "content": "5"},
        {"role": "assistant", "content": "Enum."}]}

`tools` and `arguments` may also be JSON in a string. What calls functions must declare them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from commands.errors import InputError, nearest_name
from commands.schema import parse_json, shorten
from gemma4.function_calls import NAME, FunctionCall
from stage3_finetune.template_marks import TEMPLATE_MARK, without_template_marks

ToolSchema = Mapping[str, Any]


def parse_tools(value: Any) -> tuple[ToolSchema, ...]:
    """The `tools` of a row -> JSON schemas; none if the row has none.

    Raises:
        InputError: not a list of declared functions, two of one name, or a mark of the chat
            template in one.
    """
    tools = _from_json(value, what="'tools'")
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise InputError(f"'tools' must be a list, got {shorten(tools)}")
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise InputError(f"a tool must be an object with a 'function', got {shorten(tool)}")
        name, parameters = function.get("name"), function.get("parameters") or {}
        _checked_name(name, what="a tool")
        if not isinstance(function.get("description", ""), str):
            raise InputError(f"the 'description' of tool {name!r} must be a string")
        if not isinstance(parameters, dict) or not isinstance(
            parameters.get("properties", {}), dict
        ):
            raise InputError(f"the 'parameters' of tool {name!r} must be a JSON schema")
        refuse_marks_in(tool, what=f"tool {name!r}")
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names):
        raise InputError("'tools' declares a function twice")
    return tuple(tools)


def parse_calls(value: Any) -> tuple[tuple[FunctionCall, ...], tuple[str, ...]]:
    """The `tool_calls` of a message -> calls, and their ids, "" where none is given.

    Raises:
        InputError: not a list of calls with a name and an object of arguments, or a mark of the
            chat template in one.
    """
    entries = _from_json(value, what="'tool_calls'") or []
    if not isinstance(entries, list):
        raise InputError(f"'tool_calls' must be a list, got {shorten(entries)}")
    calls, ids = [], []
    for entry in entries:
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict):
            raise InputError(f"a tool call must be an object with a 'function': {shorten(entry)}")
        name = _checked_name(function.get("name"), what="a tool call")
        arguments = _from_json(function.get("arguments"), what="'arguments'") or {}
        if not isinstance(arguments, dict):
            raise InputError(f"'arguments' must be an object, got {shorten(arguments)}")
        refuse_marks_in(arguments, what=f"a call of {name!r}")
        id_ = entry.get("id") or ""
        if not isinstance(id_, str):
            raise InputError(f"the 'id' of a tool call must be a string, got {shorten(id_)}")
        calls.append(FunctionCall(name, arguments))
        ids.append(id_)
    return tuple(calls), tuple(ids)


class ResultsToCome:
    """The results of the calls of one message, as the `role: tool` messages after it give them."""

    def __init__(self, calls: Sequence[FunctionCall], ids: Sequence[str]) -> None:
        self._calls = calls
        self._ids = ids
        self._results: dict[int, str] = {}

    def take(self, message: Mapping[str, Any]) -> None:
        """Add one result; raises InputError if it is not that of an open call."""
        content, id_ = message.get("content"), message.get("tool_call_id")
        name = message.get("name")
        if not isinstance(content, str):
            raise InputError(f"the 'content' of a tool turn must be a string: {shorten(content)}")
        refuse_marks_in(content, what="a tool turn")
        left = [i for i in range(len(self._calls)) if i not in self._results]
        if id_ and any(self._ids):
            left = [i for i in left if self._ids[i] == id_]
        if not left:
            raise InputError("a tool turn without a call before it")
        if name and name != self._calls[left[0]].name:
            raise InputError(
                f"a tool turn of {shorten(name)} after a call of {self._calls[left[0]].name!r}"
            )
        self._results[left[0]] = content

    def all(self) -> tuple[str, ...]:
        """All results, in the order of the calls; raises InputError if some are missing."""
        for i, call in enumerate(self._calls):
            if i not in self._results:
                raise InputError(f"the call of {call.name!r} has no result (a 'tool' turn)")
        return tuple(self._results[i] for i in range(len(self._calls)))


def refuse_undeclared(calls: Sequence[FunctionCall], tools: Sequence[ToolSchema]) -> None:
    """Raise InputError if a call is of a function, or has an argument, that is not declared, or
    lacks one that is required."""
    declared = {tool["function"]["name"]: tool["function"] for tool in tools}
    for call in calls:
        if call.name not in declared:
            hint = nearest_name(call.name, list(declared)) if declared else "it has none"
            raise InputError(f"calls {call.name!r}, which 'tools' does not declare: {hint}")
        parameters = declared[call.name].get("parameters") or {}
        properties = parameters.get("properties", {})
        for name in call.arguments:
            if name not in properties:
                raise InputError(f"calls {call.name!r} with {name!r}, which is not declared")
        for name in parameters.get("required", []):
            if name not in call.arguments:
                raise InputError(f"calls {call.name!r} without {name!r}, which is required")


def refuse_marks_in(value: Any, *, what: str) -> None:
    """Raise InputError if a JSON value holds a mark of the chat template."""
    if mark := TEMPLATE_MARK.search(json.dumps(value, ensure_ascii=False).replace('\\"', '"')):
        raise InputError(
            f"{what} holds {shorten(mark[0])}, a mark of Gemma's chat template: leave it out"
        )


def without_marks_in(value: Any) -> Any:
    """A JSON value without the marks of the chat template in its texts."""
    if isinstance(value, str):
        return without_template_marks(value)
    if isinstance(value, Mapping):
        return {without_template_marks(key): without_marks_in(v) for key, v in value.items()}
    if isinstance(value, list):
        return [without_marks_in(v) for v in value]
    return value


def _from_json(value: Any, *, what: str) -> Any:
    if isinstance(value, str) and value.strip():
        return parse_json(value, where=what)
    return None if value == "" else value


def _checked_name(name: Any, *, what: str) -> str:
    if not isinstance(name, str) or len(name) > 100 or not NAME.fullmatch(name):
        raise InputError(
            f"the name of {what} must be of letters a to z, digits and _, got {shorten(name)}"
        )
    return name
