"""`data_manifests.build --no-copy-audio`: the same manifests, and every recording where it lies."""

import gzip
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import run
from miniature_corpora import (
    bibletts_folder,
    bibletts_tgz,
    common_voice_folder,
    encoded_speech,
    fisd_zip,
    saved_dataset,
    ugspeechdata_folder,
    waxal_folder,
)

from commands.errors import InputError
from data_manifests import build, check, contained_audio
from data_manifests.contained_audio import Reference, find_reference, read_contained
from data_manifests.corpora import dataset_rows
from data_manifests.manifest import read_manifest, read_utterance_audio

PROMPTS = [f"Kɔ sika korabea {number}" for number in ("baako", "mmienu", "mmiɛnsa", "ɛnan")]
VERSES = {"train": {"RUT": ["Na Rut kae sɛ", "Na ɔkɔeɛ"]}, "test": {"EZR": ["Na Esra baeɛ"]}}
MANIFESTS = ("train", "dev", "test", "test_seen_prompts")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def bibletts_tar(path):
    folder = bibletts_folder(path.with_suffix(".unpacked"), "asante", VERSES)
    (folder / "asante-twi" / "train" / "RUT" / "RUT_001_009.flac").write_bytes(b"not audio")
    (folder / "asante-twi" / "train" / "RUT" / "RUT_001_009.txt").write_text("Na")
    with tarfile.open(path, "w") as archive:
        archive.add(folder / "asante-twi", "./asante-twi")
    return path


def parquet_folder(folder, *, row_group_size=7):
    """Two files of one split and one of another, as `datasets` writes them; some rows are bad."""
    folder.mkdir(parents=True)
    texts = [f"Asɛm {word} na mete" for word in ("baako", "fie", "dua", "nsuo", "ani", "ti", "")]
    for name, speakers in (("train-0", "abc"), ("train-1", "defgh"), ("test-0", "ij")):
        rows = [
            {
                "clip": {"bytes": encoded_speech("flac", text, speaker), "path": f"{speaker}.flac"},
                "sentence": text,
                "who": speaker,
                "unused": "x",
            }
            for speaker in speakers
            for text in texts
        ]
        rows[3]["clip"] = None
        rows[4]["clip"]["bytes"] = b"no audio"
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(
            table, folder / f"{name}.parquet", row_group_size=row_group_size
        )
    return folder


def clips_folder(folder):
    folder.mkdir()
    rows = [{"file_name": f"{n}.wav", "sentence": f"Asɛm {n}"} for n in range(3)]
    for row in rows:
        (folder / row["file_name"]).write_bytes(encoded_speech("wav", row["sentence"]))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines)
    return folder


def spoken_rows():
    return {
        "train": [(f"ak_{i}", f"u{i}", f"Mehunu nnipa {i} bi") for i in range(6)],
        "validation": [("ak_dev", "u90", "Ɔbaa bi te hɔ")],
        "test": [("ak_test", "u91", PROMPTS[0]), ("ak_test2", "u92", "Abɔfra no redi agorɔ")],
    }


COLUMNS = ("--dataset-columns", "audio=clip", "text=sentence", "speaker=who")
# Corpus -> how it is made, further flags, and where its recordings then are.
CORPORA = {
    "fisd_asante": (
        lambda folder: fisd_zip(
            folder / "fisd.zip", "asante", [f"Ama{i:02d}" for i in range(24)],
            [*PROMPTS, "Aane (ka)"],
        ),
        (), ".zip",
    ),
    "bibletts_asante": (lambda folder: bibletts_tar(folder / "asante-twi.tar"), (), ".tar"),
    "waxal_aka_asr": (
        lambda folder: waxal_folder(folder / "waxal", "aka_asr", spoken_rows()), (), ".parquet",
    ),
    "dataset": (lambda folder: parquet_folder(folder / "mine"), COLUMNS, ".parquet"),
    "common_voice": (
        lambda folder: common_voice_folder(folder / "tw", ["Me din de Ama.", "Wo ho te s3n?"]),
        (), None,
    ),
    "ugspeechdata": (
        lambda folder: ugspeechdata_folder(
            folder / "ug", {"ak_gh_image_0001_u7_1_1682163241022_0": "Ɔbarima bi gyina hɔ"}
        ),
        (), None,
    ),
}  # fmt: skip


def read_rows(out, name):
    path = out / f"{name}.jsonl"
    return list(read_manifest(path)) if path.exists() and path.read_text() else []


def without_audio(utterance):
    row = {name: getattr(utterance, name) for name in type(utterance).__slots__}
    return {**row, "audio": None, "origin": None}


