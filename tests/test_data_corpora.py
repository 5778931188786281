"""Recipes of Hugging Face datasets and tables, in every layout; nothing is left out unsaid."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from miniature_corpora import (
    encoded_speech,
    encoded_tone,
    read_recipe,
    saved_dataset,
    ugspeechdata_folder,
    waxal_folder,
)

from commands.errors import InputError
from data_manifests.corpora.audio_dataset import audio_dataset
from data_manifests.corpora.delimited_table import read_delimited_table
from data_manifests.corpora.ugspeechdata import ugspeechdata
from data_manifests.corpora.waxal import waxal


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Tables are cached beside the test, not in the user's home."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


ASR_ROWS = {
    "train": [("ak_1", "4430", "Mmɔfra no rebɔ bↃɔl"), ("ak_2", "4430", "...")],
    "validation": [("ak_3", "4708", "Ↄbaa no tɔn adeɛ"), ("ak_1", "4430", "Mmɔfra no")],
    "test": [("ak_4", "5247", "Abofra no da so"), ("ak_5", "5247", "Abofra")],
}


@pytest.mark.parametrize("below", ["", "data/ASR", "data/ASR/aka"])
def test_waxal_asr(tmp_path, below):
    root = waxal_folder(tmp_path / "waxal", "aka_asr", ASR_ROWS, broken_ids=["ak_5"])
    # Never read: it would take hours, and it has no text.
    (tmp_path / "waxal/data/ASR/aka/aka-unlabeled-00000-of-00001.parquet").write_text("no table")
    recordings, dropped = read_recipe(waxal, str(Path(root) / below), config="aka_asr")
    assert {i: r.utterance.split for i, r in recordings.items()} == {
        "ak_1": "train", "ak_3": "dev", "ak_4": "test",
    }  # fmt: skip
    assert dropped.keys() == {"ak_2", "ak_1", "ak_5"} and "earlier row" in dropped["ak_1"]
    assert "nothing to say" in dropped["ak_2"] and "not readable as audio" in dropped["ak_5"]
    recording = recordings["ak_3"]
    utterance = recording.utterance
    assert (utterance.text, utterance.speaker) == ("Ɔbaa no tɔn adeɛ", "waxal/4708")
    assert (utterance.dialect, utterance.corpus) == ("unknown", "waxal_aka_asr")
    assert (utterance.license, utterance.audio) == ("CC-BY-4.0", "ak_3.mp3")
    spoken = encoded_speech("mp3", "Ↄbaa no tɔn adeɛ", "4708")
    assert recording.audio_bytes() == spoken and recording.note == ""


@pytest.mark.parametrize(
    ("config", "text_column", "dialect"),
    [("twi_tts", "text", "unknown"), ("fat_tts", "transcription", "fante")],
)
def test_waxal_tts(tmp_path, config, text_column, dialect):
    rows = {
        "train": [("t1", "1", "Wɔn a [10] Du [GH₵ 1,500] no"), ("t2", "2", "Wɔn [sic] no")],
        "test": [("t3", "1", "[3]")],
    }
    root = waxal_folder(tmp_path / "waxal", config, rows, text_column=text_column)
    recordings, dropped = read_recipe(waxal, root, config=config)
    assert {i: r.utterance.text for i, r in recordings.items()} == {
        "t1": "Wɔn a Du [GH₵ 1,500] no", "t2": "Wɔn [sic] no",
    }  # fmt: skip
    assert recordings["t1"].note == "prompt rewritten: Wɔn a [10] Du [GH₵ 1,500] no"
    assert recordings["t2"].note == ""
    assert {r.utterance.split for r in recordings.values()} == {"train"}
    assert {r.utterance.dialect for r in recordings.values()} == {dialect}
    assert recordings["t1"].utterance.speaker == "waxal/1" and dropped.keys() == {"t3"}


def test_waxal_refuses_what_is_not_it(tmp_path):
    root = waxal_folder(tmp_path / "waxal", "fat_tts", {"train": [("t1", "1", "Bra")]})
    with pytest.raises(InputError, match=r"no data/ASR/aka/aka-<split>-\*.parquet in it"):
        read_recipe(waxal, root, config="aka_asr")
    with pytest.raises(InputError, match="expected one of aka_asr, twi_tts, fat_tts"):
        read_recipe(waxal, root, config="aka_tts")
    with pytest.raises(InputError, match="google/WaxalNLP: cannot be opened") as caught:
        read_recipe(waxal, "google/WaxalNLP", config="aka_asr")
    assert "\n" not in str(caught.value)
    other = waxal_folder(
        tmp_path / "other", "fat_tts", {"train": [("t1", "1", "Bra")]}, text_column="words"
    )
    with pytest.raises(InputError, match=r"no column transcription or text; its columns: id, spea"):
        read_recipe(waxal, other, config="fat_tts")


SETTINGS = {"corpus": "mine", "dialect": "unknown", "license": "MIT", "text_column": "sentence"}


def dataset_row(i, kind="wav", **changes):
    row = {"name": f"row/{i}", "sentence": f"Asɛm {i}", "who": f"s{i % 2}", "variety": ""}
    return {**row, "audio": encoded_tone(kind), **changes}


def test_audio_dataset_saved_to_disk(tmp_path):
    rows = [
        dataset_row(0, "wav", variety="Asante Twi"),
        dataset_row(1, "mp3", variety="Akwapim"),
        dataset_row(2, "flac", who=None),
        dataset_row(3, "ogg"),
        dataset_row(4, sentence="?"),
        dataset_row(5, sentence=None),
        dataset_row(6, audio=b"no audio"),
        dataset_row(8, audio=None),
        dataset_row(0, "wav"),
    ]
    source = saved_dataset(tmp_path / "saved", {"train": rows[:5], "validation": rows[5:]})
    recordings, dropped = read_recipe(
        audio_dataset, source, **SETTINGS, id_column="name", speaker_column="who",
        dialect_column="variety", official_splits={"validation": "dev"},
    )  # fmt: skip
    utterances = [recording.utterance for recording in recordings.values()]
    assert [u.audio for u in utterances] == ["row_0.wav", "row_1.mp3", "row_2.flac", "row_3.ogg"]
    assert [u.speaker for u in utterances] == ["mine/s0", "mine/s1", "mine/unknown", "mine/s1"]
    assert [u.dialect for u in utterances] == ["asante", "akuapem", "unknown", "unknown"]
    assert {u.split for u in utterances} == {"train"} and {u.license for u in utterances} == {"MIT"}
    reasons = {
        "row_4": "nothing to say", "row_5": "nothing to say", "row_6": "not readable as audio",
        "row_8": "no audio", "row_0": "its id is that of an earlier row",
    }  # fmt: skip
    assert dropped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in dropped[name]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_audio_dataset_from_parquet(tmp_path, kind):
    import datasets

    folder = tmp_path / "parquet"
    folder.mkdir()
    for split in ("train", "test"):
        source = saved_dataset(tmp_path / f"saved_{split}", {split: [dataset_row(0, "flac")]})
        datasets.load_from_disk(source)[split].to_parquet(
            folder / f"{split}-00000-of-00001.parquet"
        )
    source = folder / "train-00000-of-00001.parquet" if kind == "file" else folder
    recordings, dropped = read_recipe(
        audio_dataset, str(source), **SETTINGS, official_splits={"test": "test"}
    )
    splits = {i: r.utterance.split for i, r in recordings.items()}
    expected = {"mine-train-000000": "train", "mine-test-000000": "test"}
    assert splits == (expected if kind == "folder" else {"mine-train-000000": "train"})
    assert {r.utterance.speaker for r in recordings.values()} == {"mine/unknown"} and not dropped


def test_audio_dataset_from_a_folder_of_audio(tmp_path):
    for split, header, row in (
        ("train", "file_name,sentence", "{},Bra"),
        ("test", "", '{{"file_name": "{}", "sentence": "Kɔ"}}'),
    ):
        folder = tmp_path / "clips" / split
        folder.mkdir(parents=True)
        (folder / "a.flac").write_bytes(encoded_tone("flac"))
        (folder / "b.flac").write_bytes(b"broken")
        lines = [row.format("a.flac"), row.format("b.flac"), row.format("c.flac")]
        suffix = "csv" if header else "jsonl"
        lines = [header, *lines] if header else lines
        (folder / f"metadata.{suffix}").write_text("\n".join(lines) + "\n")
    recordings, dropped = read_recipe(audio_dataset, str(tmp_path / "clips"), **SETTINGS)
    assert {r.utterance.text for r in recordings.values()} == {"Bra", "Kɔ"}
    recording = recordings["mine-train-000000"]
    assert recording.audio_bytes is None
    assert Path(recording.utterance.audio) == tmp_path / "clips" / "train" / "a.flac"
    assert "not readable as audio" in dropped["mine-train-000001"]
    assert "no such audio file" in dropped["mine-test-000002"] and len(dropped) == 4
    (tmp_path / "clips" / "train" / "metadata.csv").write_text("path,sentence\na.flac,Bra\n")
    with pytest.raises(InputError, match="no column 'file_name'; its columns: path, sentence"):
        read_recipe(audio_dataset, str(tmp_path / "clips"), **SETTINGS)


def test_audio_dataset_names_what_is_wrong(tmp_path):
    source = saved_dataset(tmp_path / "saved", {"train": [dataset_row(0)]})
    with pytest.raises(
        InputError, match=r"no column 'speech' in its split 'train'; its columns: n"
    ):
        read_recipe(audio_dataset, source, **SETTINGS, audio_column="speech")
    with pytest.raises(InputError, match="no column 'wer'"):
        read_recipe(audio_dataset, source, **SETTINGS, speaker_column="wer")
    numbers = saved_dataset(tmp_path / "numbers", {"train": [dataset_row(0, who=1)]})
    with pytest.raises(InputError, match="'who' does not hold audio"):
        read_recipe(audio_dataset, numbers, **SETTINGS, audio_column="who")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.parquet").write_text("no table")
    for absent in ("nobody/nothing", str(tmp_path / "no"), str(tmp_path / "empty"),
                   str(tmp_path / "x.parquet")):  # fmt: skip
        with pytest.raises(
            InputError, match=f"{absent}: cannot be opened as a dataset: "
        ) as caught:
            read_recipe(audio_dataset, absent, **SETTINGS)
        assert "\n" not in str(caught.value)


UG_NAMES = [f"ak_gh_image_0828_u{776 + i}_1_1682163241022_0545{i}" for i in range(5)]


def test_ugspeechdata_with_a_table(tmp_path):
    transcripts = {
        UG_NAMES[0]: "Mmarima no,\nna wɔredi agorɔ",
        UG_NAMES[1]: "[.]",
        UG_NAMES[2]: "Abofra",
        "ee_gh_image_1_u1_1": "Ame",
        UG_NAMES[3]: "",
    }
    folder = ugspeechdata_folder(tmp_path / "ug", transcripts, num_untranscribed=3)
    (folder / "Akan" / f"{UG_NAMES[2]}.mp3").write_text("no audio")
    with (folder / "Metadata" / "Akan.csv").open("a") as table:
        table.write(f"{UG_NAMES[4]},779,,,,,Ɔkɔ\r\n{UG_NAMES[0]},776,,,,,Bio\r\nshort,row\r\n")
    dropped = []
    recordings = list(ugspeechdata(folder, lambda row, reason: dropped.append((row, reason))))
    (utterance,) = [recording.utterance for recording in recordings]
    assert (utterance.id, utterance.text) == (UG_NAMES[0], "Mmarima no, na wɔredi agorɔ")
    assert (utterance.speaker, utterance.dialect) == ("ugspeech/u776", "unknown")
    assert (utterance.corpus, utterance.license) == ("ugspeechdata", "CC-BY-NC-ND-4.0")
    reasons = [
        (UG_NAMES[1], "nothing to say"),
        (UG_NAMES[2], "not readable as audio"),
        ("ee_gh_image_1_u1_1", "speaker is unknown"),
        (UG_NAMES[4], "its audio is not there"),
        (UG_NAMES[0], "transcribed twice"),
        (f"{folder / 'Metadata' / 'Akan.csv'}:10", "not as many cells"),
        ("4 recordings", "no transcript"),
    ]
    assert sorted(row for row, _ in dropped) == sorted(row for row, _ in reasons)
    for row, reason in reasons:
        assert reason in dict(dropped)[row]


def test_ugspeechdata_with_text_files(tmp_path):
    folder = ugspeechdata_folder(tmp_path / "ug", dict.fromkeys(UG_NAMES[:2], ""))
    (folder / "Transcribed data").mkdir()
    (folder / "Transcribed data" / f"{UG_NAMES[0]}.txt").write_text("Mmarima no")
    (folder / "Transcribed data" / f"{UG_NAMES[1]}.txt").write_bytes(b"Mm\xff")
    recordings, dropped = read_recipe(ugspeechdata, folder)
    assert recordings[UG_NAMES[0]].utterance.text == "Mmarima no"
    assert dropped == {UG_NAMES[1]: "transcript is not UTF-8", "2 recordings": "no transcript"}


def test_ugspeechdata_refuses_what_is_not_it(tmp_path):
    folder = ugspeechdata_folder(tmp_path / "ug", {UG_NAMES[0]: "Mmarima"})
    (folder / "Metadata" / "Akan.csv").rename(folder / "Metadata" / "Akan.xlsx")
    with pytest.raises(InputError, match=r"no transcripts in it .*; export the .*Akan.xlsx as CSV"):
        read_recipe(ugspeechdata, folder)
    with pytest.raises(InputError, match="no such folder"):
        read_recipe(ugspeechdata, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio in it"):
        read_recipe(ugspeechdata, tmp_path / "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header of several columns, got ''"),
        (b"one\ntwo\n", "header of several columns, got 'one'"),
        (b"a\tb\n\xff\n", "not UTF-8"),
        (b"a\tb\n" + b"x" * 200_000 + b"\ty\n", "field larger"),
    ],
)
def test_tables_that_cannot_be_read(content, message):
    with pytest.raises(InputError, match=message):
        read_delimited_table(content, "data.csv", row_per_line=True)


def test_recipes_load_neither_torch_nor_datasets():
    modules = ", ".join(
        f"data_manifests.corpora.{path.stem}"
        for path in sorted((ROOT / "data_manifests" / "corpora").glob("[!_]*.py"))
    )
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'datasets'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
