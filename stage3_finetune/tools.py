"""Functions that Gemma may call while it answers: Python functions with docstrings.

    tools = load_tools("my_tools.py")              # or the name of a module
    result = tools.begin(FunctionCall("add", {"a": 2, "b": 3})).finish()

    def add(a: int, b: int) -> int:
        \"\"\"The sum of two numbers.

        Args:
            a: the first number.
            b: the second number.
        \"\"\"
        return a + b

Declared as transformers declares them (`transformers.utils.get_json_schema`). Only a declared
function is called, and only with arguments of the declared types. It runs in a thread of its own,
for at most 10 s, and in `voice_chat.serve` perhaps in several at once.
"""

import importlib
import importlib.util
import inspect
import json
import sys
import threading
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers.utils import get_json_schema

from commands.errors import InputError, nearest_name
from commands.pretrained import first_line
from commands.schema import check_json, shorten
from gemma4.function_calls import NAME, FunctionCall
from stage3_finetune.called_functions import ToolSchema, refuse_marks_in
from stage3_finetune.template_marks import without_template_marks

MAX_RUN_S = 10.0
MAX_RESULT_CHARACTERS = 4000  # as much as may be typed at once
ORDINARY = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class CallResult:
    """What came of a call.

    Attributes:
        call: what was to be called.
        text: what Gemma is told: the result, in JSON unless it is a text, or what went wrong.
        problem: what went wrong, for the user; "" if nothing did.
    """

    call: FunctionCall
    text: str
    problem: str = ""

    def as_line(self) -> str:
        """One line for the user."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.call.arguments.items())
        called = f"{self.call.name}({arguments})"
        line = f"{called}: {self.problem or self.text}"
        return f"({' '.join(line.split())[:300]})"


class RunningCall:
    """A call in its thread.

    Attributes:
        call: what is called.
    """

    def __init__(self, call: FunctionCall, run: Callable[[], CallResult]) -> None:
        """
        Args:
            run: calls the function and raises nothing.
        """
        self.call = call
        self._result: CallResult | None = None
        self._waited_s = 0.0

        def work() -> None:
            self._result = run()

        # A daemon: a function that never returns does not keep the program from ending.
        self._thread = threading.Thread(target=work, name=f"tool {call.name}", daemon=True)
        self._thread.start()

    def wait(self, time_s: float) -> CallResult | None:
        """Its result, if there is one within `time_s`; beyond `MAX_RUN_S` of waiting, that there
        was none in time. The thread is then left alone: Python cannot end it."""
        self._thread.join(time_s)
        if self._result is None and self._thread.is_alive():
            self._waited_s += time_s
            if self._waited_s < MAX_RUN_S:
                return None
            return _failed(self.call, f"took longer than {MAX_RUN_S:g} s")
        return self._result or _failed(self.call, "ended without a result")

    def finish(self) -> CallResult:
        """Wait for its result, as `wait`."""
        while (result := self.wait(0.05)) is None:
            pass
        return result


class Tools:
    """Functions that may be called.

    Attributes:
        schemas: what Gemma is told of each, as JSON schemas.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        """
        Args:
            functions: by name.

        Raises:
            InputError: one cannot be declared.
        """
        self._functions = dict(functions)
        self._types = {name: _argument_types(name, f) for name, f in functions.items()}
        self.schemas: tuple[ToolSchema, ...] = tuple(
            _declare(name, function) for name, function in functions.items()
        )

    def begin(self, call: FunctionCall) -> RunningCall:
        """Call a function in a thread of its own; nothing is called if it is not declared, or its
        arguments are not of the declared types: then the result says so."""
        return RunningCall(call, lambda: self._run(call))

    def _run(self, call: FunctionCall) -> CallResult:
        try:
            arguments = self._checked_arguments(call)
        except InputError as error:
            return _failed(call, str(error))
        try:
            value = self._functions[call.name](**arguments)
        except (Exception, SystemExit) as error:  # whatever a function raises
            return _failed(call, _describe(error))
        try:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            return _failed(call, f"returned a {type(value).__name__}, which is not JSON")
        text = without_template_marks(text)
        if len(text) > MAX_RESULT_CHARACTERS:
            return _failed(
                call, f"returned {len(text):,} characters, at most {MAX_RESULT_CHARACTERS:,} fit"
            )
        return CallResult(call, text)

    def _checked_arguments(self, call: FunctionCall) -> dict[str, Any]:
        if call.name not in self._functions:
            raise InputError(f"no such function: {nearest_name(call.name, list(self._functions))}")
        types = self._types[call.name]
        checked = {}
        for name, value in call.arguments.items():
            if name not in types:
                known = list(types) or ["none"]
                raise InputError(f"no argument {name!r}: {nearest_name(name, known)}")
            checked[name] = check_json(json.dumps(value), types[name], where=f"argument {name!r}")
        parameters = inspect.signature(self._functions[call.name]).parameters.values()
        for parameter in parameters:
            if parameter.default is parameter.empty and parameter.name not in checked:
                raise InputError(f"argument {parameter.name!r} is missing")
        return checked