def reasons_of(out):
    rows = [json.loads(line) for line in (out / "dropped.jsonl").open()]
    return [(row["corpus"], row["id"]) for row in rows]


def compare(copied, lying):
    """That two folders hold the same rows and the same samples; the audio of the second."""
    found = []
    for name in MANIFESTS:
        ours, theirs = read_rows(lying, name), read_rows(copied, name)
        assert [*map(without_audio, ours)] == [*map(without_audio, theirs)]
        for one, other in zip(ours, theirs, strict=True):
            samples = [read_utterance_audio(u, 16_000) for u in (one, other)]
            assert np.array_equal(*samples)
            found.append(one.audio)
    assert reasons_of(copied) == reasons_of(lying)
    assert (copied / "rewritten.jsonl").read_bytes() == (lying / "rewritten.jsonl").read_bytes()
    return found


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_manifests_are_the_same_but_for_where_the_audio_is(corpus, tmp_path):
    make, flags, suffix = CORPORA[corpus]
    source = make(tmp_path)
    words = ("--corpus", f"{corpus}={source}", *flags, "--test-fraction", 0.2)
    run(build.main, *words, "--out", tmp_path / "copied")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    run(build.main, *words, "--no-copy-audio", "--out", tmp_path / "lying")
    audio = compare(tmp_path / "copied", tmp_path / "lying")
    containers = {Path(path.partition("::")[0]).suffix if "::" in path else None for path in audio}
    assert containers == {suffix} and len(audio) == len({*audio})
    assert not (tmp_path / "lying" / "audio").exists()
    # Nothing was converted, either.
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    assert "problems: none" in run(check.main, "--manifest", tmp_path / "lying" / "train.jsonl")


def test_a_dataset_on_the_disk_that_names_files(tmp_path):
    source = clips_folder(tmp_path / "clips")
    words = ("--corpus", f"dataset={source}", "--dataset-columns", "audio=audio", "text=sentence")
    run(build.main, *words, "--out", tmp_path / "copied")
    run(build.main, *words, "--no-copy-audio", "--out", tmp_path / "lying")
    audio = compare(tmp_path / "copied", tmp_path / "lying")
    assert audio == [str(source / f"{n}.wav") for n in range(3)]


