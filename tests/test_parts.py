"""A corpus written in parts is the corpus written by one process, byte for byte."""

import contextlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import run
from parts import content, join, refuse_difference, write_part, write_parts

from commands.errors import InputError
from commands.json_files import read_json
from commands.run_folder import OutputFolder
from commands.workers import Part, read_part
from data_manifests.manifest import read_manifest, write_manifest
from pipeline import join_parts
from speech_head import states
from stage1_rvq import corpus_encoder, embed, tokenize_corpus
from stage1_rvq.config import RVQConfig
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    patch = pytest.MonkeyPatch()
    patch.setattr(corpus_encoder, "UTTERANCES_PER_SHARD", 2)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def embedding(head_world, tmp_path_factory):
    """The words that embed six recordings, one of which is unusable."""
    folder = tmp_path_factory.mktemp("manifest")
    rows = list(read_manifest(head_world / "train.jsonl"))
    gone = replace(rows[3], audio=str(folder / "gone.wav"))
    write_manifest(folder / "train.jsonl", [*rows[:3], gone, *rows[4:]])
    return (
        "--manifest", folder / "train.jsonl", "--gemma", head_world / "gemma", "--skip-bad-audio",
        "--device", "cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def embedded(embedding, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "embedded"
    run(embed.main, *embedding, "--out", out)
    return out


@pytest.fixture(scope="module")
def parts(embedding, tmp_path_factory):
    """A folder with both parts of two; copy it."""
    out = tmp_path_factory.mktemp("parts") / "embedded"
    write_parts(embed, embedding, out, 2)
    return out


def test_a_part_is_one_of_several():
    assert read_part("2/8") == Part(2, 8)
    assert [shard for shard in range(20) if Part(2, 8).has(shard)] == [1, 9, 17]
    shared = [shard for number in (1, 2, 3) for shard in range(10) if Part(number, 3).has(shard)]
    assert sorted(shared) == list(range(10))
    for text in ("0/2", "3/2", "2", "2/", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2"):
        with pytest.raises(ValueError, match="must be I/N"):
            read_part(text)


# Joined parts are the whole


@pytest.mark.parametrize("count", [1, 2, 5])  # there are three shards
def test_embeddings(embedding, embedded, count, tmp_path):
    out = tmp_path / "parts"
    write_parts(embed, embedding, out, count)
    assert sorted(path.name for path in out.iterdir()) == [
        f"part-{number}-of-{count}" for number in range(1, count + 1)
    ]
    assert join(out).splitlines()[-1] == str(out)
    refuse_difference(embedded, out)
    assert len(EmbeddingFolder(out).utterances) == 5
    facts, straight = read_json(out / "provenance.json"), read_json(embedded / "provenance.json")
    assert len(facts.pop("parts")) == count
    assert "--part" not in facts["command_line"]
    assert {**facts, "command_line": ""} == {**straight, "command_line": ""}


@pytest.mark.parametrize("source", ["manifest", "embeddings"])
def test_codes(head_world, embedding, embedded, source, tmp_path):
    rvq = SpeechRVQ(RVQConfig(dim=64, num_codebooks=2, codebook_size=16))
    folder = EmbeddingFolder(embedded)
    rvq.init_codebooks(torch.randn(400, 64), FrameMetric(folder.metric.frame_scale_D))
    rvq.save_pretrained(tmp_path / "rvq")
    words = embedding if source == "manifest" else ("--embeddings", embedded, "--device", "cpu")
    words = (*words, "--rvq", tmp_path / "rvq", "--jsonl")
    run(tokenize_corpus.main, *words, "--out", tmp_path / "whole")
    write_parts(tokenize_corpus, words, tmp_path / "parts", 2)
    join(tmp_path / "parts")
    refuse_difference(tmp_path / "whole", tmp_path / "parts")


def test_states(head_world, embedding, tmp_path):
    words = (
        *embedding, "--mimi", head_world / "mimi", "--recognizer", head_world / "recognizer",
    )  # fmt: skip
    run(states.main, *words, "--out", tmp_path / "whole")
    write_parts(states, words, tmp_path / "parts", 2)
    join(tmp_path / "parts")
    refuse_difference(tmp_path / "whole", tmp_path / "parts")


# A part by itself


def test_a_killed_part_is_continued(embedding, embedded, tmp_path):
    out = tmp_path / "parts"
    write_parts(embed, embedding, out, 2)
    for name in ("done", "shard_00002.jsonl"):
        (out / "part-1-of-2" / name).unlink()
    with pytest.raises(InputError, match=r"part-1-of-2 is unfinished .* run its command with"):
        join(out)
    with pytest.raises(InputError, match="is unfinished: --resume continues it"):
        write_part(embed, embedding, out, "1/2")
    write_part(embed, (*embedding, "--resume"), out, "1/2")
    join(out)
    refuse_difference(embedded, out)


def test_killed_while_joining(embedded, parts, tmp_path, monkeypatch):
    """At every file that is given to the whole, and at every folder that is removed."""
    link, remove = os.link, join_parts.remove
    num_done = num_killed = 0

    def kill_at(count, act):
        def act_or_die(*args):
            nonlocal num_done
            num_done += 1
            if num_done == count:
                raise KeyboardInterrupt
            return act(*args)

        return act_or_die

    for count in range(1, 40):
        out = shutil.copytree(parts, tmp_path / f"at-{count}")
        num_done = 0
        monkeypatch.setattr(os, "link", kill_at(count, link))
        monkeypatch.setattr(join_parts, "remove", kill_at(count, remove))
        try:
            join(out)
        except KeyboardInterrupt:
            num_killed += 1
            join(out)
        else:
            break
        refuse_difference(embedded, out)
    assert num_killed == 11 + 2  # files, three a shard, and folders


def test_files_are_copied_where_there_are_no_hard_links(embedded, parts, tmp_path, monkeypatch):
    out = shutil.copytree(parts, tmp_path / "parts")

    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    join(out)
    refuse_difference(embedded, out)


# What is refused


def test_parts_that_are_missing_or_too_many(parts, embedding, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        join(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no parts"):
        join(tmp_path / "empty")
    out = shutil.copytree(parts, tmp_path / "parts")
    shutil.rmtree(out / "part-2-of-2")
    with pytest.raises(InputError, match="of 2 parts, 2 is missing: run --part 2/2"):
        join(out)
    write_part(embed, embedding, out, "1/3")
    with pytest.raises(InputError, match="holds parts of 2 and parts of 3"):
        join(out)


def test_parts_that_do_not_belong_together(parts, embedding, tmp_path):
    out = shutil.copytree(parts, tmp_path / "settings")
    shutil.rmtree(out / "part-2-of-2")
    write_part(embed, (*embedding, "--batch-size", 3), out, "2/2")
    with pytest.raises(InputError, match="batch_size is 8 and 3"):
        join(out)
    manifest = shutil.copy(embedding[1], tmp_path / "train.jsonl")
    words = ("--manifest", manifest, *embedding[2:])
    out = tmp_path / "inputs"
    write_part(embed, words, out, "1/2")
    rows = list(read_manifest(manifest))
    write_manifest(manifest, rows[:-1])
    write_part(embed, words, out, "2/2")
    with pytest.raises(InputError, match="--manifest has changed in between"):
        join(out)
    out = shutil.copytree(parts, tmp_path / "files")
    facts = read_json(out / "part-2-of-2" / "done")
    facts["files"]["encoder.safetensors"] = facts["files"]["config.json"]
    shutil.copy(out / "part-2-of-2" / "config.json", out / "part-2-of-2" / "encoder.safetensors")
    (out / "part-2-of-2" / "done").write_text(str(facts).replace("'", '"'), encoding="utf-8")
    with pytest.raises(InputError, match=r"each has its own encoder.safetensors"):
        join(out)
    assert sorted(path.name for path in out.iterdir()) == ["part-1-of-2", "part-2-of-2"]


def test_a_part_of_an_older_version_knows_less_of_the_tower(parts, tmp_path):
    """It recorded a fingerprint of the last layer only: the first digits of today's."""
    changes = {"older": lambda tower: tower[:16], "other": lambda tower: tower[::-1]}
    for name, change in changes.items():
        out = shutil.copytree(parts, tmp_path / name)
        part = out / "part-2-of-2"
        facts = read_json(part / "provenance.json")
        assert len(facts["tower"]) == 32
        facts["tower"] = change(facts["tower"])
        (part / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
        (part / "done").unlink()
        OutputFolder(part, is_done=True).finish()
        refused = pytest.raises(InputError, match="tower is")
        with refused if name == "other" else contextlib.nullcontext():
            join(out)


def test_whole_and_parts_do_not_share_a_folder(embedding, embedded, parts, tmp_path):
    with pytest.raises(InputError, match="was begun without --part"):
        write_part(embed, embedding, embedded, "1/2")
    before = content(parts)
    with pytest.raises(InputError, match=r"holds parts .* pipeline\.join_parts"):
        run(embed.main, *embedding, "--out", parts)
    assert content(parts) == before
    with pytest.raises(InputError, match="choose one"):
        run(embed.main, *embedding, "--out", tmp_path / "x", "--part", "1/2", "--ray", "local")
    with pytest.raises(InputError, match="--part must be I/N"):
        run(embed.main, *embedding, "--out", tmp_path / "x", "--part", "3/2")
    assert not (tmp_path / "x").exists()
