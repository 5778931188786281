"""A manifest that is checked in parts is reported and cleaned as if one process had checked it."""

import shutil
from dataclasses import replace

import pytest
from conftest import run

from commands.errors import InputError
from data_manifests import check, examinations
from data_manifests.manifest import read_manifest, write_manifest


@pytest.fixture
def few_rows(monkeypatch):
    """Shards of so few rows that a small manifest has several."""
    monkeypatch.setattr(examinations, "ROWS_PER_SHARD", 3)


def write_part(manifest, out, part, *more):
    run(check.main, "--manifest", manifest, "--out", out, "--part", part, *more)


@pytest.mark.parametrize("flags", [(), ("--no-decode",)])
def test_parts_are_checked_as_the_whole(corpus, few_rows, tmp_path, flags):
    rows = list(read_manifest(corpus / "train.jsonl"))[:10]
    rows[4] = replace(rows[4], audio=str(tmp_path / "gone.wav"))
    rows[7] = replace(rows[7], audio=rows[1].audio, duration_s=rows[1].duration_s)
    manifest = tmp_path / "train.jsonl"
    write_manifest(manifest, rows)
    printed = run(check.main, "--manifest", manifest, "--fix", "--out", tmp_path / "whole", *flags)
    for number in (3, 1, 2):
        write_part(manifest, tmp_path / "examined", f"{number}/3", *flags)
    words = ("--manifest", manifest, "--examined", tmp_path / "examined", "--fix", *flags)
    joined = run(check.main, *words, "--out", tmp_path / "joined")
    assert joined == printed.replace(str(tmp_path / "whole"), str(tmp_path / "joined"))
    for name in ("train.jsonl", "removed.jsonl", "report.json"):
        whole, found = ((tmp_path / way / name).read_bytes() for way in ("whole", "joined"))
        assert found == whole


def test_parts_of_a_check_that_are_not_those_of_the_manifest(corpus, few_rows, tmp_path):
    manifest = shutil.copy(corpus / "test.jsonl", tmp_path / "test.jsonl")
    rows = list(read_manifest(corpus / "test.jsonl"))
    write_manifest(manifest, rows)
    words = ("--manifest", manifest, "--examined", tmp_path / "examined")
    with pytest.raises(InputError, match=r"--examined .*: no such folder"):
        run(check.main, *words)
    write_part(manifest, tmp_path / "examined", "1/2")
    with pytest.raises(InputError, match="of 2 parts, 2 is missing: run --part 2/2"):
        run(check.main, *words)
    write_part(manifest, tmp_path / "examined", "2/2")
    with pytest.raises(InputError, match="made with another --decode"):
        run(check.main, *words, "--no-decode")
    run(check.main, *words)
    write_manifest(manifest, rows[:-1])
    with pytest.raises(InputError, match="made from another manifest"):
        run(check.main, *words)
    with pytest.raises(InputError, match="--part needs --out"):
        run(check.main, "--manifest", manifest, "--part", "1/2")