@pytest.mark.parametrize("kind", ["binary", "string"])
def test_columns_that_datasets_would_make_audio_of(kind, tmp_path):
    clips = clips_folder(tmp_path / "clips")
    files = [clips / f"{n}.wav" for n in range(3)]
    values = [file.read_bytes() if kind == "binary" else str(file) for file in files]
    table = pyarrow.table({"audio": values, "text": ["Bra", "Kɔ", "Tena ase"]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    words = ("--corpus", f"dataset={tmp_path / 'x.parquet'}")
    run(build.main, *words, "--out", tmp_path / "copied")
    run(build.main, *words, "--no-copy-audio", "--out", tmp_path / "lying")
    audio = compare(tmp_path / "copied", tmp_path / "lying")
    in_table = [f"{tmp_path / 'x.parquet'}::audio/{n}" for n in range(3)]
    assert audio == (in_table if kind == "binary" else [*map(str, files)])


def test_a_manifest_names_members_by_the_archives_absolute_path(tmp_path, monkeypatch):
    out = tmp_path / "out"
    tar = bibletts_tar(tmp_path / "asante-twi.tar")
    monkeypatch.chdir(tmp_path)
    run(build.main, "--corpus", f"bibletts_asante={tar.name}", "--no-copy-audio", "--out", out)
    (row, *_) = [json.loads(line) for line in (out / "train.jsonl").open()]
    assert row["audio"] == f"{tar}::asante-twi/test/EZR/EZR_001_001.flac"


def test_a_copy_in_the_cache_of_the_hub_is_named_by_its_link(tmp_path):
    """There, files are links to blobs whose names have no suffix."""
    waxal = Path(waxal_folder(tmp_path / "waxal", "aka_asr", spoken_rows()))
    for number, file in enumerate(sorted(waxal.rglob("*.parquet"))):
        file.rename(tmp_path / f"{number:064x}")
        file.symlink_to(tmp_path / f"{number:064x}")
    out = tmp_path / "out"
    run(build.main, "--corpus", f"waxal_aka_asr={waxal}", "--no-copy-audio", "--out", out)
    rows = read_rows(out, "train")
    assert len(rows) == 6 and all(len(read_utterance_audio(row, 16_000)) for row in rows)


def test_few_recordings_are_in_memory(tmp_path, monkeypatch):
    """A row group may hold a gigabyte."""
    source = parquet_folder(tmp_path / "mine", row_group_size=10_000)
    monkeypatch.setattr(dataset_rows, "ROWS_AT_A_TIME", 4)
    read, sizes = dataset_rows._read_batches, []

    def counted(*arguments):
        for batch in read(*arguments):
            sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(dataset_rows, "_read_batches", counted)
    words = ("--corpus", f"dataset={source}", *COLUMNS)
    run(build.main, *words, "--no-copy-audio", "--out", tmp_path / "out")
    assert sum(sizes) == 70 and max(sizes) == 4


def test_row_groups_are_kept_up_to_a_size(tmp_path, monkeypatch):
    source = parquet_folder(tmp_path / "mine", row_group_size=1) / "test-0.parquet"
    sizes = [len(encoded_speech("flac", f"Asɛm {word} na mete", "i")) for word in ("baako", "fie")]
    kept = contained_audio.KeptValues(
        8, num_bytes=lambda values: values.nbytes, max_bytes=sum(sizes) + 100
    )
    monkeypatch.setattr(contained_audio, "_GROUPS", kept)
    for row in (0, 1, 2, 0, 1):
        read_contained(Reference(source, f"clip/{row}"))
        assert len(kept._values) <= 2
    assert len(kept._values) == 2


# What cannot stay where it is


def test_what_must_be_copied_is_said_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tgz = bibletts_tgz(tmp_path / "asante-twi.tgz", "asante", VERSES)
    (tmp_path / "packed.tar").write_bytes(gzip.compress(b"x" * 2000))
    saved = saved_dataset(
        tmp_path / "saved", {"train": [{"audio": encoded_speech("wav", "Bra"), "text": "Bra"}]}
    )
    fisd = fisd_zip(tmp_path / "fisd.zip", "asante", ["Ama"], PROMPTS)
    fisd.rename(tmp_path / "fisd.bin")
    shutil.copy(parquet_folder(tmp_path / "mine") / "test-0.parquet", tmp_path / "table.pq")
    for words, message in (
        ((f"bibletts_asante={tgz}",), "asante-twi.tgz is compressed, .*unpack it and name its fo"),
        (("bibletts_asante=packed.tar",), "packed.tar: not a plain tar archive"),
        (("waxal_aka_asr=google/WaxalNLP",), "google/WaxalNLP is not on this disk: download it"),
        (("dataset=some/one",), "some/one is not on this disk: download it"),
        ((f"dataset={saved}",), "holds its recordings in tables that are not Parquet"),
        (("fisd_asante=fisd.bin",), r"the file must be called .tar, .zip or .parquet"),
        (("dataset=table.pq", *COLUMNS), r"the file must be called .tar, .zip or .parquet"),
        (("dataset=mine",), r"mine/train-0.parquet: no column 'audio'; its columns: clip, sen"),
        (
            ("dataset=mine", "--dataset-columns", "audio=who", "text=sentence"),
            "no usable utterance: a: no such audio file",
        ),
    ):
        with pytest.raises(InputError, match=message) as caught:
            run(build.main, "--corpus", *words, "--no-copy-audio", "--out", "out")
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_damaged_archives_are_not_taken_for_short_ones(tmp_path):
    tar = bibletts_tar(tmp_path / "asante-twi.tar")
    whole = tar.read_bytes()
    words = ("--corpus", f"bibletts_asante={tar}", "--no-copy-audio", "--out", tmp_path / "out")
    with tarfile.open(tar) as archive:
        header = archive.getmembers()[-1].offset
    damaged = whole[:header] + b"\xff" * 512 + whole[header + 512 :]
    for content in (damaged, whole[: header + 100], whole[: header + 600]):
        tar.write_bytes(content)
        with pytest.raises(InputError, match=r"asante-twi.tar: (damaged|not a plain)"):
            run(build.main, *words)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(InputError, match=r"x.parquet: not readable as Parquet"):
        run(build.main, "--corpus", f"dataset={tmp_path / 'x.parquet'}", *words[2:])


def test_names_of_members_may_be_longer_than_those_of_files(tmp_path):
    name = "a" * 200
    reference = f"{tmp_path}/{'b' * 100}.tar::{name}.wav"
    assert find_reference(Path(reference)).name == f"{name}.wav"
    row = {
        "id": "a", "audio": reference, "text": "Bra", "duration_s": 1.0, "speaker": "s",
        "dialect": "asante", "corpus": "c", "split": "train", "license": "MIT",
    }  # fmt: skip
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    (utterance,) = read_manifest(tmp_path / "m.jsonl")
    assert utterance.audio == reference
