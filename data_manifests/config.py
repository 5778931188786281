"""Settings of a command: one frozen dataclass, a TOML file, flags.

Precedence: the dataclass's defaults < `--config FILE.toml` < flags. Defaults are the reference
recipe at full size. An unknown key or flag is an error that names the nearest one. Parsing is
tyro's; what is added here is the TOML file and errors that fit on one line.

    config = parse_config(TrainConfig, argv)
"""

import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")

CONFIG_FLAG = "--config"


class InputError(ValueError):
    """A user's mistake. Shown at the command line as one line, with exit code 2 and no
    traceback."""


def parse_config(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Read a command's settings from flags and an optional TOML file.

    Args:
        config_class: frozen, keyword-only dataclass; its docstring is the help text, and a
            docstring under each field is that flag's help.
        argv: the words after the command; None reads `sys.argv[1:]`.

    Returns:
        An instance of `config_class`.

    Raises:
        InputError: unknown flag or key (the nearest is named), a missing or malformed value, a TOML
            file that cannot be read, or a `ValueError` from the dataclass's own `__post_init__`.
        SystemExit: code 0, after `--help`.
    """
    import tyro

    words = list(sys.argv[1:] if argv is None else argv)
    names = [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    toml_path, words = _take_config_flag(words)
    _refuse_unknown_flags(words, names)
    if toml_path is not None:
        words = _flags_from_toml(toml_path, names, given=_flag_names(words)) + words
    message = io.StringIO()
    # tyro folds its errors to the terminal's width, in the middle of long paths.
    width = None if {"-h", "--help"} & set(words) else "10000"
    try:
        with contextlib.redirect_stderr(message), _terminal_width(width):
            return tyro.cli(config_class, prog=_command_name(config_class), args=words)
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        line = _one_line(message.getvalue())
        raise InputError(line.removeprefix(f"Error parsing {config_class.__name__}: ")) from None


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`, turning a user's mistake into one line on stderr and exit code 2.

    Anything else that goes wrong keeps its traceback and exits 1; Ctrl-C exits 130 without one.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def config_as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON-ready values: paths become strings, tuples become lists."""
    return {
        field.name: _jsonable(getattr(config, field.name)) for field in dataclasses.fields(config)
    }


def nearest_name(name: str, known: Sequence[str]) -> str:
    """A hint to append to an 'unknown name' error: the closest known name, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return value


def _command_name(config_class: type) -> str:
    module = config_class.__module__
    if module == "__main__":
        spec = sys.modules["__main__"].__spec__
        module = spec.name if spec else Path(sys.argv[0]).name
    return f"python -m {module}"


def _take_config_flag(words: list[str]) -> tuple[Path | None, list[str]]:
    for i, word in enumerate(words):
        if word == CONFIG_FLAG:
            if i + 1 == len(words):
                raise InputError(f"{CONFIG_FLAG} needs the path of a TOML file")
            return Path(words[i + 1]), words[:i] + words[i + 2 :]
        if word.startswith(CONFIG_FLAG + "="):
            return Path(word.split("=", 1)[1]), words[:i] + words[i + 1 :]
    return None, words


def _flag_names(words: Sequence[str]) -> list[str]:
    return [
        word[2:].split("=", 1)[0].replace("-", "_")
        for word in words
        if re.match(r"--[A-Za-z]", word)
    ]


def _refuse_unknown_flags(words: Sequence[str], names: Sequence[str]) -> None:
    for flag in _flag_names(words):
        if flag not in ("help", *names) and flag.removeprefix("no_") not in names:
            flags = ["--" + name.replace("_", "-") for name in names]
            shown = "--" + flag.replace("_", "-")
            raise InputError(f"unknown flag {shown}: {nearest_name(shown, flags)}")


def _flags_from_toml(path: Path, names: Sequence[str], given: Sequence[str]) -> list[str]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    words = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in names:
            raise InputError(f"{path}: unknown key {key!r}: {nearest_name(name, names)}")
        if name in given or f"no_{name}" in given:
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, list) else [value]
            words += [f"--{flag}", *(str(item) for item in values)]
    return words


@contextlib.contextmanager
def _terminal_width(columns: str | None) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    if columns is not None:
        os.environ["COLUMNS"] = columns
    try:
        yield
    finally:
        if columns is not None:
            del os.environ["COLUMNS"]
            if before is not None:
                os.environ["COLUMNS"] = before


def _one_line(box: str) -> str:
    """The message inside tyro's error box, without the frame, the argument's help and the usage
    hint."""
    # The title stands in the frame; without UTF-8 there is no frame, and it stands above a rule.
    plain = re.sub(r"\x1b\[[0-9;]*m|[│|]", "", box).replace("─", "-")
    texts = [line.strip() for line in plain.splitlines() if line.strip() and "╭" not in line]
    if "╭" not in box:
        texts = texts[2:]
    lines = list(itertools.takewhile(lambda text: set(text) != {"-"}, texts))
    return " ".join(lines) if lines else box.strip()
