"""Archives of corpora: what an enemy packs is refused, what a bad line changes is noticed."""

import gzip
import os
import random
import shutil
import tarfile
import zipfile

import pytest
from conftest import run
from miniature_corpora import bibletts_folder, bibletts_tgz, fisd_zip

from commands.errors import InputError, WriteError
from data_manifests import build
from data_manifests.corpora import archive_limits, tar_archive, zip_archive
from data_manifests.corpora.collect import AudioFolder
from data_manifests.corpora.recording import Recording, StoredAudio
from data_manifests.corpora.tar_archive import unpack_tar_once
from data_manifests.corpora.zip_archive import open_zip, read_member
from data_manifests.manifest import Utterance
from tests.attacks.archive_damage import ENTRIES, MEMBERS, ZIPS, tar_bomb, with_entry, with_member

BOOKS = {"train": {"GEN": ["Mfitiase no", "Na asase no"], "EXO": ["Ɛno akyi"]}}
# Odd, and harmless: they stay below the folder.
HARMLESS = {"a line end", "an odd time", "many members", "names said to be UTF-8"}


@pytest.fixture
def tgz(tmp_path):
    return bibletts_tgz(tmp_path / "asante-twi.tgz", "asante", BOOKS)


def everything(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("name", "add"), MEMBERS, ids=[name for name, _ in MEMBERS])
def test_suspicious_members_are_refused_and_nothing_leaves_the_folder(tmp_path, name, add):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = bibletts_tgz(inside / "asante-twi.tgz", "asante", BOOKS)
    with_member(add)(inside, random.Random(0))
    before = everything(tmp_path)
    if name in HARMLESS:
        unpack_tar_once(path, inside / "new" / "into")
    else:
        with pytest.raises(InputError, match=r"asante-twi\.tgz") as caught:
            unpack_tar_once(path, inside / "new" / "into")
        assert "\n" not in str(caught.value)
    new = everything(tmp_path).keys() - before.keys()
    assert all(file.startswith("a/b/new/into") for file in new)


@pytest.mark.parametrize("damage", ["checksum", "length", "trailer", "garbage", "flipped"])
def test_an_archive_is_verified_to_its_last_byte(tmp_path, tgz, damage):
    whole = tgz.read_bytes()
    content = bytearray(whole)
    if damage == "checksum":
        content[-8] ^= 1
    elif damage == "length":
        content[-1] ^= 1
    elif damage == "trailer":
        content = content[:-8]
    elif damage == "garbage":
        content += b"garbage" * 100
    else:
        content[len(content) // 2] ^= 1
    tgz.write_bytes(content)
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack_tar_once(tgz, tmp_path / "into")
    assert '"is_whole": false' in (tmp_path / "into.unpacked.json").read_text()
    tgz.write_bytes(whole)
    unpack_tar_once(tgz, tmp_path / "into")
    assert '"is_whole": true' in (tmp_path / "into.unpacked.json").read_text()


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_damaged_header_is_not_the_end_of_a_tar(tmp_path, tgz, is_cut):
    content = bytearray(gzip.decompress(tgz.read_bytes()))
    last = content.rindex(b"ustar") - 257
    if is_cut:
        content = content[:last]
    else:
        content[last + 148] ^= 1  # of its checksum
    (tmp_path / "asante-twi.tar").write_bytes(content)
    with pytest.raises(InputError, match="cannot be unpacked into"):
        unpack_tar_once(tmp_path / "asante-twi.tar", tmp_path / "into")


def test_another_archive_of_the_same_size_is_unpacked_again(tmp_path, tgz, capsys):
    unpack_tar_once(tgz, tmp_path / "into")
    first = everything(tmp_path / "into")
    os.utime(tgz, ns=(0, 0))  # as a copy of another day
    other = bibletts_folder(tmp_path / "other", "asante", {"train": {"GEN": ["Na ɛbaa sɛ"]}})
    size = tgz.stat().st_size
    with tarfile.open(tgz, "w") as archive:
        archive.add(other / "asante-twi", "asante-twi")
    content = gzip.compress(tgz.read_bytes())
    tgz.write_bytes(content + bytes(max(0, size - len(content))))  # gzip passes over zeros
    unpack_tar_once(tgz, tmp_path / "into")
    again = everything(tmp_path / "into")
    assert again.keys() < first.keys() and again != first
    assert "has changed: unpacking it again" in capsys.readouterr().err
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that were not unpacked here"):
        unpack_tar_once(tgz, tmp_path / "foreign")
    assert (tmp_path / "foreign" / "mine.txt").exists()


def test_bombs_and_full_disks(tmp_path, tgz, monkeypatch):
    into = tmp_path / "into"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WriteError, match="the disk is too full"):
        unpack_tar_once(tgz, into)
    monkeypatch.undo()
    unpack_tar_once(tgz, into)
    monkeypatch.setattr(tar_archive, "MAX_MEMBERS", 3)
    with pytest.raises(InputError, match="over 3 files"):
        unpack_tar_once(tgz, tmp_path / "again")
    monkeypatch.undo()
    tar_bomb(tgz, random.Random(0))
    with pytest.raises(InputError, match=r"unpacks to over|claims to unpack to over"):
        unpack_tar_once(tgz, tmp_path / "bomb")
    written = sum(len(content) for content in everything(tmp_path / "bomb").values())
    assert written <= archive_limits.max_unpacked_bytes(tgz.stat().st_size)


