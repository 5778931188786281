"""Recipes: every corpus in its layout, as a folder and packed; nothing is left out unsaid."""

import io
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT
from miniature_corpora import (
    bibletts_folder,
    bibletts_tgz,
    encoded_speech,
    encoded_tone,
    fisd_file_name,
    fisd_folder,
    fisd_zip,
    saved_dataset,
    ugspeechdata_folder,
    waxal_folder,
    zip_folder,
)

from data_manifests.config import InputError
from data_manifests.corpora.audio_dataset import audio_dataset
from data_manifests.corpora.bibletts import bibletts
from data_manifests.corpora.delimited_table import read_delimited_table
from data_manifests.corpora.fisd import clean_fisd_prompt, fisd
from data_manifests.corpora.ugspeechdata import ugspeechdata
from data_manifests.corpora.waxal import waxal


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Tables are cached beside the test, not in the user's home."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def read(recipe, *arguments, **settings):
    """All recordings by id, and the reasons of the rows left out."""
    dropped = {}

    def report_dropped(row_id, reason):
        assert row_id not in dropped
        dropped[row_id] = reason

    recordings = list(recipe(*arguments, report_dropped, **settings))
    for recording in recordings:  # after the recipe has ended, as build does it
        if recording.audio_bytes is None:
            info = soundfile.info(recording.utterance.audio)
        else:
            assert "/" not in recording.utterance.audio
            info = soundfile.info(io.BytesIO(recording.audio_bytes()))
        assert abs(info.duration - recording.utterance.duration_s) < 0.01
    by_id = {recording.utterance.id: recording for recording in recordings}
    assert len(by_id) == len(recordings)
    return by_id, dropped


PROMPTS = {
    # What is in data.csv: what is said.
    "Mepɛ sɛ metua ka": "Mepɛ sɛ metua ka",
    "Mepaa'kyɛw (spoken. Written: Mepawokyew)": "Mepaa'kyɛw",
    "Mepaa’kyɛw  (spoken - informal).": "Mepaa'kyɛw.",
    "Aane [spoken]": "Aane",
    "(spoken) Aane": "Aane",
    "Aane (spoken [informal]) nnɛ": "Aane nnɛ",
    "Aane (spoken": "Aane",
    "Aane ((spoken) informal)": "Aane",
    "ɛberɛ nni hɔ/ mmerɛ nni hɔ": "ɛberɛ nni hɔ",
    "ɛberɛ nni hɔ / mmerɛ nni hɔ": "ɛberɛ nni hɔ",
    "ɛberɛ nni hɔ /mmerɛ nni hɔ": "ɛberɛ nni hɔ",
    "Nnipa yɛ bad (informal) / Nnipa nnyɛ (formal)": "Nnipa yɛ bad",
    "(spoken) / Nnipa nnyɛ": "Nnipa nnyɛ",
    "Mepɛ sika/pesewa bi": "Mepɛ sika bi",
    "Mepɛ sika/pesewa/cedi bi": "Mepɛ sika bi",
    "Mepɛ 1/2 nnɛ": "Mepɛ 1/2 nnɛ",
    "Yɛte 24/7": "Yɛte 24/7",
    "Mmoa ńso": "Mmoa nso",
    "Mmoa n\u0301so, Ńnɛ": "Mmoa nso, Nnɛ",
    "M3p3 s3 mekɔ": "Mɛpɛ sɛ mekɔ",
    "wo pɛsɛ wo yɛ deɛn ɛnɛ": "wo pɛsɛ wo yɛ deɛn ɛnɛ",
    "Me w) (spoken) sika": "Me wɔ sika",
    "(spoken)": "",
    "[...] /": "",
    "": "",
    "100": "",
}


