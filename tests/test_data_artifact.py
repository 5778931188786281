"""Output folders: refused when they exist or are unfinished, resumed only with the same
settings."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

from commands import overwriting
from commands.atomic_write import written_aside
from commands.errors import InputError
from commands.fingerprints import fingerprint, sha256_of_file
from commands.finished_folder import list_files, open_input
from commands.run_folder import run_folder


@dataclass(frozen=True)
class ExampleConfig:
    out: Path
    steps: int = 1
    resume: bool = False


@dataclass(frozen=True)
class OverwritingConfig:
    out: Path
    source: Path | None = None
    overwrite: bool = False


COMMAND = "stage1_rvq.train"


class Killed(Exception):
    """Ends a command before it has finished its folder."""


def write(out, *, killed=False, config=None, resume=False, steps=1, **files):
    """What a command does: write files into its folder; returns the folder."""
    config = config or ExampleConfig(out, steps=steps, resume=resume)
    with contextlib.suppress(Killed), run_folder(out, config, COMMAND) as output:
        if output.is_done:
            return out
        for name, content in files.items():
            (out / name).write_text(content)
        if killed:
            raise Killed
    return out


def overwrite(out, **files):
    return write(out, config=OverwritingConfig(out, overwrite=True), **files)


def test_life_of_a_folder(tmp_path, capsys):
    out = tmp_path / "run"
    write(out, killed=True)
    with pytest.raises(InputError, match=r"unfinished .* --resume"):
        open_input(out, made_by=COMMAND, flag="--rvq")
    with pytest.raises(InputError, match="--resume continues it"):
        write(out)
    assert capsys.readouterr().out == ""
    with run_folder(out, ExampleConfig(out, resume=True), COMMAND) as output:
        assert not output.is_done
        output.record(device="cpu")
        (out / "result.txt").write_text("x")
    assert capsys.readouterr().out == f"{out}\n"
    assert open_input(out, made_by=COMMAND, flag="--rvq")["steps"] == 1
    with run_folder(out, ExampleConfig(out, resume=True), COMMAND) as output:
        assert output.is_done
    assert capsys.readouterr().out == f"{out}\n"
    with pytest.raises(InputError, match="is finished: name a new folder"):
        write(out)
    done = json.loads((out / "done").read_text())
    assert done["files"]["result.txt"] == {
        "bytes": 1,
        "sha256": sha256_of_file(out / "result.txt"),
    }
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["device"] == "cpu" and provenance["packages"]["torch"]


def test_resume_with_other_settings_is_refused(tmp_path):
    write(tmp_path / "run", steps=1, killed=True)
    with pytest.raises(InputError, match="made with steps = 1, now 2"):
        write(tmp_path / "run", steps=2, resume=True)


def test_a_mistake_leaves_no_folder_unless_something_was_made(tmp_path):
    for name, made in (("empty", {}), ("begun", {"shard_0": "x"})):
        out = tmp_path / name
        with (
            pytest.raises(InputError, match="no usable row"),
            run_folder(out, ExampleConfig(out), COMMAND),
        ):
            for file, content in made.items():
                (out / file).write_text(content)
            raise InputError("no usable row")
        assert out.exists() == bool(made)
    assert not (tmp_path / "begun" / "done").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_overwrite_writes_a_folder_again_and_leaves_nothing_of_before(tmp_path, killed):
    out = overwrite(tmp_path / "run", killed=killed, old="1", both="1")
    (out / "folder").mkdir()
    (out / "folder" / "file").write_text("1")
    with pytest.raises(InputError, match="--overwrite writes it again; or name a new folder"):
        write(out, config=OverwritingConfig(out))
    overwrite(out, both="2", new="2")
    assert {path.name for path in out.iterdir()} == {
        "both", "new", "config.json", "provenance.json", "done",
    }  # fmt: skip
    assert (out / "both").read_text() == "2"
    open_input(out, made_by=COMMAND, flag="--rvq")


@pytest.mark.parametrize("error", [InputError("no usable row"), KeyboardInterrupt()])
@pytest.mark.parametrize("made", [(), ("both", "new")])
def test_a_folder_is_what_it_was_if_overwriting_fails(tmp_path, error, made):
    out = overwrite(tmp_path / "run", old="1", both="1")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with (
        pytest.raises(type(error)),
        run_folder(out, OverwritingConfig(out, overwrite=True), COMMAND),
    ):
        for name in made:
            (out / name).write_text("2")
        raise error
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    open_input(out, made_by=COMMAND, flag="--rvq")


def test_a_folder_is_put_back_wherever_overwriting_was_killed(tmp_path, monkeypatch):
    """Killed before every renaming and removal, first of setting aside, then of putting back."""
    change = {"left": 0}

    def killed_at(number, act, out):
        change["left"] = number
        with contextlib.suppress(Killed), monkeypatch.context() as patch:
            for owner, name in ((Path, "rename"), (Path, "rmdir"), (overwriting, "remove")):
                patch.setattr(owner, name, counted(getattr(owner, name)))
            act(out)
            return False
        return True

    def counted(original):
        def change_something(*arguments):
            if change["left"] == 0:
                raise Killed
            change["left"] -= 1
            return original(*arguments)

        return change_something

    def write_new(out):
        overwriting.set_aside(out)
        for name in ("provenance.json", "both", "new"):
            (out / name).write_text("2")

    def write_new_and_fail(out):
        write_new(out)
        overwriting.put_back(out)

    old = {"done": "1", "provenance.json": "1", "both": "1", "old": "1"}
    for number in range(20):
        out = tmp_path / str(number)
        out.mkdir()
        for name, content in old.items():
            (out / name).write_text(content)
        was_killed = killed_at(number, write_new_and_fail, out)
        if was_killed:
            killed_at(1, overwriting.put_back, out)
        overwriting.put_back(out)
        assert {path.name: path.read_text() for path in out.iterdir()} == old, number
    assert not was_killed


def test_overwrite_deletes_nothing_that_it_did_not_write(tmp_path):
    """A folder of another command, of no command, or one that holds an input."""
    foreign = tmp_path / "foreign"
    with run_folder(foreign, ExampleConfig(foreign), "stage1_rvq.embed"):
        (foreign / "shard").write_text("x")
    with pytest.raises(InputError, match=r"was made by stage1_rvq\.embed"):
        overwrite(foreign)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="was not made by this command"):
        overwrite(notes)
    out = overwrite(tmp_path / "run", manifest="x")
    config = OverwritingConfig(out, source=out / "manifest", overwrite=True)
    with pytest.raises(InputError, match=r"--overwrite would delete .*manifest, which --source"):
        write(out, config=config)
    for kept in (foreign / "shard", notes / "mine.txt", out / "manifest"):
        assert kept.read_text() == "x"


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="was not made by this command"):
        write(tmp_path)
    with pytest.raises(InputError, match=r"was not written by python -m stage1_rvq\.train"):
        open_input(tmp_path, made_by=COMMAND, flag="--rvq")
    with pytest.raises(InputError, match="no such folder"):
        open_input(tmp_path / "absent", made_by=COMMAND, flag="--rvq")


def test_a_folder_of_another_command_is_refused(tmp_path):
    write(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"written by stage1_rvq.train, expected .* stage1_rvq.embed"
    ):
        open_input(tmp_path / "run", made_by="stage1_rvq.embed", flag="--embeddings")


def test_only_the_first_process_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with run_folder(tmp_path / "run", ExampleConfig(tmp_path / "run"), COMMAND) as output:
        output.record(device="cpu")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_fingerprints_follow_the_content(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"1")
    before = fingerprint(folder)
    assert before == fingerprint(folder)
    (folder / "weights").write_bytes(b"2")
    assert before != fingerprint(folder)
    assert fingerprint(folder / "weights") == {"sha256": sha256_of_file(folder / "weights")}
    assert fingerprint("google/gemma-4-E4B-it") == {}


def test_a_folder_that_is_not_what_was_written_is_refused(tmp_path):
    run = write(tmp_path / "run", weights="0123", index="x")
    for spoil, message in (
        (lambda: (run / "weights").write_text("0124"), "weights is not what was written"),
        (lambda: (run / "weights").write_text("012"), "weights is not what was written"),
        (lambda: (run / "weights").unlink(), "weights, which 'done' lists, is gone"),
        (lambda: (run / "done").write_text('{"files": '), "done: not valid JSON"),
        (lambda: (run / "done").write_text('{"files": {"x": 1}}'), "done: 'files.x' must be"),
    ):
        (run / "weights").write_text("0123")
        spoil()
        with pytest.raises(InputError, match=message) as caught:
            open_input(run, made_by="stage1_rvq.train", flag="--rvq")
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match=message):
            write(run, resume=True)


def test_notes_may_lie_in_a_folder_but_no_file_that_would_be_read(tmp_path):
    run = write(tmp_path / "run", shard_0="0", shard_1="1")
    (run / "notes.txt").write_text("mine")
    open_input(run, made_by="stage1_rvq.train", flag="--rvq")
    names = [path.name for path in list_files(run, "shard_*", flag="--rvq")]
    assert names == ["shard_0", "shard_1"]
    (run / "shard_2").write_text("another run's")
    with pytest.raises(InputError, match="shard_2 was not written with the rest"):
        list_files(run, "shard_*", flag="--rvq")
    with pytest.raises(InputError, match=r"no codes_\* in it"):
        list_files(run, "codes_*", flag="--rvq")


@pytest.mark.parametrize("left", [(), ("provenance.json",), ("provenance.json.tmp",)])
def test_a_folder_killed_before_it_had_its_settings_is_begun_again(tmp_path, left):
    out = tmp_path / "run"
    out.mkdir()
    for name in left:
        (out / name).write_text("{")
    write(out, resume=True)
    assert json.loads((out / "config.json").read_text())["steps"] == 1
    assert json.loads((out / "provenance.json").read_text())["command"] == "stage1_rvq.train"


def test_two_commands_do_not_write_to_one_folder(tmp_path):
    out = write(tmp_path / "run", killed=True)
    code = f"""
