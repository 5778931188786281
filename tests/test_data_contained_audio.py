"""Recordings are read where they lie: in an archive, in a Parquet table."""

import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from conftest import run

from commands.errors import InputError
from data_manifests import check, contained_audio
from data_manifests.audio import audio_duration_s, read_audio, write_wav
from data_manifests.audio_defects import AudioDefect, MissingAudio
from data_manifests.contained_audio import Reference, find_reference, read_contained
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio, write_manifest

RATE_HZ = 16_000
COUNT = 250


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Recordings as files, and the same in a tar archive and in a table of `datasets`."""
    folder = tmp_path_factory.mktemp("audio")
    generator = np.random.default_rng(0)
    names = [f"{i:03d}.wav" for i in range(COUNT)]
    for name in names:
        samples = 0.1 * generator.standard_normal(8000 + int(name[:3])).astype(np.float32)
        write_wav(folder / "clips" / name, samples, RATE_HZ)
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for name in names:
            archive.add(folder / "clips" / name, f"./clips/{name}")
    with zipfile.ZipFile(folder / "shard.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / "clips" / name, f"clips/{name}")
    # As `datasets` writes a column of audio.
    rows = [{"bytes": (folder / "clips" / name).read_bytes(), "path": name} for name in names]
    table = pyarrow.table({"audio": rows, "n": [0] * COUNT})
    pyarrow.parquet.write_table(table, folder / "table.parquet", row_group_size=100)
    assert pyarrow.parquet.ParquetFile(folder / "table.parquet").num_row_groups == 3
    return folder


def references(folder, i):
    in_archives = [folder / f"shard.{kind}::clips/{i:03d}.wav" for kind in ("tar", "zip")]
    return *in_archives, folder / f"table.parquet::audio/{i}"


def test_a_reference_is_told_from_a_path():
    assert find_reference(Path("a/b.tar::c/d.wav")) == Reference(Path("a/b.tar"), "c/d.wav")
    assert find_reference(Path("b.parquet::audio/3")) == Reference(Path("b.parquet"), "audio/3")
    assert find_reference(Path("a/b::c.wav")) is None and find_reference(Path("a.tar")) is None


def test_what_is_read_are_the_files(files):
    for i in (0, 99, 100, 249, 7):
        expected = read_audio(files / "clips" / f"{i:03d}.wav", RATE_HZ)
        for path in references(files, i):
            assert np.array_equal(read_audio(path, RATE_HZ), expected)
            assert audio_duration_s(path) == len(expected) / RATE_HZ


def test_several_threads_read_at_once(files):
    order = np.random.default_rng(0).permutation(COUNT).tolist()
    paths = [path for i in order for path in references(files, i)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: len(read_audio(path, RATE_HZ)), paths))
    assert found == [8000 + i for i in order for _ in range(3)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_processes_read_at_once(files):
    """Loaders fork; an open file that they share would have one position."""
    expected = [read_audio(files / "clips" / f"{i:03d}.wav", RATE_HZ) for i in range(40)]
    read_audio(references(files, 0)[1], RATE_HZ)
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            code = 1
            try:
                found = [
                    np.array_equal(read_audio(references(files, i)[1], RATE_HZ), expected[i])
                    for _ in range(5)
                    for i in range(40)
                ]
                code = 0 if all(found) else 1
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_a_table_is_read_by_row_groups(files, monkeypatch):
    """Neighbours cost one read, and the memory of a few row groups."""
    read, groups = contained_audio._read_group, []
    monkeypatch.setattr(contained_audio, "_GROUPS", contained_audio.KeptValues(2))
    monkeypatch.setattr(
        contained_audio, "_read_group", lambda *args: groups.append(args[-1]) or read(*args)
    )
    for i in range(COUNT):
        read_contained(Reference(files / "table.parquet", f"audio/{i}"))
    assert groups == [0, 1, 2]
    read_contained(Reference(files / "table.parquet", "audio/0"))
    assert groups == [0, 1, 2, 0]


def test_an_archive_that_was_written_again_is_listed_again(files, tmp_path):
    path = tmp_path / "a.tar"
    for content in (b"one", b"another"):
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("x.wav")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        os.utime(path, ns=(0, len(content)))
        assert read_contained(Reference(path, "x.wav")) == content


def test_manifests_hold_references(files, tmp_path):
    rows = [
        Utterance(
            id=str(path), audio=os.path.relpath(path, files), text="Me", speaker="s",
            duration_s=audio_duration_s(path), dialect="asante", corpus="c", split="train",
            license="CC0-1.0",
        )
        for i in range(3)
        for path in references(files, i)
    ]  # fmt: skip
    write_manifest(files / "train.jsonl", rows)
    read = [read_utterance_audio(u, RATE_HZ) for u in read_manifest(files / "train.jsonl")]
    assert [len(samples) for samples in read] == [8000] * 3 + [8001] * 3 + [8002] * 3
    with pytest.raises(InputError, match="6 duplicate audio"):
        run(check.main, "--manifest", files / "train.jsonl")


# What is not there, or damaged


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.tar::x.wav", "gone.tar: no such file"),
        ("shard.tar::clips/none.wav", "no member 'clips/none.wav' in it"),
        ("shard.tar::clips", "no member 'clips' in it"),
        ("shard.zip::clips/none.wav", "no member 'clips/none.wav' in it"),
        ("table.parquet::audio/250", "has 250 rows, none is number 250"),
        ("table.parquet::audio/-1", "must be COLUMN/ROW"),
        ("table.parquet::17", "must be COLUMN/ROW"),
        ("table.parquet::sound/1", "no column 'sound'"),
    ],
)
def test_what_is_missing_is_named(files, name, message):
    with pytest.raises(MissingAudio, match=message):
        read_audio(files / name, RATE_HZ)


def test_what_is_damaged_is_named(files, tmp_path):
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.add(files / "clips" / "000.wav", "x.wav")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    (tmp_path / "noise.zip").write_bytes(b"noise")
    with zipfile.ZipFile(tmp_path / "odd.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.wav", "abc" * 1000)
    packed = bytearray((tmp_path / "odd.zip").read_bytes())
    packed[36] ^= 0xFF
    (tmp_path / "odd.zip").write_bytes(packed)
    (tmp_path / "folder.tar").mkdir()
    soundfile.write(tmp_path / "x.wav", np.zeros(0, np.float32), RATE_HZ)
    whole = (files / "shard.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    table = pyarrow.table({"audio": pyarrow.array([b"", None], pyarrow.binary()), "n": [1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "odd.parquet")
    for name, message in (
        ("packed.tar::x.wav", "not a plain tar archive"),
        ("noise.zip::x.wav", "noise.zip: not readable as a zip: File is not a zip file"),
        ("odd.zip::x.wav", "odd.zip: not readable as a zip: (Bad CRC-32|Error -3)"),
        ("noise.parquet::audio/0", "not readable as Parquet"),
        ("folder.tar::x", "not a regular file"),
        ("cut.tar::clips/000.wav", "cut short|not readable|no member|plain tar"),
        ("odd.parquet::audio/0", "empty file"),
        ("odd.parquet::audio/1", "no recording in this row"),
        ("odd.parquet::n/0", "column 'n' holds int64, not recordings"),
    ):
        with pytest.raises(AudioDefect, match=message) as caught:
            read_audio(tmp_path / name, RATE_HZ)
        assert "\n" not in str(caught.value)