@pytest.mark.parametrize(("prompt", "spoken"), PROMPTS.items())
def test_fisd_prompts(prompt, spoken):
    assert clean_fisd_prompt(prompt) == spoken
    assert clean_fisd_prompt(spoken) == spoken


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("delimiter", ["\t", ",", ";", "|"])
def test_fisd(tmp_path, packed, delimiter):
    prompts = ["Mepɛ sɛ metua ka", "Mepaa'kyɛw (spoken)", "(spoken)", "A/ B"]
    make = fisd_zip if packed else fisd_folder
    path = make(
        tmp_path / "x.zip", "asante", ["MMuHe3cd", "A SLRKMb"], prompts, delimiter=delimiter
    )
    recordings, dropped = read(fisd, path, dialect="asante")
    assert dropped == {
        fisd_file_name("asante", speaker, 2): "nothing to say in '(spoken)'"
        for speaker in ("MMuHe3cd", "A SLRKMb")
    }
    first = recordings["AsantiTwiFm23-MMuHe3cd-Tmp000-rnd000"]
    assert Counter(r.utterance.text for r in recordings.values()) == {
        "Mepɛ sɛ metua ka": 2, "Mepaa'kyɛw": 2, "A": 2,
    }  # fmt: skip
    assert {r.utterance.speaker for r in recordings.values()} == {"fisd/MMuHe3cd", "fisd/A SLRKMb"}
    assert (first.utterance.corpus, first.utterance.dialect) == ("fisd_asante", "asante")
    assert (first.utterance.split, first.utterance.license) == ("train", "CC-BY-4.0")
    assert (first.audio_bytes is not None) == packed == (not Path(first.utterance.audio).is_file())
    notes = Counter(r.note for r in recordings.values())
    assert notes == {
        "": 2, "prompt rewritten: Mepaa'kyɛw (spoken)": 2, "prompt rewritten: A/ B": 2,
    }  # fmt: skip


def test_fisd_rows_left_out(tmp_path):
    folder = fisd_folder(tmp_path / "fisd", "fante", ["S1", "S2"], ["Mepɛ", "Kɔ", "Bra"])
    inner = folder / "fisd-fante-90p"
    names = [fisd_file_name("fante", "S1", i) for i in range(3)]
    (inner / "audios" / names[0]).unlink()
    (inner / "audios" / names[1]).write_bytes(b"")
    (inner / "audios" / names[2]).write_text("no audio")
    other = fisd_file_name("akuapem", "S3", 0)
    shutil.copy(inner / "audios" / fisd_file_name("fante", "S2", 0), inner / "audios" / other)
    with (inner / "data.csv").open("a") as table:
        table.write(f'x/y/{other}\tMepɛ\tI\nx/y/recording.ogg\tKɔ\tGo\nx\\y\\{names[0]}\t"Kɔ\tGo\n')
    recordings, dropped = read(fisd, folder, dialect="fante")
    assert len(recordings) == 3 and {r.utterance.speaker for r in recordings.values()} == {
        "fisd/S2"
    }
    reasons = {
        names[0]: "audios/ does not have it",
        names[1]: "empty file",
        names[2]: "not readable as audio",
        other: "file name says akuapem, not fante",
        "recording.ogg": "file name is not",
        f"{inner / 'data.csv'}:10": "not as many cells",
    }
    assert dropped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in dropped[name]


def test_fisd_refuses_what_is_not_it(tmp_path):
    zipped = fisd_zip(tmp_path / "fisd.zip", "fante", ["S1"], ["Mepɛ"])
    with pytest.raises(InputError, match=r"1 of 1 file names say fante, expected asante"):
        read(fisd, zipped, dialect="asante")
    ga = fisd_folder(tmp_path / "ga", "ga", ["S1"], ["Mepɛ"])
    with pytest.raises(InputError, match="say ga, expected fante"):
        read(fisd, ga, dialect="fante")
    (tmp_path / "broken.zip").write_bytes(zipped.read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable zip"):
        read(fisd, tmp_path / "broken.zip", dialect="fante")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no data.csv in it"):
        read(fisd, tmp_path / "empty", dialect="fante")
    with pytest.raises(InputError, match="no such file"):
        read(fisd, tmp_path / "absent.zip", dialect="fante")
    (ga / "fisd-ga-90p" / "data.csv").write_text("path\ttext\n")
    with pytest.raises(InputError, match=r"no column 'Audio Filepath'; its columns: path, text"):
        read(fisd, ga, dialect="fante")


def test_fisd_damaged_member_of_a_zip(tmp_path):
    folder = fisd_folder(tmp_path / "fisd", "asante", ["S1"], ["Mepɛ", "Kɔ"])
    path = zip_folder(tmp_path / "fisd.zip", folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"OggS") + 500] ^= 0xFF  # the first recording's checksum is now wrong
    path.write_bytes(content)
    recordings, dropped = read(fisd, path, dialect="asante")
    assert len(recordings) == 1
    assert "damaged" in dropped[fisd_file_name("asante", "S1", 0)]


def test_fisd_both_parts_in_one_folder(tmp_path):
    fisd_folder(tmp_path / "fisd", "asante", ["S1"], ["Mepɛ"], part="90p")
    fisd_folder(tmp_path / "fisd", "asante", ["S2"], ["Kɔ"], part="10p")
    recordings, dropped = read(fisd, tmp_path / "fisd", dialect="asante")
    assert len(recordings) == 2 and not dropped


BOOKS = {
    "train": {"GEN": ["Mfitiase no", "Na asase 12 no"], "EXO": ["Ɛno akyi"]},
    "test": {"RUT": ["Na ɛbaa s3"]},
}


