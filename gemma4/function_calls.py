"""Calls of functions in Gemma 4's own format: how they are marked, and how they are read.

    <|tool_call>call:add{a:2,b:3}<tool_call|><|tool_response>response:add{value:<|"|>5<|"|>}<tool_response|>

Gemma writes as far as `<|tool_response>`, which ends its part; whoever runs it writes the response,
and Gemma goes on in the same turn. Several calls may follow each other. Source: the published chat
template (google/gemma-4-E2B-it of July 2026, which trl 1.16 ships as gemma4_v5.jinja); it alone
writes calls here. This module reads them, and takes nothing but what that template writes: a call
that is not read whole is not made.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from commands.schema import shorten
from gemma4.chat_template import TURN_END, render_chat

CALL, CALL_END, RESPONSE, RESPONSE_END = (
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
)
DECLARATION, DECLARATION_END, QUOTE = "<|tool>", "<tool|>", '<|"|>'
CALL_TOKENS = (
    DECLARATION, DECLARATION_END, CALL, CALL_END, RESPONSE, RESPONSE_END, QUOTE,
)  # fmt: skip
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEY = re.compile(r"[\w.-]+")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
WORDS = {"true": True, "false": False, "null": None}
MAX_DEPTH = 8  # of lists and objects in an argument
TOO_OLD = (
    "Gemma's chat template does not write calls of functions as that of google/gemma-4-E2B-it "
    "has since July 2026: put that one in its place"
)


@dataclass(frozen=True)
class FunctionCall:
    """A call that a model wrote.

    Attributes:
        name: of the function.
        arguments: by name; JSON values.
    """

    name: str
    arguments: Mapping[str, Any]


def call_token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """Id of one of `CALL_TOKENS`; None if the tokenizer does not have it."""
    token_id = tokenizer.convert_tokens_to_ids(token)
    return None if token_id is None or token_id == tokenizer.unk_token_id else int(token_id)


def refuse_unable_to_call(
    tokenizer: PreTrainedTokenizerBase, *, where: str, has_text: bool
) -> None:
    """Raise InputError if a checkpoint cannot call functions: its tokenizer lacks their marks, or
    its chat template writes them otherwise.

    Args:
        where: what asks for calls, for the message: "--tools x.py".
        has_text: whether text may stand before a call, in the same turn: the transcript of a
            spoken question, for example.
    """
    for token in CALL_TOKENS:
        if call_token_id(tokenizer, token) is None:
            raise InputError(
                f"{where}: Gemma's tokenizer has no {token}, so it was not trained to call "
                "functions"
            )
    function = {
        "name": "f", "description": "F.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
    }  # fmt: skip
    call = {"type": "function", "id": "c", "function": {"name": "f", "arguments": {"x": 1}}}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "U"}]
    before = "T" if has_text else ""
    messages += [{"role": "assistant", "content": before}] if before else []
    messages += [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "name": "f", "content": "2"},
        {"role": "assistant", "content": "A"},
    ]
    tools = [{"type": "function", "function": function}]
    prompt = render_chat(messages[:1], tokenizer, asks=True, tools=tools)
    called = f"{prompt}{before}{CALL}call:f{{x:1}}{CALL_END}{RESPONSE}"
    answering = f"{called}response:f{{value:{QUOTE}2{QUOTE}}}{RESPONSE_END}"
    expected = {
        (len(messages) - 2, False): called,
        (len(messages) - 1, True): answering,
        (len(messages), False): f"{answering}A{TURN_END}\n",
    }
    is_declared = f"{DECLARATION}declaration:f{{" in prompt
    if not is_declared or any(
        render_chat(messages[:end], tokenizer, asks=asks, tools=tools) != text
        for (end, asks), text in expected.items()
    ):
        raise InputError(f"{where}: {TOO_OLD}")


def read_calls(text: str) -> list[FunctionCall]:
    """Read the calls that a model wrote one after another.

    Args:
        text: from the first `<|tool_call>` on, with its special tokens, without the token that
            ended it.

    Raises:
        InputError: it is anything but complete calls; the message says what was expected where.
    """
    reader = _Reader(text)
    calls = [reader.read_call()]
    while reader.position < len(text):
        calls.append(reader.read_call())
    return calls


class _Reader:
    """Reads a text from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def read_call(self) -> FunctionCall:
        self.take(f"{CALL}call:")
        name = self.match(NAME, "a function's name")
        arguments = self.read_object(KEY, depth=0)
        self.take(CALL_END)
        return FunctionCall(name, arguments)

    def read_object(self, key_pattern: re.Pattern[str], *, depth: int) -> dict[str, Any]:
        self.take("{")
        values: dict[str, Any] = {}
        while not self.takes("}"):
            if values:
                self.take(",")
            key = self.match(key_pattern, "a name")
            if key in values:
                raise self.problem(f"{key!r} once")
            self.take(":")
            values[key] = self.read_value(depth=depth + 1)
        return values

    def read_list(self, *, depth: int) -> list[Any]:
        self.take("[")
        values: list[Any] = []
        while not self.takes("]"):
            if values:
                self.take(",")
            values.append(self.read_value(depth=depth + 1))
        return values

    def read_value(self, *, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.problem(f"at most {MAX_DEPTH} values inside each other")
        if self.takes(QUOTE):
            value, quote, _ = self.text[self.position :].partition(QUOTE)
            if not quote:
                raise self.problem(f"{QUOTE} after the string")
            self.position += len(value) + len(QUOTE)
            return value
        if self.is_at("{"):
            return self.read_object(KEY, depth=depth)
        if self.is_at("["):
            return self.read_list(depth=depth)
        for word, meaning in WORDS.items():
            if self.takes(word):
                return meaning
        number = json.loads(self.match(NUMBER, "a value"))
        if not math.isfinite(number):
            raise self.problem("a smaller number")
        return number

    def is_at(self, expected: str) -> bool:
        return self.text.startswith(expected, self.position)

    def takes(self, expected: str) -> bool:
        """Whether the text goes on so; if it does, that is read."""
        if not self.is_at(expected):
            return False
        self.position += len(expected)
        return True

    def take(self, expected: str) -> None:
        if not self.takes(expected):
            raise self.problem(repr(expected))

    def match(self, pattern: re.Pattern[str], expected: str) -> str:
        found = pattern.match(self.text, self.position)
        if found is None:
            raise self.problem(expected)
        self.position = found.end()
        return found[0]

    def problem(self, expected: str) -> InputError:
        found = self.text[self.position :]
        return InputError(
            f"the call cannot be read: expected {expected} at character {self.position}, got "
            f"{shorten(found)}"
        )


def as_message(calls: Sequence[FunctionCall], ids: Sequence[str]) -> dict[str, Any]:
    """Calls as the message that chat templates take.

    Args:
        ids: of the calls, by which their responses are told apart.
    """
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": id_,
                "type": "function",
                "function": {"name": call.name, "arguments": dict(call.arguments)},
            }
            for call, id_ in zip(calls, ids, strict=True)
        ],
    }