from test_data_artifact import write
from commands.errors import InputError
try:
    write(__import__("pathlib").Path({str(out)!r}), resume=True)
except InputError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with run_folder(out, ExampleConfig(out, resume=True), COMMAND):
        second = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
        )
    assert second.stdout == f"--out {out}: another command is writing to it now\n", second.stderr
    assert (out / "done").exists()


def test_another_machine_is_told_and_recorded(tmp_path, capsys):
    out = tmp_path / "run"

    def run(*, resume=True, **facts):
        with (
            contextlib.suppress(Killed),
            run_folder(out, ExampleConfig(out, resume=resume), COMMAND) as output,
        ):
            output.record(device="cpu", cpu="old, AVX2", **facts)
            raise Killed

    run(resume=False, num_threads=1, num_utterances=2)
    run(num_threads=1)
    assert capsys.readouterr().err == ""
    run(num_threads=2)
    assert capsys.readouterr().err == (
        "resumed under other conditions (num_threads 1 then, 2 now): the last digits may differ\n"
    )
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["num_threads"] == 1 and provenance["num_utterances"] == 2
    assert provenance["resumed_on"] == [{"device": "cpu", "cpu": "old, AVX2", "num_threads": 2}]


def test_an_out_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/no/such")):
        with pytest.raises(InputError, match="--out") as caught:
            write(out)
        assert "\n" not in str(caught.value)


def test_what_is_written_aside_is_whole_or_not_there(tmp_path):
    path = tmp_path / "result"
    path.write_text("before")
    with pytest.raises(KeyError), written_aside(path) as aside:
        aside.write_text("half")
        raise KeyError
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["result"]
    with written_aside(path) as aside:
        aside.write_text("after")
    assert path.read_text() == "after" and os.listdir(tmp_path) == ["result"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("mine")
    with pytest.raises(IsADirectoryError), written_aside(tmp_path / "folder") as aside:
        aside.write_text("a file in place of a folder")
    assert (tmp_path / "folder" / "precious").read_text() == "mine"