@pytest.mark.parametrize("packed", [False, True])
def test_bibletts(tmp_path, packed):
    make = bibletts_tgz if packed else bibletts_folder
    path = make(tmp_path / "asante-twi.tgz", "asante", BOOKS)
    settings = {"dialect": "asante", "unpack_into": tmp_path / "unpacked"}
    recordings, dropped = read(bibletts, path, **settings)
    assert not dropped
    assert {r.utterance.text for r in recordings.values()} == {
        "Mfitiase no", "Na asase 12 no", "Ɛno akyi", "Na ɛbaa sɛ",
    }  # fmt: skip
    utterance = recordings["bibletts_asante_RUT_001_001"].utterance
    assert utterance.speaker == utterance.corpus == "bibletts_asante"
    assert (utterance.split, utterance.license) == ("train", "CC-BY-SA-4.0")
    assert Path(utterance.audio).is_relative_to(tmp_path / "unpacked") == packed
    assert read(bibletts, path, **settings)[0].keys() == recordings.keys()
    book = Path(utterance.audio).parent
    assert read(bibletts, book, **settings)[0].keys() == {utterance.id}


def test_bibletts_unpacking_goes_on_where_it_was_killed(tmp_path):
    path = bibletts_tgz(tmp_path / "asante-twi.tgz", "asante", BOOKS)
    into = tmp_path / "unpacked"
    whole, _ = read(bibletts, path, dialect="asante", unpack_into=into)
    marker = into / ".asante-twi.tgz.unpacked"
    files = sorted(Path(r.utterance.audio) for r in whole.values())
    kept, cut, absent = files[:3]
    marker.unlink()
    contents = [file.read_bytes() for file in files]
    cut.write_bytes(contents[1][:100])
    absent.unlink()
    written_at = kept.stat().st_mtime_ns, kept.stat().st_ctime_ns
    again, dropped = read(bibletts, path, dialect="asante", unpack_into=into)
    assert again.keys() == whole.keys() and not dropped
    assert [file.read_bytes() for file in files] == contents
    assert (kept.stat().st_mtime_ns, kept.stat().st_ctime_ns) == written_at
    absent.unlink()  # once unpacked, the archive is not read again
    assert len(read(bibletts, path, dialect="asante", unpack_into=into)[0]) == len(whole) - 1


def test_bibletts_rows_left_out(tmp_path):
    verses = ["Adeɛ", "Adeɛ", "12", "Adeɛ", "Adeɛ", "Adeɛ"]
    folder = bibletts_folder(tmp_path / "b", "akuapem", {"train": {"GEN": verses}})
    book = folder / "akuapem-twi" / "train" / "GEN"
    (book / "GEN_001_001.txt").unlink()
    (book / "GEN_001_002.txt").write_text("\n")
    (book / "GEN_001_004.txt").write_bytes(b"\xff\xfe\x41")
    (book / "GEN_001_005.flac").write_bytes(b"fLaC but no more")
    for name in ("001_001", "GEN_001_006"):
        (folder / "akuapem-twi" / "dev" / "GEN").mkdir(parents=True, exist_ok=True)
        for suffix in (".flac", ".txt"):
            copy = folder / "akuapem-twi" / "dev" / "GEN" / f"{name}{suffix}"
            shutil.copy(book / f"GEN_001_006{suffix}", copy)
    settings = {"dialect": "akuapem", "unpack_into": tmp_path / "unused"}
    recordings, dropped = read(bibletts, folder, **settings)
    assert recordings.keys() == {"bibletts_akuapem_GEN_001_001", "bibletts_akuapem_GEN_001_006"}
    reasons = {
        "train/GEN/GEN_001_001.flac": "no .txt",
        "train/GEN/GEN_001_002.flac": "nothing to say in ''",
        "train/GEN/GEN_001_003.flac": "nothing to say in '12'",
        "train/GEN/GEN_001_004.flac": "not UTF-8",
        "train/GEN/GEN_001_005.flac": "not readable as audio",
        "train/GEN/GEN_001_006.flac": "is that of an earlier recording",
    }
    assert dropped.keys() == {f"akuapem-twi/{name}" for name in reasons}
    for name, reason in reasons.items():
        assert reason in dropped[f"akuapem-twi/{name}"]


