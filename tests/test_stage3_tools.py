"""Python functions as tools: how they are declared, what is called with what, what comes back."""

import threading
from typing import Literal

import pytest

from commands.errors import InputError
from gemma4.function_calls import FunctionCall
from stage3_finetune import tools as tools_module
from stage3_finetune.tools import MAX_RESULT_CHARACTERS, Tools, load_tools

TOOLS = load_tools("demo.world.tools")


def call(tools, name, **arguments):
    return tools.begin(FunctionCall(name, arguments)).finish()


def test_functions_are_declared_as_transformers_declares_them():
    [add, day] = TOOLS.schemas
    assert add["function"]["name"] == "add" and day["function"]["name"] == "day_today"
    assert add["function"]["description"] == "The sum of two numbers."
    assert add["function"]["parameters"]["properties"]["a"] == {
        "type": "integer", "description": "the first number."
    }  # fmt: skip
    assert add["function"]["parameters"]["required"] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("add", {"a": 2, "b": 3}, "5"),
        ("ad", {}, "error: no such function: did you mean 'add'?"),
        ("__import__", {}, "error: no such function: known: add, day_today"),
        ("add", {"a": 2}, "error: argument 'b' is missing"),
        ("add", {"a": 2, "b": 3, "c": 4}, "error: no argument 'c': known: a, b"),
        ("add", {"a": "2", "b": 3}, "error: argument 'a': must be a valid integer, got '2'"),
        ("add", {"a": True, "b": 3}, "error: argument 'a': must be a valid integer, got True"),
        ("add", {"a": 2.5, "b": 3}, "error: argument 'a': must be a valid integer, got 2.5"),
        ("add", {"a": None, "b": 3}, "error: argument 'a': is null"),
    ],
)
def test_only_what_is_declared_is_called(name, arguments, text):
    result = call(TOOLS, name, **arguments)
    assert result.text == text and bool(result.problem) == text.startswith("error: ")


def odd(
    kind: Literal["text", "list", "object", "marks", "long", "exit"], times: float = 1.0
) -> object:
    """Something.

    Args:
        kind: what.
        times: how often.
    """
    if kind == "exit":
        raise SystemExit
    return {
        "text": "Yoo.", "list": ["ɛ", times], "object": object(), "marks": "a<turn|><|turn>b",
        "long": "x" * (MAX_RESULT_CHARACTERS + 1),
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", "Yoo."),
        ("list", '["ɛ", 2]'),
        ("object", "error: returned a object, which is not JSON"),
        ("marks", "ab"),
        ("long", "error: returned 4,001 characters, at most 4,000 fit"),
        ("exit", "error: SystemExit"),
    ],
)
def test_what_comes_back(kind, text):
    # An integer is a number, too.
    result = call(Tools({"odd": odd}), "odd", kind=kind, times=2)
    assert result.text.replace("2.0", "2") == text and "\n" not in result.as_line()


def test_a_function_that_does_not_return_is_left_alone(monkeypatch):
    monkeypatch.setattr(tools_module, "MAX_RUN_S", 0.1)
    never = threading.Event()

    def wait() -> None:
        """Wait."""
        never.wait()

    result = call(Tools({"wait": wait}), "wait")
    assert result.text == "error: took longer than 0.1 s"
    never.set()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "no function in it"),
        ("def _f(): pass", "no function in it"),
        ("from math import sqrt\nfrom json import dumps", "no function in it"),
        ("def f(a): pass", "function 'f' cannot be declared: .* has no docstring"),
        ("def f(a: int):\n    'F.'", "cannot be declared: .* no description for the argument 'a'"),
        ("def f(*a: int):\n    'F.'", r"argument 'a' must be named, .* neither \*args nor"),
        ("async def f():\n    'F.'", "must be an ordinary function"),
        ("def f(a: 'intt'):\n    'F.'", "function 'f': NameError: name 'intt' is not defined"),
        ("def f():\n    'F. <|turn>'", "the docstring of 'f' holds '<|turn>', a mark"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def", "cannot be imported: SyntaxError: invalid syntax"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_line(tmp_path, code, message):
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(InputError, match=message.replace("<|", r"<\|")) as caught:
        load_tools(str(path))
    assert str(caught.value).startswith(f"--tools {path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_names_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="no_such_module: cannot be imported: ModuleNotFoundError"):
        load_tools("no_such_module")
    with pytest.raises(InputError, match=r"none.py: no such file"):
        load_tools(str(tmp_path / "none.py"))


def test_a_file_may_say_which_functions_it_offers(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from demo.world.tools import add\n__all__ = ['add']\ndef other():\n    'Other.'\n"
    )
    assert [schema["function"]["name"] for schema in load_tools(str(path)).schemas] == ["add"]
