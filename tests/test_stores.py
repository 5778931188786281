"""Manifests and recordings on object stores."""

import io
import json
import shutil
import tarfile
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import run

from commands import stores
from commands.errors import InputError
from commands.stores import (
    delete,
    exists,
    get,
    is_url,
    list_objects,
    num_bytes,
    open_object,
    put,
    read_object,
    url_of,
)
from data_manifests import check, contained_audio
from data_manifests.audio import audio_duration_s, read_audio, write_wav
from data_manifests.audio_defects import AudioDefect, MissingAudio
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio, write_manifest

RATE_HZ = 16_000


def put_folder(folder, url):
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        put(file, Path(url, file.relative_to(folder)))


# ---- paths and objects


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/x", "s3://bucket/x"), ("gs://b/a/b.tar", "gs://b/a/b.tar"),
        ("file:///tmp/x", "file:///tmp/x"), ("memory://x/y", "memory://x/y"),
    ],
)  # fmt: skip
def test_a_path_can_be_a_url(path, url):
    assert is_url(Path(path)) and is_url(path) and url_of(Path(path)) == url
    assert url_of(Path(path) / "a" / "b.txt") == f"{url}/a/b.txt"
    assert url_of(Path(path).parent) == url.rpartition("/")[0]


@pytest.mark.parametrize(
    "path", ["/tmp/x", "a/b", "a.tar::b/c", "google/gemma-4-E4B-it", "x:y", ""]
)
def test_most_paths_are_none(path):
    assert not is_url(path) and url_of(Path(path)) == str(Path(path))


def test_objects_are_put_and_read_in_parts(store, tmp_path):
    folder = Path(store)
    content = np.random.default_rng(0).bytes(100_000)
    (tmp_path / "x").write_bytes(content)
    assert not exists(folder / "x") and list_objects(folder) == {}
    put(tmp_path / "x", folder / "x")
    put(tmp_path / "x", folder / "b" / "y")
    assert exists(folder / "x") and not exists(folder / "b") and num_bytes(folder / "x") == 100_000
    assert list(list_objects(folder)) == ["b/y", "x"]
    assert read_object(folder / "x", start=7, size=100) == content[7:107]
    assert read_object(folder / "x", start=99_990, size=100) == content[99_990:]
    with open_object(folder / "x", buffer_bytes=1000) as file:
        assert file.read(10) == content[:10] and file.seek(-5, io.SEEK_END) == 99_995
        assert file.read() == content[-5:] and file.seek(50) == 50 and file.read() == content[50:]
    get(folder / "x", tmp_path / "z")
    assert (tmp_path / "z").read_bytes() == content
    (tmp_path / "x").write_bytes(b"other")
    put(tmp_path / "x", folder / "x")
    assert read_object(folder / "x", size=10) == b"other" and num_bytes(folder / "x") == 5
    delete(folder / "x")
    delete(folder / "x")
    assert list(list_objects(folder)) == ["b/y"]


def test_what_a_store_refuses_is_one_line(store):
    for read in (open_object, num_bytes, lambda path: read_object(path, size=1)):
        with pytest.raises(FileNotFoundError) as caught:
            read(Path(store, "none"))
        assert caught.value.filename == url_of(Path(store, "none")) and caught.value.strerror
    with pytest.raises(InputError, match=r"s4://x/y: fsspec knows no such store"):
        open_object(Path("s4://x/y"))
    with pytest.raises(InputError, match=r"^s4://x/y: fsspec knows no such store"):
        run(check.main, "--manifest", "s4://x/y")
    with pytest.raises(InputError, match="none: No such file or directory") as caught:
        run(check.main, "--manifest", f"{store}/none")
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named(monkeypatch):
    import fsspec

    def without_package(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", without_package)
    with pytest.raises(InputError, match=r"needs a package for this store: pip install '.\[remote"):
        open_object(Path("s3://bucket/x"))


def test_a_store_that_cannot_be_reached_is_no_bad_recording(monkeypatch):
    """`--skip-bad-audio` must not skip a corpus because the network is down."""
    import fsspec

    class Unreachable:
        def __getattr__(self, name):
            raise RuntimeError("no credentials\nfound")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: (Unreachable(), url))
    with pytest.raises(OSError, match="RuntimeError: no credentials found") as caught:
        read_audio(Path("s3://bucket/x.wav"), RATE_HZ)
    assert not isinstance(caught.value, AudioDefect) and "\n" not in str(caught.value)


