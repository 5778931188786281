"""Command settings: a frozen dataclass, a TOML file and flags.

Precedence: the dataclass's defaults < `--config FILE.toml` < flags. Defaults are the reference
recipe at full size. An unknown key or flag is an error that names the nearest one. tyro does the
parsing; this module adds the TOML file and one-line errors.

    config = parse_config(TrainConfig, argv)
"""

import contextlib
import io
import itertools
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from tqdm import tqdm

from commands.errors import (
    MACHINE_ERRORS,
    InputError,
    PartnerEnded,
    Terminated,
    WriteError,
    describe_os_error,
    nearest_name,
)
from commands.setting_groups import Setting, fixed_values_of, settings_of, values_of

Config = TypeVar("Config")

CONFIG_FLAG = "--config"
MAX_MESSAGE = 800  # characters


def parse_config(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Read a command's settings from flags and an optional TOML file.

    Args:
        config_class: frozen, keyword-only dataclass; its docstring is the help text, and a
            docstring under each field is that flag's help. A field may be a group of settings
            (`setting_groups.py`).
        argv: command-line arguments; None reads `sys.argv[1:]`.

    Returns:
        An instance of `config_class`.

    Raises:
        InputError: unknown flag or key (the nearest is named), a missing or malformed value, one
            that its annotation excludes (`setting_types.py`), a TOML file that cannot be read, or a
            `ValueError` from the dataclass's own `__post_init__`; an input at a URL that cannot be
            copied to this disk (`store_inputs.py`).
        SystemExit: code 0, after `--help`.
    """
    # Imported only when needed: a module that uses only InputError should not load them.
    import tyro

    from commands.setting_checks import flags_from_toml, refuse_excluded_values
    from commands.store_inputs import with_local_inputs

    words = list(sys.argv[1:] if argv is None else argv)
    settings = settings_of(config_class)
    toml_path, words = _take_config_flag(words)
    _refuse_unknown_flags(words, [setting.name for setting in settings])
    _refuse_valued_switches(words, settings)
    words = _join_lists(words, settings)
    if toml_path is not None:
        words = flags_from_toml(toml_path, config_class, given=_flag_names(words)) + words
    message = io.StringIO()
    # tyro wraps its errors at the terminal's width, even in the middle of long paths.
    width = None if {"-h", "--help"} & set(words) else "10000"
    try:
        with contextlib.redirect_stderr(message), _terminal_width(width):
            config = tyro.cli(
                config_class, prog=_command_name(config_class), args=words,
                config=(tyro.conf.OmitArgPrefixes,),
            )  # fmt: skip
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        line = _one_line(message.getvalue())
        # Errors of `__post_init__` begin with the name of a class or of a group.
        line = re.sub(r"^Error parsing (?!--)[^:]+: ", "", line)
        # Truncated, in case a long text was pasted by mistake.
        shown = line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."
        raise InputError(shown) from None
    refuse_excluded_values(config)
    return with_local_inputs(config)


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`, and end the process as a user expects.

    A user's mistake prints one line on stderr and exits with code 2; a system error (disk full,
    permission denied) prints one line and exits with 1; Ctrl-C and SIGTERM print one line and exit
    with 130 and 143. Where nobody reads the output any more, as in `... | head`, it prints nothing
    and exits with 141, as a program that SIGPIPE ends. Any other exception keeps its traceback and
    exits with 1.
    """
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot print ɛ must not end a command.
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        _end(f"error: {error}", 2)
    except (WriteError, PartnerEnded) as error:
        _end(f"error: {error}", 1)
    except BrokenPipeError:
        if not _drop_unread_output():
            raise  # another pipe: to a process that this one has started
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        _end(f"error: {describe_os_error(error)}", 1)
    except Terminated:
        _end("terminated", 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        _end("interrupted", 128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(line: str, code: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # where nobody reads it, the code still says it
        # An unfinished progress bar would stand before it, on the same line.
        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()
        print(" ".join(line.split("\n")), file=sys.stderr)
    _drop_unread_output()
    sys.exit(code)


def _open_closed_streams() -> None:
    """Write to nowhere where the shell has closed stdout or stderr (`>&-`), which are None then."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _drop_unread_output() -> bool:
    """Let stdout and stderr write to nowhere if they are pipes that nobody reads any more, so that
    Python's own flush at the end does not fail. Returns whether any is."""
    has_unread = False
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(io.UnsupportedOperation):  # a test's, without a file
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                has_unread = True
    return has_unread


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def config_as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON-ready values by the names of its settings, groups included: paths
    become strings, tuples become lists. What lies on a store is named by its URL."""
    values = values_of(config) | fixed_values_of(type(config))
    return {name: _jsonable(value) for name, value in values.items()}


def _jsonable(value: Any) -> Any:
    from commands.store_inputs import name_of

    if isinstance(value, Path | str):
        return name_of(str(value))
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    return value


def _command_name(config_class: type) -> str:
    """The command as it was started; its settings may be in another module of its package."""
    module = config_class.__module__
    spec = sys.modules["__main__"].__spec__
    if spec and module.partition(".")[0] in ("__main__", spec.name.partition(".")[0]):
        module = spec.name.removesuffix(".__main__")
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


def _refuse_valued_switches(words: Sequence[str], settings: Sequence[Setting]) -> None:
    """Raise InputError for `--resume=false`, whose value tyro would call a stray argument."""
    switches = {setting.flag for setting in settings if setting.type is bool}
    for word in words:
        flag = word.split("=", 1)[0].replace("_", "-")
        if "=" in word and flag.replace("--no-", "--", 1) in switches:
            name = flag.replace("--no-", "--", 1)
            raise InputError(f"{name} takes no value: {name}, or --no-{name.removeprefix('--')}")


def _join_lists(words: Sequence[str], settings: Sequence[Setting]) -> list[str]:
    """`--corpus a=x --corpus b=y` as `--corpus a=x b=y`: tyro would keep only the last."""
    names = _flag_names(words)
    repeated = {
        setting.name: [setting.flag]
        for setting in settings
        if setting.is_list and names.count(setting.name) > 1
    }
    kept: list[str] = []
    taking = kept
    for word in words:
        if name := _flag_names([word]):
            taking = repeated.get(name[0], kept)
        if taking is kept or not name:
            taking.append(word)
        elif "=" in word:
            taking.append(word.split("=", 1)[1])
    return kept + [word for joined in repeated.values() for word in joined]


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
    # The title is in the frame; without UTF-8 there is no frame, and a rule follows the title.
    plain = re.sub(r"\x1b\[[0-9;]*m|[│|]", "", box).replace("─", "-")
    texts = [line.strip() for line in plain.splitlines() if line.strip() and "╭" not in line]
    if "╭" not in box:
        texts = texts[2:]
    lines = list(itertools.takewhile(lambda text: set(text) != {"-"}, texts))
    return " ".join(lines) if lines else box.strip()
