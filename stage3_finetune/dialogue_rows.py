"""Rows of `messages` files -> dialogues (`dialogue.py` shows such a row)."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from commands.errors import InputError
from commands.json_files import read_lines
from commands.schema import parse_json, shorten
from gemma4.function_calls import FunctionCall
from stage3_finetune.called_functions import (
    ResultsToCome,
    parse_calls,
    parse_tools,
    refuse_undeclared,
)
from stage3_finetune.dialogue import Dialogue, Turn
from stage3_finetune.template_marks import refuse_template_marks

ROLES = ("system", "user", "assistant", "tool")
MAX_NAME_CHARACTERS = 200  # of a corpus or a licence, as in manifests
# u: a user's turn; c: one with calls and their results; a: one with text.
ORDER_OF_TURNS = re.compile(r"(?:u(?:a?c)*a)*u?")


def read_dialogues(
    path: Path, *, flag: str = "--dialogues", takes_tools: bool = False
) -> Iterator[Dialogue]:
    """Stream a `messages` JSONL file.

    Args:
        takes_tools: whether the caller can use dialogues with `tools`.

    Raises:
        InputError: the file is missing or empty, a row is not a dialogue, declares tools that the
            caller does not take, or an id is used twice (codes are matched to dialogues by id).
            File and line are named.
    """
    seen: dict[str, str] = {}
    for where, line in read_lines(path, flag=flag):
        try:
            dialogue = parse_dialogue(
                parse_json(line, where=where), default_id=where.rpartition(":")[2]
            )
        except InputError as error:
            said = str(error)
            raise InputError(said if said.startswith(where) else f"{where}: {said}") from None
        if dialogue.tools and not takes_tools:
            raise InputError(f"{where}: has 'tools': dialogues with calls are for training only")
        if dialogue.id in seen:
            raise InputError(f"{where}: id {dialogue.id!r} is that of {seen[dialogue.id]} too")
        seen[dialogue.id] = where
        yield dialogue
    if not seen:
        raise InputError(f"{flag} {path}: no dialogues in it")


def parse_dialogue(row: Any, default_id: str) -> Dialogue:
    """A JSON row -> `Dialogue`; raises InputError that says what is wrong with the row."""
    if not isinstance(row, dict):
        raise InputError(f"expected a JSON object, got {type(row).__name__}")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("has no 'messages'")
    tools = parse_tools(row.get("tools"))
    turns = _parse_turns(messages)
    conversation = [turn for turn in turns if turn.role != "system"]
    if not conversation:
        raise InputError("has no user turn")
    order = "".join("c" if turn.calls else turn.role[0] for turn in conversation)
    if not ORDER_OF_TURNS.fullmatch(order):
        raise InputError(
            "turns must alternate, user first; after 'tool_calls' and their results, the "
            "assistant answers"
        )
    if any(turn.spoken and turn.role != "user" for turn in turns):
        raise InputError("only user turns can be spoken")
    for turn in turns:
        refuse_undeclared(turn.calls, tools)
    named = {key: row.get(key, "") for key in ("category", "corpus", "license")}
    for key, value in named.items():
        if not isinstance(value, str):
            raise InputError(f"{key!r} must be a string, got {shorten(value)}")
        if key != "category" and len(value) > MAX_NAME_CHARACTERS:
            raise InputError(f"{key!r} has {len(value)} characters, at most {MAX_NAME_CHARACTERS}")
    id_ = row.get("id", default_id)
    if isinstance(id_, bool) or not isinstance(id_, str | int) or not str(id_).strip():
        raise InputError(f"'id' must be a string or an integer, got {shorten(id_)}")
    return Dialogue(str(id_), tuple(turns), **named, tools=tools)


def _parse_turns(messages: list[Any]) -> list[Turn]:
    """Messages -> turns; those with the results of functions become part of the turn that called
    them."""
    turns: list[Turn] = []
    to_come: ResultsToCome | None = None
    for message in messages:
        if not isinstance(message, dict):
            raise InputError(f"a message must be a JSON object, got {shorten(message)}")
        if message.get("role") == "tool":
            if to_come is None:
                raise InputError("a tool turn without a call before it")
            to_come.take(message)
            continue
        if to_come is not None:
            turns[-1] = replace(turns[-1], results=to_come.all())
            to_come = None
        if message.get("role") == "assistant" and message.get("tool_calls"):
            calls, ids = parse_calls(message["tool_calls"])
            turns.append(_parse_calling_turn(message, calls))
            to_come = ResultsToCome(calls, ids)
        else:
            turns.append(_parse_turn(message))
    if to_come is not None:
        turns[-1] = replace(turns[-1], results=to_come.all())
    return turns


def _parse_calling_turn(message: dict[str, Any], calls: tuple[FunctionCall, ...]) -> Turn:
    content = message.get("content")
    if content is not None and (not isinstance(content, str) or content.strip()):
        raise InputError(
            "a turn with 'tool_calls' has text too, which Gemma's chat template would put after "
            "their results: give the text a turn of its own before"
        )
    if message.get("spoken"):
        raise InputError("only user turns can be spoken")
    return Turn("assistant", "", calls=calls)


def _parse_turn(message: dict[str, Any]) -> Turn:
    role, content, spoken = message.get("role"), message.get("content"), message.get("spoken")
    if not isinstance(role, str) or role not in ROLES:
        raise InputError(f"'role' must be one of {', '.join(ROLES)}, got {shorten(role)}")
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"a {role} turn without text")
    if spoken is not None and not isinstance(spoken, bool):
        raise InputError(f"'spoken' must be true or false, got {shorten(spoken)}")
    english = message.get("english", "")
    if not isinstance(english, str):
        raise InputError(f"'english' must be a string, got {shorten(english)}")
    refuse_template_marks(role, content)
    return Turn(role, content.strip(), spoken=bool(spoken), english=english.strip())