# ---- manifests and recordings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Recordings as files, in a tar, in a zip and in a table, and a manifest of all of them."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    names = [f"{i:03d}.wav" for i in range(30)]
    for name in names:
        samples = 0.1 * generator.standard_normal(8000 + int(name[:3])).astype(np.float32)
        write_wav(folder / "clips" / name, samples, RATE_HZ)
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for name in names:
            archive.add(folder / "clips" / name, f"clips/{name}")
    with zipfile.ZipFile(folder / "shard.zip", "w") as archive:
        for name in names:
            archive.write(folder / "clips" / name, f"clips/{name}")
    rows = [{"bytes": (folder / "clips" / name).read_bytes(), "path": name} for name in names]
    table = pyarrow.table({"audio": rows})
    pyarrow.parquet.write_table(table, folder / "table.parquet", row_group_size=10)
    utterances = [
        Utterance(
            id=f"{where}-{i}", audio=where.format(name=names[i], i=i), text=f"Asɛm {i}",
            speaker="s", duration_s=(8000 + i) / RATE_HZ, dialect="asante", corpus="c",
            split="train", license="CC0-1.0",
        )
        for where, chosen in (
            ("clips/{name}", range(0, 8)), ("shard.tar::clips/{name}", range(8, 16)),
            ("shard.zip::clips/{name}", range(16, 23)),
            ("table.parquet::audio/{i}", range(23, 30)),
        )
        for i in chosen
    ]  # fmt: skip
    write_manifest(folder / "train.jsonl", utterances)
    return folder


def test_manifests_and_their_recordings_are_read_from_a_store(corpus, store, capsys):
    put_folder(corpus, store)
    here, there = (list(read_manifest(Path(folder, "train.jsonl"))) for folder in (corpus, store))
    assert there == [
        type(u)(**{**{n: getattr(u, n) for n in u.__slots__},
                   "audio": u.audio.replace(str(corpus), store)})
        for u in here
    ]  # fmt: skip
    assert {u.origin for u in there} == {f"{store}/train.jsonl:{n}" for n in range(1, 31)}
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(
            read_utterance_audio(one, RATE_HZ), read_utterance_audio(other, RATE_HZ)
        )
    assert "problems: none" in run(check.main, "--manifest", f"{store}/train.jsonl")


def test_a_manifest_here_may_name_recordings_there(corpus, store, tmp_path):
    put_folder(corpus, store)
    rows = [json.loads(line) for line in (corpus / "train.jsonl").open()]
    lines = [json.dumps({**row, "audio": f"{store}/{row['audio']}"}) + "\n" for row in rows]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    assert "problems: none" in run(
        check.main, "--manifest", tmp_path / "train.jsonl", "--out", tmp_path / "out", "--fix"
    )
    kept = [json.loads(line)["audio"] for line in (tmp_path / "out" / "train.jsonl").open()]
    assert kept == [f"{store}/{row['audio']}" for row in rows]


def test_only_what_is_asked_for_is_read(corpus, monkeypatch):
    store = f"memory://bucket-{uuid.uuid4().hex}"
    put_folder(corpus, store)
    read, sizes = stores.read_object, []

    def counted(path, *, start=0, size):
        content = read(path, start=start, size=size)
        sizes.append(len(content))
        return content

    for module in (stores, contained_audio):
        monkeypatch.setattr(module, "read_object", counted)
    whole = num_bytes(Path(store, "shard.tar"))
    for name, most in (
        ("shard.zip::clips/003.wav", 3 * 2**16),  # its directory, and the member
        ("table.parquet::audio/3", 2**16 + whole / 2),  # the footer, and a third of the table
        ("table.parquet::audio/4", 0),
        ("shard.tar::clips/003.wav", 1.1 * whole),  # it is listed, once
        ("shard.tar::clips/017.wav", 17_000),
    ):
        sizes.clear()
        assert audio_duration_s(Path(store, name)) > 0.5
        assert sum(sizes) <= most, name


def test_what_is_missing_on_a_store_is_named(corpus, store, tmp_path):
    put_folder(corpus, store)
    for name, message in (
        ("none.wav", "none.wav: no such audio file"),
        ("gone.tar::x.wav", "gone.tar: no such file"),
        ("shard.tar::x.wav", "no member 'x.wav' in it"),
        ("shard.zip::x.wav", "no member 'x.wav' in it"),
        ("table.parquet::audio/30", "has 30 rows, none is number 30"),
    ):
        with pytest.raises(MissingAudio, match=message) as caught:
            read_audio(Path(store, name), RATE_HZ)
        assert str(caught.value).startswith(f"{store}/")
    with pytest.raises(AudioDefect, match="No object can have '::' in its name"):
        read_audio(Path(store, "clips::x.wav"), RATE_HZ)
    (tmp_path / "empty.wav").write_bytes(b"")
    put(tmp_path / "empty.wav", Path(store, "empty.wav"))
    with pytest.raises(AudioDefect, match=r"empty.wav: empty file"):
        read_audio(Path(store, "empty.wav"), RATE_HZ)


def test_an_unfinished_folder_on_a_store_is_refused(corpus, store, tmp_path):
    """As one on a disk is."""
    folder = tmp_path / "checked"
    run(check.main, "--manifest", corpus / "train.jsonl", "--fix", "--out", folder)
    put_folder(folder, store)
    assert len(list(read_manifest(Path(store, "train.jsonl")))) == 30
    rows = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(rows[:-1]))
    put(folder / "train.jsonl", Path(store, "train.jsonl"))
    with pytest.raises(InputError, match=r"train.jsonl is not what was written"):
        list(read_manifest(Path(store, "train.jsonl")))
    delete(Path(store, "done"))
    with pytest.raises(InputError, match="is unfinished"):
        list(read_manifest(Path(store, "train.jsonl")))
    shutil.rmtree(folder)
