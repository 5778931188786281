"""BibleTTS: its layout, as folders and packed; nothing is left out unsaid."""

import shutil
import tarfile
from pathlib import Path

import pytest
from miniature_corpora import (
    bibletts_folder,
    bibletts_tgz,
    read_recipe,
)

from commands.errors import InputError
from data_manifests.corpora.bibletts import bibletts

BOOKS = {
    "train": {"GEN": ["Mfitiase no", "Na asase 12 no"], "EXO": ["Ɛno akyi"]},
    "test": {"RUT": ["Na ɛbaa s3"]},
}


@pytest.mark.parametrize("packed", [False, True])
def test_bibletts(tmp_path, packed):
    make = bibletts_tgz if packed else bibletts_folder
    path = make(tmp_path / "asante-twi.tgz", "asante", BOOKS)
    settings = {"dialect": "asante", "unpack_into": tmp_path / "unpacked"}
    recordings, dropped = read_recipe(bibletts, path, **settings)
    assert not dropped
    assert {r.utterance.text for r in recordings.values()} == {
        "Mfitiase no", "Na asase 12 no", "Ɛno akyi", "Na ɛbaa sɛ",
    }  # fmt: skip
    utterance = recordings["bibletts_asante_RUT_001_001"].utterance
    assert utterance.speaker == utterance.corpus == "bibletts_asante"
    assert (utterance.split, utterance.license) == ("train", "CC-BY-SA-4.0")
    assert Path(utterance.audio).is_relative_to(tmp_path / "unpacked") == packed
    assert read_recipe(bibletts, path, **settings)[0].keys() == recordings.keys()
    book = Path(utterance.audio).parent
    assert read_recipe(bibletts, book, **settings)[0].keys() == {utterance.id}


def test_bibletts_unpacking_goes_on_where_it_was_killed(tmp_path):
    path = bibletts_tgz(tmp_path / "asante-twi.tgz", "asante", BOOKS)
    into = tmp_path / "unpacked"
    whole, _ = read_recipe(bibletts, path, dialect="asante", unpack_into=into)
    marker = tmp_path / "unpacked.unpacked.json"
    files = sorted(Path(r.utterance.audio) for r in whole.values())
    kept, cut, absent = files[:3]
    marker.write_text(marker.read_text().replace("true", "false"))
    contents = [file.read_bytes() for file in files]
    cut.write_bytes(contents[1][:100])
    absent.unlink()
    written_at = kept.stat().st_mtime_ns, kept.stat().st_ctime_ns
    again, dropped = read_recipe(bibletts, path, dialect="asante", unpack_into=into)
    assert again.keys() == whole.keys() and not dropped
    assert [file.read_bytes() for file in files] == contents
    assert (kept.stat().st_mtime_ns, kept.stat().st_ctime_ns) == written_at
    absent.unlink()  # once unpacked, the archive is not read again
    assert len(read_recipe(bibletts, path, dialect="asante", unpack_into=into)[0]) == len(whole) - 1


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
    recordings, dropped = read_recipe(bibletts, folder, **settings)
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
        read_recipe(bibletts, folder, **settings)
    with pytest.raises(InputError, match=r"akuapem-twi.tgz says akuapem, expected asante"):
        read_recipe(bibletts, tmp_path / "akuapem-twi.tgz", **settings)
    with pytest.raises(InputError, match="no such file or folder"):
        read_recipe(bibletts, tmp_path / "absent.tgz", **settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.flac in it"):
        read_recipe(bibletts, tmp_path / "empty", **settings)
    path = bibletts_tgz(tmp_path / "voice.tgz", "asante", BOOKS)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"voice.tgz: cannot be unpacked"):
        read_recipe(bibletts, path, **settings)
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(folder / "akuapem-twi" / "test" / "RUT" / "RUT_001_001.txt", "../evil.txt")
    with pytest.raises(InputError, match=r"evil.tar: '../evil.txt' leads out of its"):
        read_recipe(bibletts, tmp_path / "evil.tar", **settings)
    assert not (tmp_path / "evil.txt").exists()