@pytest.mark.parametrize("name", [name for name, _ in ZIPS if name not in HARMLESS])
def test_damaged_zips_are_one_line(tmp_path, name):
    path = fisd_zip(tmp_path / "fisd.zip", "asante", ("a",), ("Me pɛ sika",))
    dict(ZIPS)[name](path, random.Random(0))
    with pytest.raises(InputError) as caught:
        run(build.main, "--corpus", f"fisd_asante={path}", "--out", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert "fisd" in str(caught.value)


@pytest.mark.parametrize(("name", "message"), [
    ("a bomb", "claims to unpack to far more"), ("a name twice", "is in it twice"),
])  # fmt: skip
def test_zips_that_ask_for_too_much(tmp_path, name, message):
    path = fisd_zip(tmp_path / "fisd.zip", "asante", ("a",), ("Me pɛ sika",))
    with_entry(*dict(ENTRIES)[name])(tmp_path, random.Random(0))
    with pytest.raises(InputError, match=message):
        open_zip(path)


def test_limits_of_zips(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"x" * 100)
        archive.writestr("b", b"x")
    archive, names = open_zip(tmp_path / "a.zip")
    assert names == ["a", "b"] and read_member(archive, "a") == b"x" * 100
    for limit, value, message in (
        ("MAX_MEMBERS", 1, "over 1 files"),
        ("MAX_MEMBER_BYTES", 99, "'a' claims to have 100 bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(zip_archive, limit, value)
            with pytest.raises(InputError, match=message):
                open_zip(tmp_path / "a.zip")


NAMES = (
    "a.wav", "A.wav", "../../escaped.wav", "/tmp/escaped.wav", "..", ".hidden", "-rf", "x" * 250,
    "ɛ" * 120 + ".wav", "a\nb.wav", "x.tmp", "con:1.wav", "a.b.wav", "Fm 23.wav",
)  # fmt: skip


def test_audio_is_written_below_its_folder_whatever_it_is_called(tmp_path):
    out = tmp_path / "a" / "out"
    chosen = [
        Utterance(
            id=f"u{number}", audio=name, text="Bra", duration_s=1.0, speaker="s", dialect="fante",
            corpus="c", split="train", license="MIT",
        )
        for number, name in enumerate(NAMES)
    ]  # fmt: skip
    stored = [StoredAudio(lambda number: f"{number}".encode(), n) for n in range(len(NAMES))]
    for _ in range(2):  # the second time everything is there
        audio = AudioFolder(out)
        written = [audio.write(Recording(*both)) for both in zip(chosen, stored, strict=True)]
        contents = [(out / u.audio).read_bytes() for u in written]
        assert contents == [f"{number}".encode() for number in range(len(NAMES))]
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {out / "audio" / "c"}
    names = [u.audio.rpartition("/")[2] for u in written]
    assert names[0] == "a.wav" and names[-2:] == ["a.b.wav", "Fm 23.wav"]
    assert names[2].endswith(".wav") and len(names[7]) == 32