NO_TOOLS = Tools({})


def load_tools(named: str, *, flag: str = "--tools") -> Tools:
    """The public functions of a Python file or module: those in its `__all__`, or else all that are
    defined in it and whose names do not begin with `_`.

    Its code is run: name only what you trust.

    Raises:
        InputError: it cannot be imported, has no function, or one that cannot be declared.
    """
    where = f"{flag} {named}"
    module = _import(named, where)
    chosen = vars(module).get("__all__")
    functions = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and (
            name in chosen
            if chosen is not None
            else value.__module__ == module.__name__ and not name.startswith("_")
        )
    }
    if not functions:
        raise InputError(f"{where}: no function in it")
    try:
        return Tools(functions)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _import(named: str, where: str) -> ModuleType:
    path = Path(named)
    try:
        if path.suffix != ".py":
            return importlib.import_module(named)
        if not path.is_file():
            raise InputError(f"{where}: no such file")
        spec = importlib.util.spec_from_file_location(f"tools_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # annotations of its functions are looked up there
        spec.loader.exec_module(module)
        return module
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever its code raises
        raise InputError(f"{where}: cannot be imported: {_describe(error)}") from None


def _argument_types(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The declared type of every argument."""
    if not NAME.fullmatch(name):
        raise InputError(f"function {name!r}: its name must be of letters a to z, digits and _")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InputError(
            f"function {name!r} must be an ordinary function, not async or a generator"
        )
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in ORDINARY or not NAME.fullmatch(parameter.name):
            raise InputError(
                f"function {name!r}: argument {parameter.name!r} must be named, in letters a to z, "
                "and neither *args nor **kwargs"
            )
    try:
        types = typing.get_type_hints(function)
    except Exception as error:  # an annotation that means nothing
        raise InputError(f"function {name!r}: {first_line(error)}") from None
    types.pop("return", None)
    return types


def _declare(name: str, function: Callable[..., Any]) -> ToolSchema:
    try:
        schema: dict[str, Any] = get_json_schema(function)
    except Exception as error:  # transformers raises several kinds, derived from Exception
        raise InputError(f"function {name!r} cannot be declared: {first_line(error)}") from None
    schema["function"]["name"] = name
    refuse_marks_in(schema, what=f"the docstring of {name!r}")
    return schema


def _describe(error: BaseException) -> str:
    kind, said = type(error).__name__, first_line(error)
    return said if said.startswith(kind) else f"{kind}: {said}"


def _failed(call: FunctionCall, why: str) -> CallResult:
    why = without_template_marks(" ".join(why.split()))
    return CallResult(call, f"error: {why}", f"failed: {shorten(why)[1:-1]}")
