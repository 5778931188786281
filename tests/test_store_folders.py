"""Folders on object stores: what is read is copied, what is written is what a disk would hold."""

import contextlib
import json
import pickle
import shutil
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import run
from parts import content, join, write_part, write_parts
from store_world import in_memory

from commands import store_folders, store_inputs, stores
from commands.cache_folder import FOLDER_VARIABLE
from commands.command_line import parse_config
from commands.errors import InputError
from commands.finished_folder import refuse_unfinished
from commands.json_files import read_json
from commands.ray_actors import ShardActor
from commands.run_folder import run_folder
from commands.setting_types import ModelName, StorePath
from commands.shard import Shard
from commands.shards import join_rows, split_into_shards, write_shards
from commands.store_inputs import fetch_input
from commands.stores import delete, exists, list_objects, put, read_object
from commands.workers import WorkerSettings
from data_manifests import build
from data_manifests.manifest import read_manifest, write_manifest
from stage1_rvq import corpus_encoder, embed, tokenize_corpus
from stage1_rvq import train as train_rvq
from stage1_rvq.config import RVQConfig
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where copies of this test go."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(store_inputs, "_fetched", {})
    return tmp_path / "cache"


def put_folder(folder, url):
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        put(file, Path(url, file.relative_to(folder)))


def download(url, folder):
    """What a store holds, as a new folder."""
    for name, facts in list_objects(Path(url)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(read_object(Path(url, name), size=facts.num_bytes))
    return folder


def refuse_other_content(whole, url, folder):
    """Fail unless a store holds what a folder holds, but for how they are named."""
    expected, found = content(whole), content(download(url, folder))
    for of_one, name in ((expected, str(whole)), (found, url)):
        of_one["config.json"] = of_one["config.json"].replace(name.encode(), b"OUT")
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    refuse_unfinished(folder, flag="--out")


# ---- inputs


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """Read things."""

    out: Path = Path("out")
    """folder"""
    folder: Path | None = None
    """a folder"""
    model: ModelName = "google/some-model"
    """a model"""
    manifest: StorePath | None = None
    """a manifest"""
    many: tuple[Path, ...] = ()
    """several"""
    words: str = ""
    """no path"""


def test_inputs_are_copied_and_kept_up_to_date(store, tmp_path, cache):
    for name, text in (("a/x.json", "one"), ("b.txt", "two"), ("a/c/d.txt", "three")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(text)
    put_folder(tmp_path / "in", f"{store}/in")
    local = fetch_input(Path(store, "in"))
    assert content(local) == content(tmp_path / "in") and local.is_relative_to(cache)
    with patch.object(stores, "get", side_effect=AssertionError):
        assert fetch_input(Path(store, "in")) == local
    (tmp_path / "in" / "b.txt").write_text("2nd")
    put(tmp_path / "in" / "b.txt", Path(store, "in", "b.txt"))
    delete(Path(store, "in", "a", "x.json"))
    (local / "a" / "c" / "d.txt").write_text("damaged!")
    fetch_input(Path(store, "in"))
    assert content(local) == {"b.txt": b"2nd", "a/c/d.txt": b"three"}
    assert fetch_input(Path(store, "in", "b.txt")).read_bytes() == b"2nd"
    with pytest.raises(InputError, match=r"--rvq \S+/none: there is nothing of this name on the s"):
        fetch_input(Path(store, "none"), flag="--rvq")


def test_settings_that_are_urls(store, tmp_path):
    (tmp_path / "x.txt").write_text("x")
    put(tmp_path / "x.txt", Path(store, "x.txt"))
    url = f"{store}/x.txt"
    words = ["--folder", url, "--model", url, "--manifest", url, "--many", url, "y", "--words", url]
    config = parse_config(ReadConfig, words)
    local = fetch_input(Path(url))
    assert (config.folder, config.model, config.words) == (local, str(local), url)
    assert (config.manifest, config.many) == (Path(url), (local, Path("y")))
    # What is recorded is what was named, on whatever machine.
    with pytest.raises(InputError, match="test_store_folders writes to a disk only"):
        run_folder(Path(store, "o"), config, "test_store_folders").__enter__()
    with run_folder(tmp_path / "o", config, "c", inputs=("folder", "model", "manifest")) as output:
        settings = read_json(output.path / "config.json")
        inputs = read_json(output.path / "provenance.json")["inputs"]
    assert [settings[name] for name in ("folder", "model", "manifest")] == [url] * 3
    assert settings["many"] == [url, "y"]
    assert len({json.dumps(facts) for facts in inputs.values()}) == 1
    assert inputs["folder"]["path"] == url and len(inputs["folder"]["sha256"]) == 64
    with pytest.raises(InputError, match=rf"--folder {store}/no: there is nothing of this name"):
        parse_config(ReadConfig, ["--folder", f"{store}/no"])
    with pytest.raises(InputError, match=rf"--out {store}/no: this command writes to a disk only"):
        parse_config(ReadConfig, ["--out", f"{store}/no"])


def test_commands_that_write_to_a_disk_say_so(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command, words in (
        (build, ("--corpus", "common_voice=tw")),
        (train_rvq, ("--embeddings", "embeddings")),
    ):
        with pytest.raises(InputError, match="this command writes to a disk only"):
            run(command.main, *words, "--out", store)
    assert not list(tmp_path.iterdir()) and not list_objects(Path(store))


# ---- outputs


@dataclass(frozen=True, kw_only=True)
class NumbersConfig:
    """Write numbers."""

    out: StorePath
    """folder"""
    factor: int = 2
    """what numbers are multiplied by"""
    resume: bool = False
    """continue"""
    workers: WorkerSettings = WorkerSettings()


class NumberWriter:
    """Writes numbers in two files a shard, and lists some of them."""

    def __init__(self, config, folder):
        self.config = config
        self.facts = {"tower": "t"}
        (folder / "shared.json").write_text("same")

    def write(self, shard: Shard[int]) -> None:
        if min(shard.items) < 0:
            raise InputError(f"{min(shard.items)} is negative")
        shard.write_rows("skipped", [{"id": item} for item in shard.items if item % 2 == 0])
        shard.path.with_suffix(".parquet").write_text(f"large {shard.items}")
        shard.path.write_text(str([self.config.factor * item for item in shard.items]))


def write_numbers(numbers, *words):
    config = parse_config(NumbersConfig, [str(word) for word in words])
    with run_folder(config.out, config, "numbers") as output:
        if output.is_done:
            return
        write_shards(
            output, split_into_shards(numbers, 3), "shard_{:05d}.jsonl",
            partial(NumberWriter, config), config.workers, description="write", unit="numbers",
        )  # fmt: skip
        if not config.workers.part:
            output.record(num_skipped=join_rows(output.path, "skipped"))


NUMBERS = [1, 2, 3, 4, 5]


def test_what_is_written_is_what_a_disk_would_hold(store, tmp_path, cache, capsys):
    write_numbers(NUMBERS, "--out", tmp_path / "whole")
    write_numbers(NUMBERS, "--out", store)
    assert capsys.readouterr().out.splitlines()[-1] == store
    refuse_other_content(tmp_path / "whole", store, tmp_path / "found")
    assert not list((cache / "outputs").iterdir())
    with pytest.raises(InputError, match=rf"--out {store} exists already and is finished: name"):
        write_numbers(NUMBERS, "--out", store)
    write_numbers(NUMBERS, "--out", store, "--resume")
    with pytest.raises(InputError, match=rf"--resume {store}: made with factor = 2, now 3"):
        write_numbers(NUMBERS, "--out", store, "--resume", "--factor", 3)


class Killed(KeyboardInterrupt):
    """As Ctrl-C, or a machine that is taken away."""


@contextlib.contextmanager
def killed_at(count):
    """The process dies instead of its `count`-th put or deletion."""
    num_done = 0

    def kill(act, *args):
        nonlocal num_done
        num_done += 1
        if num_done == count:
            raise Killed
        act(*args)

    with (
        patch.object(store_folders, "put", partial(kill, store_folders.put)),
        patch.object(store_folders, "delete", partial(kill, store_folders.delete)),
    ):
        yield


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_killed_at_any_put_and_resumed(where, tmp_path, cache):
    """On the machine that was killed, or on one that knows only what the store holds."""
    write_numbers(NUMBERS, "--out", tmp_path / "whole")
    for count in range(1, 100):
        store = in_memory()
        try:
            with killed_at(count):
                write_numbers(NUMBERS, "--out", store)
        except Killed:
            pass
        else:
            break
        there = set(list_objects(Path(store)))
        assert "done" not in there
        for name in there:  # a shard that is there is complete
            if name.startswith("shard_") and name.endswith(".jsonl"):
                assert name.replace(".jsonl", ".parquet") in there
        if where == "elsewhere":
            shutil.rmtree(cache)
        begun = "config.json" in there
        if begun:
            with pytest.raises(InputError, match=rf"{store} exists .* --resume continues it"):
                write_numbers(NUMBERS, "--out", store)
        write_numbers(NUMBERS, "--out", store, *(["--resume"] if begun else []))
        refuse_other_content(tmp_path / "whole", store, tmp_path / f"found-{count}")
    assert count > 15


def test_what_another_run_left_on_this_disk_does_not_count(tmp_path, cache):
    """The folder on the store was removed, and begun again with other settings."""
    store = in_memory()
    with pytest.raises(Killed), killed_at(9):
        write_numbers(NUMBERS, "--out", store)
    left = download(store, tmp_path / "left")
    for name in list_objects(Path(store)):
        delete(Path(store, name))
    write_numbers(NUMBERS, "--out", store, "--factor", 5)
    write_numbers(NUMBERS, "--out", tmp_path / "whole", "--factor", 5)
    assert (left / "shard_00000.jsonl").read_text() != "[5, 10, 15]"
    refuse_other_content(tmp_path / "whole", store, tmp_path / "found")


def test_a_mistake_leaves_nothing_behind_and_loses_nothing(store, cache):
    with pytest.raises(InputError, match="-1 is negative"):
        write_numbers([-1], "--out", store)
    assert list_objects(Path(store)).keys() == {"config.json", "provenance.json", "shared.json"}
    with pytest.raises(InputError, match="-1 is negative"):
        write_numbers([1, 2, 3, -1], "--out", f"{store}/other")
    assert exists(Path(store, "other", "shard_00000.jsonl"))
    config = NumbersConfig(out=Path(store, "third"))
    with pytest.raises(InputError, match="no"), run_folder(config.out, config, "numbers"):
        raise InputError("no")
    assert not list_objects(Path(store, "third"))


def test_what_lies_there_already_is_not_touched(store, tmp_path):
    (tmp_path / "x").write_text("mine")
    put(tmp_path / "x", Path(store, "notes", "x"))
    with pytest.raises(InputError, match=rf"--out {store} exists already and was not made by this"):
        write_numbers(NUMBERS, "--out", store)
    assert list_objects(Path(store)).keys() == {"notes/x"}


def test_an_actor_puts_the_completing_file_last(store, tmp_path, monkeypatch):
    config = NumbersConfig(out=Path(store))
    (tmp_path / "model").write_text("m")
    put(tmp_path / "model", Path(store, "model"))
    actor = ShardActor(Path(store), partial(NumberWriter, config), [f"{store}/model"])
    moved = []
    from commands import ray_actors

    monkeypatch.setattr(
        ray_actors, "put", lambda path, target: moved.append(target.name) or put(path, target)
    )

    def call(number, items):
        columns = {
            "number": [number], "name": [f"{number}.jsonl"], "items": [pickle.dumps(items)],
        }  # fmt: skip
        row = actor({name: np.array(value, dtype=object) for name, value in columns.items()})
        return row["error"][0]

    assert call(3, [1, 8]) == ""
    assert sorted(moved[:-1]) == ["3.parquet", "shared.json", "skipped_00003.jsonl"]
    assert moved[-1] == "3.jsonl"
    assert read_object(Path(store, "3.jsonl"), size=99) == b"[2, 16]"
    assert call(3, [1, 8]) == "" and len(moved) == 4
    assert not list(actor.aside.iterdir())
    shutil.rmtree(actor.aside)
    assert store_inputs.fetched_inputs().keys() == {f"{store}/model"}


def test_a_driver_takes_over_what_actors_have_put(tmp_path):
    """As `write_with_actors` does at the end."""
    store = in_memory()
    config = NumbersConfig(out=Path(store))
    write_numbers(NUMBERS, "--out", tmp_path / "whole")
    with run_folder(config.out, config, "numbers") as output:
        for name in content(tmp_path / "whole").keys() - {"config.json"}:
            put(tmp_path / "whole" / name, output.place / name)
        output.store.fetch_missing()
    refuse_other_content(tmp_path / "whole", store, tmp_path / "found")


# ---- real commands


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    patch = pytest.MonkeyPatch()
    patch.setattr(corpus_encoder, "UTTERANCES_PER_SHARD", 2)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def embedding(head_world, tmp_path_factory):
    """The words that embed six recordings, one of which is unusable; all of them on a store."""
    store = in_memory()
    folder = tmp_path_factory.mktemp("manifest")
    rows = list(read_manifest(head_world / "train.jsonl"))[:6]
    for row in rows:
        put(Path(row.audio), Path(store, "clips", Path(row.audio).name))
    rows = [replace(row, audio=f"clips/{Path(row.audio).name}") for row in rows]
    rows[3] = replace(rows[3], audio="clips/gone.wav")
    write_manifest(folder / "train.jsonl", rows)
    put(folder / "train.jsonl", Path(store, "train.jsonl"))
    put_folder(head_world / "gemma", f"{store}/gemma")
    return (
        "--manifest", f"{store}/train.jsonl", "--gemma", f"{store}/gemma", "--skip-bad-audio",
        "--device", "cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def embedded(embedding, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "embedded"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(out.parent))
        run(embed.main, *embedding, "--out", out)
    return out


def test_embeddings_and_codes_through_a_store(embedding, embedded, tmp_path):
    store = in_memory()
    with patch.object(sys, "argv", ["embed", *map(str, embedding), "--out", f"{store}/embedded"]):
        assert run(embed.main, *embedding, "--out", f"{store}/embedded") == f"{store}/embedded\n"
    refuse_other_content(embedded, f"{store}/embedded", tmp_path / "found")
    facts = read_json(tmp_path / "found" / "provenance.json")["inputs"]
    assert facts["manifest"]["path"] == embedding[1] and len(facts["manifest"]["sha256"]) == 64
    folder = EmbeddingFolder(embedded)
    rvq = SpeechRVQ(RVQConfig(dim=64, num_codebooks=2, codebook_size=16))
    rvq.init_codebooks(torch.randn(400, 64), FrameMetric(folder.metric.frame_scale_D))
    rvq.save_pretrained(tmp_path / "rvq")
    put_folder(tmp_path / "rvq", f"{store}/rvq")
    words = ("--device", "cpu", "--jsonl", "--rvq", f"{store}/rvq")
    words = (*words, "--embeddings", f"{store}/embedded")
    run(tokenize_corpus.main, *words, "--out", tmp_path / "codes")
    run(tokenize_corpus.main, *words, "--out", f"{store}/codes")
    refuse_other_content(tmp_path / "codes", f"{store}/codes", tmp_path / "found-codes")


def test_parts_are_joined_on_a_store(embedding, embedded, tmp_path, cache):
    store = in_memory()
    write_parts(embed, embedding, store, 2)
    names = {name.partition("/")[0] for name in list_objects(Path(store))}
    assert names == {"part-1-of-2", "part-2-of-2"}
    with pytest.raises(InputError, match=rf"--out {store} holds parts of 1 to 2: python -m pipeli"):
        run(embed.main, *embedding, "--out", store)
    delete(Path(store, "part-1-of-2", "done"))
    with pytest.raises(InputError, match=rf"--out {store}/part-1-of-2 is unfinished"):
        join(store)
    shutil.rmtree(cache)
    write_part(embed, (*embedding, "--resume"), store, "1/2")
    with pytest.raises(Killed), killed_at(4):
        join(store)
    assert join(store).splitlines()[-1] == store
    refuse_other_content(embedded, store, tmp_path / "found")
    with pytest.raises(InputError, match=rf"--part 1/2: --out {store} was begun without --part"):
        write_part(embed, embedding, store, "1/2")
    with pytest.raises(InputError, match="no such folder"):
        join(in_memory())
