"""BibleTTS: the Bible in studio quality, with one voice each for Asante and Akuapem."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from commands.errors import InputError
from commands.regular_files import list_files_below, read_regular
from data_manifests.audio import audio_duration_s
from data_manifests.contained_audio import (
    find_reference,
    list_members,
    make_reference,
    name_in_manifest,
    read_contained,
)
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
    path: Path,
    report_dropped: ReportDropped,
    *,
    dialect: str,
    unpack_into: Path,
    copy_audio: bool = True,
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
        copy_audio: off, a plain .tar is not unpacked: recordings are named where they lie in it.

    Raises:
        InputError: no such path, an archive that is broken or suspicious (`unpack_tar_once`), no
            .flac, a folder that names the other dialect, or a compressed archive that may not be
            unpacked.
        WriteError: the disk is too full for what an archive holds.
    """
    _refuse_other_dialect(path, path.name, dialect)
    if path.is_file() and not copy_audio:
        files = _list_archive(path)
    elif path.is_file():
        unpack_tar_once(path, unpack_into)
        files = _list_folder(unpack_into)
    elif path.is_dir():
        files = _list_folder(path)
    else:
        raise InputError(f"{path}: no such file or folder")
    recordings = [
        name
        for name in sorted(files)
        if name.suffix == ".flac" and not any(part.startswith(".") for part in name.parts)
    ]
    if not recordings:
        raise InputError(f"{path}: not BibleTTS (no .flac in it)")
    for inner in sorted({str(name.parent) for name in recordings}):
        _refuse_other_dialect(path, inner, dialect)
    ids: set[str] = set()
    for name in recordings:
        try:
            utterance = _utterance(files, name, dialect)
            if utterance.id in ids:
                raise InputError(f"its id {utterance.id} is that of an earlier recording")
        except InputError as error:
            report_dropped(str(name), str(error))
            continue
        ids.add(utterance.id)
        yield Recording(utterance)


def refuse_unpacking(path: Path) -> None:
    """Raise InputError if recordings of a corpus cannot be read without unpacking its archive."""
    if path.is_file() and path.suffix.lower() != ".tar":
        raise InputError(
            f"--no-copy-audio: {path} is compressed, and a recording in the middle of it cannot be "
            "read: unpack it and name its folder, or make it a plain .tar"
        )


def _list_folder(folder: Path) -> dict[PurePosixPath, Path]:
    """The files of the corpus by their paths in the folder."""
    return {PurePosixPath(file.relative_to(folder)): file for file in list_files_below(folder)}


def _list_archive(path: Path) -> dict[PurePosixPath, Path]:
    """The members of a plain tar archive, by name, as references (`contained_audio`)."""
    refuse_unpacking(path)
    return {PurePosixPath(name): Path(make_reference(path, name)) for name in list_members(path)}


def _utterance(files: Mapping[PurePosixPath, Path], name: PurePosixPath, dialect: str) -> Utterance:
    """One recording as an utterance; raises InputError with the reason to leave it out."""
    transcript = files.get(name.with_suffix(".txt"))
    if transcript is None:
        raise InputError("no .txt beside it")
    try:
        original = _read_transcript(transcript).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("its .txt is not UTF-8") from None
    text = text_to_say(original)
    duration_s = round(audio_duration_s(files[name]), 3)
    # The same verse number may occur in every book.
    book, verse = name.parent.name, name.stem
    return Utterance(
        id=f"bibletts_{dialect}_{verse if verse.startswith(book) else f'{book}_{verse}'}",
        audio=name_in_manifest(files[name]),
        text=text,
        duration_s=duration_s,
        speaker=f"bibletts_{dialect}",
        dialect=dialect,
        corpus=f"bibletts_{dialect}",
        split="train",
        license="CC-BY-SA-4.0",
    )


def _read_transcript(file: Path) -> bytes:
    reference = find_reference(file)
    if reference is None:
        return read_regular(file, max_bytes=MAX_TRANSCRIPT_BYTES)
    content = read_contained(reference)
    if len(content) > MAX_TRANSCRIPT_BYTES:
        raise InputError(f"its .txt has {len(content)} bytes, at most {MAX_TRANSCRIPT_BYTES}")
    return content


def _refuse_other_dialect(path: Path, name: str, dialect: str) -> None:
    found = find_dialects(name)
    if found and dialect not in found:
        raise InputError(f"{path}: {name} says {min(found)}, expected {dialect}")
