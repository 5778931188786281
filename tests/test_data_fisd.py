"""FISD: its layout, as folders and packed; nothing is left out unsaid."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from miniature_corpora import (
    fisd_file_name,
    fisd_folder,
    fisd_zip,
    read_recipe,
    zip_folder,
)

from commands.errors import InputError
from data_manifests.corpora.fisd import clean_fisd_prompt, fisd

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
    recordings, dropped = read_recipe(fisd, path, dialect="asante")
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
    recordings, dropped = read_recipe(fisd, folder, dialect="fante")
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
        read_recipe(fisd, zipped, dialect="asante")
    ga = fisd_folder(tmp_path / "ga", "ga", ["S1"], ["Mepɛ"])
    with pytest.raises(InputError, match="say ga, expected fante"):
        read_recipe(fisd, ga, dialect="fante")
    (tmp_path / "broken.zip").write_bytes(zipped.read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable zip"):
        read_recipe(fisd, tmp_path / "broken.zip", dialect="fante")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no data.csv in it"):
        read_recipe(fisd, tmp_path / "empty", dialect="fante")
    with pytest.raises(InputError, match="no such file"):
        read_recipe(fisd, tmp_path / "absent.zip", dialect="fante")
    (ga / "fisd-ga-90p" / "data.csv").write_text("path\ttext\n")
    with pytest.raises(InputError, match=r"no column 'Audio Filepath'; its columns: path, text"):
        read_recipe(fisd, ga, dialect="fante")


def test_fisd_damaged_member_of_a_zip(tmp_path):
    folder = fisd_folder(tmp_path / "fisd", "asante", ["S1"], ["Mepɛ", "Kɔ"])
    path = zip_folder(tmp_path / "fisd.zip", folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"OggS") + 500] ^= 0xFF  # the first recording's checksum is now wrong
    path.write_bytes(content)
    recordings, dropped = read_recipe(fisd, path, dialect="asante")
    assert len(recordings) == 1
    assert "damaged" in dropped[fisd_file_name("asante", "S1", 0)]


def test_fisd_both_parts_in_one_folder(tmp_path):
    fisd_folder(tmp_path / "fisd", "asante", ["S1"], ["Mepɛ"], part="90p")
    fisd_folder(tmp_path / "fisd", "asante", ["S2"], ["Kɔ"], part="10p")
    recordings, dropped = read_recipe(fisd, tmp_path / "fisd", dialect="asante")
    assert len(recordings) == 2 and not dropped
