"""Shards written by the actors of Ray are those that one process writes.

Skipped where Ray is not installed (`pip install '.[ray]'`); `python -m tests.ray_kills` kills its
actors, machines and drivers.
"""

import json
import pickle
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import run
from parts import content

from commands import ray_actors
from commands.errors import InputError
from commands.json_files import read_json
from commands.ray_actors import ShardActor
from commands.shard import Shard
from data_manifests.manifest import read_manifest, write_manifest
from stage1_rvq import corpus_encoder, embed


class NumberWriter:
    """Writes numbers; refuses a negative one."""

    def __init__(self, folder):
        self.facts = {"tower": "t"}
        (folder / "shared").write_text("same")

    def write(self, shard: Shard[int]) -> None:
        if min(shard.items) < 0:
            raise InputError(f"{min(shard.items)} is negative")
        shard.write_rows("skipped", [{"id": item} for item in shard.items if item > 9])
        shard.path.write_text(f"{shard.number}: {list(shard.items)}")


def call(actor, number, items):
    columns = {"number": [number], "name": [f"{number}.txt"], "items": [pickle.dumps(items)]}
    row = actor({name: np.array(value, dtype=object) for name, value in columns.items()})
    return int(row["num_items"][0]), json.loads(row["facts"][0]), row["error"][0]


def test_an_actor_writes_aside_and_moves_the_completing_file_last(tmp_path, monkeypatch):
    moved = []
    replace = ray_actors.os.replace

    def note(source, target):
        if target.parent == tmp_path:
            moved.append(target.name)
        replace(source, target)

    monkeypatch.setattr(ray_actors.os, "replace", note)
    actor = ShardActor(tmp_path, NumberWriter)
    assert call(actor, 3, [1, 12]) == (2, {"tower": "t"}, "")
    assert moved == ["shared", "skipped_00003.jsonl", "3.txt"]
    assert (tmp_path / "3.txt").read_text() == "3: [1, 12]"
    # Given again, by a Ray that did not hear that it was done: nothing is written.
    assert call(actor, 3, [1, 12])[2] == "" and len(moved) == 3
    # What is wrong with the input ends the command, and is not tried again.
    assert call(actor, 4, [-1]) == (1, {"tower": "t"}, "-1 is negative")
    assert not (tmp_path / "4.txt").exists()
    # A killed actor's folder is known as a leftover.
    assert actor.aside.suffix == ".tmp" and actor.aside.parent == tmp_path


def test_actors_with_different_models_are_noticed():
    ray_actors._refuse_other_models({}, {"tower": "a"})
    ray_actors._refuse_other_models({"tower": "a"}, {})
    with pytest.raises(InputError, match="different models: tower is a and b"):
        ray_actors._refuse_other_models({"tower": "a"}, {"tower": "b"})


@pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed")
def test_embeddings_by_ray_are_those_of_one_process(head_world, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_encoder, "UTTERANCES_PER_SHARD", 2)
    rows = list(read_manifest(head_world / "train.jsonl"))
    write_manifest(tmp_path / "train.jsonl", rows)
    words = (
        "--manifest", tmp_path / "train.jsonl", "--gemma", head_world / "gemma", "--device", "cpu",
    )  # fmt: skip
    run(embed.main, *words, "--out", tmp_path / "whole")
    run(embed.main, *words, "--out", tmp_path / "ray", "--ray", "local", "--ray-actors", 1)
    expected, found = content(tmp_path / "whole"), content(tmp_path / "ray")
    assert expected.keys() == found.keys()
    different = [name for name in expected if expected[name] != found[name]]
    assert different == ["config.json"]
    facts = read_json(tmp_path / "ray" / "provenance.json")
    assert facts["ray"]["actors"] == 1 and len(facts["ray"]["machines"]) == 1
    with pytest.raises(InputError, match="no cluster there"):
        run(embed.main, *words, "--out", tmp_path / "x", "--ray", "127.0.0.1:1")


def test_without_ray(head_world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ("--manifest", head_world / "train.jsonl", "--gemma", head_world / "gemma")
    with pytest.raises(InputError, match=r"--ray needs Ray: pip install '\.\[ray\]'"):
        run(embed.main, *words, "--out", tmp_path / "x", "--ray", "local")
    assert not (tmp_path / "x").exists()