def test_bibletts_refuses_what_is_not_it(tmp_path):
    settings = {"dialect": "asante", "unpack_into": tmp_path / "unpacked"}
    folder = bibletts_folder(tmp_path / "b", "akuapem", BOOKS)
    with pytest.raises(InputError, match="says akuapem, expected asante"):
        read(bibletts, folder, **settings)
    with pytest.raises(InputError, match=r"akuapem-twi.tgz says akuapem, expected asante"):
        read(bibletts, tmp_path / "akuapem-twi.tgz", **settings)
    with pytest.raises(InputError, match="no such file or folder"):
        read(bibletts, tmp_path / "absent.tgz", **settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.flac in it"):
        read(bibletts, tmp_path / "empty", **settings)
    path = bibletts_tgz(tmp_path / "voice.tgz", "asante", BOOKS)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"voice.tgz: cannot be unpacked"):
        read(bibletts, path, **settings)
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(folder / "akuapem-twi" / "test" / "RUT" / "RUT_001_001.txt", "../evil.txt")
    with pytest.raises(InputError, match=r"evil.tar: cannot be unpacked"):
        read(bibletts, tmp_path / "evil.tar", **settings)
    assert not (tmp_path / "evil.txt").exists()


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
    recordings, dropped = read(waxal, str(Path(root) / below), config="aka_asr")
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
    recordings, dropped = read(waxal, root, config=config)
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
        read(waxal, root, config="aka_asr")
    with pytest.raises(InputError, match="expected one of aka_asr, twi_tts, fat_tts"):
        read(waxal, root, config="aka_tts")
    with pytest.raises(InputError, match="google/WaxalNLP: cannot be opened") as caught:
        read(waxal, "google/WaxalNLP", config="aka_asr")
    assert "\n" not in str(caught.value)
    other = waxal_folder(
        tmp_path / "other", "fat_tts", {"train": [("t1", "1", "Bra")]}, text_column="words"
    )
    with pytest.raises(InputError, match=r"no column transcription or text; its columns: id, spea"):
        read(waxal, other, config="fat_tts")


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
    recordings, dropped = read(
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
    recordings, dropped = read(
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
    recordings, dropped = read(audio_dataset, str(tmp_path / "clips"), **SETTINGS)
    assert {r.utterance.text for r in recordings.values()} == {"Bra", "Kɔ"}
    recording = recordings["mine-train-000000"]
    assert recording.audio_bytes is None
    assert Path(recording.utterance.audio) == tmp_path / "clips" / "train" / "a.flac"
    assert "not readable as audio" in dropped["mine-train-000001"]
    assert "no such audio file" in dropped["mine-test-000002"] and len(dropped) == 4
    (tmp_path / "clips" / "train" / "metadata.csv").write_text("path,sentence\na.flac,Bra\n")
    with pytest.raises(InputError, match="no column 'file_name'; its columns: path, sentence"):
        read(audio_dataset, str(tmp_path / "clips"), **SETTINGS)


def test_audio_dataset_names_what_is_wrong(tmp_path):
    source = saved_dataset(tmp_path / "saved", {"train": [dataset_row(0)]})
    with pytest.raises(
        InputError, match=r"no column 'speech' in its split 'train'; its columns: n"
    ):
        read(audio_dataset, source, **SETTINGS, audio_column="speech")
    with pytest.raises(InputError, match="no column 'wer'"):
        read(audio_dataset, source, **SETTINGS, speaker_column="wer")
    numbers = saved_dataset(tmp_path / "numbers", {"train": [dataset_row(0, who=1)]})
    with pytest.raises(InputError, match="'who' does not hold audio"):
        read(audio_dataset, numbers, **SETTINGS, audio_column="who")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.parquet").write_text("no table")
    for absent in ("nobody/nothing", str(tmp_path / "no"), str(tmp_path / "empty"),
                   str(tmp_path / "x.parquet")):  # fmt: skip
        with pytest.raises(
            InputError, match=f"{absent}: cannot be opened as a dataset: "
        ) as caught:
            read(audio_dataset, absent, **SETTINGS)
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
    recordings, dropped = read(ugspeechdata, folder)
    assert recordings[UG_NAMES[0]].utterance.text == "Mmarima no"
    assert dropped == {UG_NAMES[1]: "transcript is not UTF-8", "2 recordings": "no transcript"}


def test_ugspeechdata_refuses_what_is_not_it(tmp_path):
    folder = ugspeechdata_folder(tmp_path / "ug", {UG_NAMES[0]: "Mmarima"})
    (folder / "Metadata" / "Akan.csv").rename(folder / "Metadata" / "Akan.xlsx")
    with pytest.raises(InputError, match=r"no transcripts in it .*; export the .*Akan.xlsx as CSV"):
        read(ugspeechdata, folder)
    with pytest.raises(InputError, match="no such folder"):
        read(ugspeechdata, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio in it"):
        read(ugspeechdata, tmp_path / "empty")


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
