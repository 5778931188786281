"""Settings: precedence, types, and errors on one line."""

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from commands.command_line import config_as_dict, parse_config, run_command
from commands.errors import InputError
from commands.setting_types import PositiveFloat

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class ExampleGroup:
    """Of its own."""

    learning_rate: PositiveFloat = 1e-3
    """peak learning rate"""
    weights: tuple[float, ...] = (1.0,)
    """weights"""
    fused: bool = False
    """fused"""
    decay: ClassVar[float] = 0.9


@dataclass(frozen=True, kw_only=True)
class ExampleConfig:
    """An example."""

    out: Path
    """new folder"""
    steps: int = 10
    """optimizer steps"""
    group: ExampleGroup = ExampleGroup(weights=(2.0,))
    """how it learns"""
    tables: tuple[str, ...] = ("validated",)
    """tables"""
    target: Literal["chain", "direct"] = "chain"
    """target"""
    json: bool = False
    """print JSON"""
    manifest: Path | None = None
    """manifest"""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"--steps must be positive, got {self.steps}")


def test_defaults_then_file_then_flags(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(
        'steps = 20\nlearning_rate = 0.5\njson = true\ntables = ["other", "validated"]\n'
    )
    config = parse_config(
        ExampleConfig, ["--out", "x", "--config", str(path), "--steps", "30", "--no-json"]
    )
    assert config == ExampleConfig(
        out=Path("x"), steps=30, group=ExampleGroup(learning_rate=0.5, weights=(2.0,)),
        tables=("other", "validated"), json=False,
    )  # fmt: skip


def test_a_list_may_be_given_in_several_flags():
    words = ["--out", "x", "--tables", "a", "b", "--weights=-1", "--tables=c=d", "--weights", "2"]
    config = parse_config(ExampleConfig, words)
    assert config.tables == ("a", "b", "c=d") and config.group.weights == (-1.0, 2.0)


def test_help_shows_a_group_under_its_title(capsys):
    with pytest.raises(SystemExit):
        parse_config(ExampleConfig, ["--help"])
    top, _, group = capsys.readouterr().out.partition(" group options ")
    assert "--steps" in top and "--fused" not in top
    assert "how it learns" in group and "--fused" in group and "--decay" not in group


def test_config_as_dict_is_flat_and_json_ready():
    assert config_as_dict(ExampleConfig(out=Path("a/b"))) == {
        "out": "a/b", "steps": 10, "learning_rate": 1e-3, "weights": [2.0], "fused": False,
        "decay": 0.9, "tables": ["validated"], "target": "chain", "json": False, "manifest": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "3"], "--out"),
        (["--out", "x", "--stps", "3"], "did you mean '--steps'"),
        (["--out", "x", "--steps", "many"], "--steps"),
        (["--out", "x", "--target", "chian"], "--target"),
        (["--out", "x", "--steps", "0"], "--steps must be positive, got 0"),
        (["--out", "x", "stray"], "stray"),
        (["--out", "x", "--learning-rat", "1"], "did you mean '--learning-rate'"),
        (["--out", "x", "--group.learning-rate", "1"], "did you mean '--learning-rate'"),
        (["--out", "x", "--decay", "1"], "unknown flag --decay"),
        (["--out", "x", "--learning-rate", "-1"], "--learning-rate must be greater than 0"),
        (["--out", "x", "--fused=false"], "--fused takes no value"),
        (["--out", "x", "--config"], "--config needs"),
        (["--out", "x", "--config", "absent.toml"], "absent.toml"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(InputError) as caught:
        parse_config(ExampleConfig, words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_messages_do_not_depend_on_the_terminal(encoding, monkeypatch):
    """tyro draws another frame where stdout is not UTF-8, and folds at the terminal's width."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(InputError) as caught:
        parse_config(ExampleConfig, ["--out", "x", "--steps", "0"])
    assert str(caught.value) == "--steps must be positive, got 0"
    assert os.environ["COLUMNS"] == "40"


def test_unknown_key_names_the_nearest(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("learning-rat = 1.0\n")
    with pytest.raises(InputError, match="did you mean 'learning_rate'"):
        parse_config(ExampleConfig, ["--out", "x", "--config", str(path)])


def test_broken_toml(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("steps = = 3\n")
    with pytest.raises(InputError, match="not valid TOML"):
        parse_config(ExampleConfig, ["--out", "x", "--config", str(path)])


@pytest.mark.parametrize(
    ("redirection", "code"),
    [("| true", 141), ("2>&1 | true", 141), (">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)],
)
def test_output_that_nobody_reads_ends_a_command_quietly(redirection, code):
    """As programs end that SIGPIPE ends; a closed stream is no pipe."""
    main = "(time.sleep(0.1), print('x' * 100_000))"
    assert shell_ends(f"lambda: {main}", redirection) == (code, "")


def test_a_wrong_input_keeps_its_code_where_nobody_reads_why():
    fails = "(time.sleep(0.1), (_ for _ in ()).throw(InputError('x')))"
    assert shell_ends(f"lambda: {fails}", "2>&1 | true") == (2, "")


def shell_ends(main, redirection):
    """Exit code, and what remains on stderr, of a command whose output goes somewhere."""
    program = (
        "import time; from commands.command_line import run_command; "
        f"from commands.errors import InputError; run_command({main})"
    )
    line = f'{sys.executable} -c "{program}" {redirection}; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    return ended.returncode, ended.stderr


def test_a_pipe_of_another_process_is_no_quiet_end():
    def broken() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_command(broken)


def test_run_command_maps_errors_to_exit_codes(capsys):
    def wrong_input() -> None:
        raise InputError("row 3 is wrong")

    with pytest.raises(SystemExit) as stopped:
        run_command(wrong_input)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: row 3 is wrong\n"

    def bug() -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        run_command(bug)
