"""Output folders: refused when they exist or are unfinished, resumed only with the same
settings."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_manifests.artifact import create_output, fingerprint, open_input, sha256_of_file
from data_manifests.errors import InputError


@dataclass(frozen=True)
class ExampleConfig:
    out: Path
    steps: int = 1
    resume: bool = False


def create(out, *, resume=False, **settings):
    config = ExampleConfig(out, **settings, resume=resume)
    return create_output(out, config, command="stage1_rvq.train", inputs={}, resume=resume)


def test_life_of_a_folder(tmp_path):
    out = tmp_path / "run"
    output = create(out)
    assert not output.is_done
    with pytest.raises(InputError, match="unfinished"):
        open_input(out, made_by="stage1_rvq.train", flag="--rvq")
    with pytest.raises(InputError, match="--resume continues it"):
        create(out)
    assert not create(out, resume=True).is_done
    output.record(device="cpu")
    (out / "result.txt").write_text("x")
    output.finish()
    assert open_input(out, made_by="stage1_rvq.train", flag="--rvq")["steps"] == 1
    assert create(out, resume=True).is_done
    with pytest.raises(InputError, match="is finished"):
        create(out)
    done = json.loads((out / "done").read_text())
    assert done["files"]["result.txt"] == {
        "bytes": 1,
        "sha256": sha256_of_file(out / "result.txt"),
    }
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["device"] == "cpu" and provenance["packages"]["torch"]


def test_resume_with_other_settings_is_refused(tmp_path):
    create(tmp_path / "run", steps=1)
    with pytest.raises(InputError, match="made with steps = 1, now 2"):
        create(tmp_path / "run", steps=2, resume=True)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="was not made by this command"):
        create(tmp_path)
    with pytest.raises(InputError, match=r"was not written by python -m stage1_rvq\.train"):
        open_input(tmp_path, made_by="stage1_rvq.train", flag="--rvq")
    with pytest.raises(InputError, match="no such folder"):
        open_input(tmp_path / "absent", made_by="stage1_rvq.train", flag="--rvq")


def test_a_folder_of_another_command_is_refused(tmp_path):
    create(tmp_path / "run").finish()
    with pytest.raises(
        InputError, match=r"written by stage1_rvq.train, expected .* stage1_rvq.embed"
    ):
        open_input(tmp_path / "run", made_by="stage1_rvq.embed", flag="--embeddings")


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    output = create(tmp_path / "run")
    output.record(device="cpu")
    output.finish()
    assert not (tmp_path / "run").exists()


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
