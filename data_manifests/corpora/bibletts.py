"""BibleTTS: the Bible in studio quality, with one voice each for Asante and Akuapem."""

from collections.abc import Iterator
from pathlib import Path

from commands.errors import InputError
from commands.regular_files import list_files_below, read_regular
from data_manifests.audio import audio_duration_s
from data_manifests.corpora.dialect_names import find_dialects
from data_manifests.corpora.recording import (
    MAX_TRANSCRIPT_BYTES,
    Recording,
    ReportDropped,
    text_to_say,
)
from data_manifests.corpora.tar_archive import unpack_tar_once
from data_manifests.manifest import Utterance


def bibletts(
    path: Path, report_dropped: ReportDropped, *, dialect: str, unpack_into: Path
) -> Iterator[Recording]:
    """BibleTTS, one of its two Twi voices (OpenSLR 129).

    Meyer et al., "BibleTTS: a large, high-fidelity, multilingual, and uniquely African speech
    corpus", INTERSPEECH 2022. CC BY-SA 4.0. 75 h aligned for Asante, 67 h for Akuapem.

    Layout: `<language>/{train,dev,test}/<book>/<verse>.flac` (48 kHz, 24 bit) and a one-line `.txt`
    of the same name, in `asante-twi.tgz` or `akuapem-twi.tgz`.

    Known problems: one voice reads everything, so held-out verses say nothing about other speakers;
    for that reason the official split (by book) is not used and every row is "train". Verses were
    aligned automatically, and some may start or end in the wrong place. Digits are kept as digits.

    Args:
        path: the .tgz or .tar, or the folder it unpacks to.
        report_dropped: called for every recording that is left out.
        dialect: asante or akuapem; there is no Fante voice.
        unpack_into: where an archive is unpacked, once, because it has no random access. Give each
            archive a folder of its own. Not used where `path` is a folder.

    Raises:
        InputError: no such path, an archive that is broken or suspicious (`unpack_tar_once`), no
            .flac, or a folder that names the other dialect.
        WriteError: the disk is too full for what an archive holds.
    """
    _refuse_other_dialect(path, path.name, dialect)
    if path.is_file():
        unpack_tar_once(path, unpack_into)
    elif not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    folder = unpack_into if path.is_file() else path
    recordings = [
        file
        for file in list_files_below(folder)
        if file.suffix == ".flac"
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    if not recordings:
        raise InputError(f"{path}: not BibleTTS (no .flac in it)")
    for inner in sorted({str(file.relative_to(folder).parent) for file in recordings}):
        _refuse_other_dialect(path, inner, dialect)
    ids: set[str] = set()
    for file in recordings:
        try:
            utterance = _utterance(file, dialect)
            if utterance.id in ids:
                raise InputError(f"its id {utterance.id} is that of an earlier recording")
        except InputError as error:
            report_dropped(str(file.relative_to(folder)), str(error))
            continue
        ids.add(utterance.id)
        yield Recording(utterance)


def _utterance(file: Path, dialect: str) -> Utterance:
    """One recording as an utterance; raises InputError with the reason to leave it out."""
    transcript = file.with_suffix(".txt")
    if not transcript.is_file():
        raise InputError("no .txt beside it")
    try:
        content = read_regular(transcript, max_bytes=MAX_TRANSCRIPT_BYTES)
        original = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("its .txt is not UTF-8") from None
    text = text_to_say(original)
    duration_s = round(audio_duration_s(file), 3)
    # The same verse number may occur in every book.
    book, verse = file.parent.name, file.stem
    return Utterance(
        id=f"bibletts_{dialect}_{verse if verse.startswith(book) else f'{book}_{verse}'}",
        audio=str(file.resolve()),
        text=text,
        duration_s=duration_s,
        speaker=f"bibletts_{dialect}",
        dialect=dialect,
        corpus=f"bibletts_{dialect}",
        split="train",
        license="CC-BY-SA-4.0",
    )


def _refuse_other_dialect(path: Path, name: str, dialect: str) -> None:
    found = find_dialects(name)
    if found and dialect not in found:
        raise InputError(f"{path}: {name} says {min(found)}, expected {dialect}")
