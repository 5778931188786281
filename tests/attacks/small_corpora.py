"""Corpora in miniature, valid: what the attacks damage."""

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_manifests.corpora.fisd import clean_fisd_prompt
from data_manifests.normalization import normalize_for_training
from tests.miniature_corpora import (
    bibletts_folder,
    bibletts_tgz,
    common_voice_folder,
    encoded_tone,
    fisd_folder,
    fisd_zip,
    saved_dataset,
    ugspeechdata_folder,
    waxal_folder,
)

VERSES = {"train": {"GEN": ["Mfitiase no", "Na asase no"], "EXO": ["Ɛno akyi", "Mose kaa sɛ"]}}
PROMPTS = ("Me pɛ sika", "Sika no wɔ he?", "Fa ma me")
SENTENCES = ("Me din de Ama", "Wo ho te sɛn?", "Kofi kɔ sukuu", "Nsuo no yɛ nwini")
UG_NAMES = tuple(f"ak_gh_image_0828_u{776 + i}_1_1682163241022_0545{i}" for i in range(4))
TEXTS = {
    normalize_for_training(text)
    for text in (*SENTENCES, *PROMPTS, *(v for books in VERSES["train"].values() for v in books))
} | {clean_fisd_prompt(prompt) for prompt in PROMPTS}


@dataclass(frozen=True)
class Corpus:
    """One corpus in miniature: its flags, how it is made, and how many recordings it has."""

    name: str
    flags: tuple[str, ...]
    make: Callable[[Path], None]
    num_recordings: int


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus("common voice", ("--corpus", "common_voice=tw"),
               lambda folder: _drop(common_voice_folder(folder / "tw", SENTENCES)), 4),
        Corpus("fisd folder", ("--corpus", "fisd_asante=fisd"),
               lambda folder: _drop(fisd_folder(folder / "fisd", "asante", ("a", "b"), PROMPTS)),
               6),
        Corpus("fisd zip", ("--corpus", "fisd_asante=fisd.zip"),
               lambda folder: _fisd_zip(folder), 6),
        Corpus("bible folder", ("--corpus", "bibletts_asante=asante-twi"),
               lambda folder: _drop(bibletts_folder(folder, "asante", VERSES)), 4),
        Corpus("bible tgz", ("--corpus", "bibletts_asante=asante-twi.tgz"),
               lambda folder: _drop(bibletts_tgz(folder / "asante-twi.tgz", "asante", VERSES)), 4),
        Corpus("bible tar", ("--corpus", "bibletts_asante=asante-twi.tar", "--no-copy-audio"),
               lambda folder: _bible_tar(folder), 4),
        Corpus("fisd zip, not copied", ("--corpus", "fisd_asante=fisd.zip", "--no-copy-audio"),
               lambda folder: _fisd_zip(folder), 6),
        Corpus("waxal, not copied", ("--corpus", "waxal_twi_tts=waxal", "--no-copy-audio"),
               lambda folder: _waxal(folder), 4),
        Corpus("waxal", ("--corpus", "waxal_twi_tts=waxal"), lambda folder: _waxal(folder), 4),
        Corpus("ugspeechdata", ("--corpus", "ugspeechdata=ug"),
               lambda folder: _drop(ugspeechdata_folder(
                   folder / "ug", dict(zip(UG_NAMES, SENTENCES, strict=True)))), 4),
        Corpus("dataset", ("--corpus", "dataset=saved", "--dataset-columns", "audio=audio",
                           "text=sentence", "id=name"), lambda folder: saved(folder), 4),
        Corpus("audio folder", ("--corpus", "dataset=clips", "--dataset-columns", "audio=audio",
                                "text=sentence"), lambda folder: _audio_folder(folder), 4),
    )
}  # fmt: skip


def _drop(made: object) -> None:
    """What makers return is not needed here."""


def _fisd_zip(folder: Path) -> None:
    fisd_zip(folder / "fisd.zip", "asante", ("a", "b"), PROMPTS)


def _bible_tar(folder: Path) -> None:
    unpacked = bibletts_folder(folder / "unpacked", "asante", VERSES)
    with tarfile.open(folder / "asante-twi.tar", "w") as archive:
        archive.add(unpacked / "asante-twi", "asante-twi")
    shutil.rmtree(unpacked)


def _waxal(folder: Path) -> None:
    rows = {"train": [(f"t{n}", "1", text) for n, text in enumerate(SENTENCES)]}
    waxal_folder(folder / "waxal", "twi_tts", rows)


def saved(folder: Path, names: tuple[str, ...] = ("a", "b", "c", "d")) -> None:
    rows = [
        {"name": name, "sentence": text, "audio": encoded_tone("flac", 0.5, 300.0 + 50 * n)}
        for n, (name, text) in enumerate(zip(names, SENTENCES, strict=True))
    ]
    saved_dataset(folder / "saved", {"train": rows})


def _audio_folder(folder: Path) -> None:
    clips = folder / "clips"
    clips.mkdir()
    lines = ["file_name,sentence"]
    for number, text in enumerate(SENTENCES):
        (clips / f"{number}.flac").write_bytes(encoded_tone("flac", 0.5, 300.0 + 50 * number))
        lines.append(f"{number}.flac,{text}")
    (clips / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
