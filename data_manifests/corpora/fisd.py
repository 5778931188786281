"""FISD: sentences about money, read by some 200 people for each dialect of Akan."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from commands.errors import InputError
from commands.regular_files import list_files_below, read_regular
from data_manifests.audio import audio_duration_s, encoded_duration_s
from data_manifests.contained_audio import make_reference, name_in_manifest
from data_manifests.corpora.delimited_table import DelimitedTable, read_delimited_table
from data_manifests.corpora.dialect_names import find_dialects
from data_manifests.corpora.recording import (
    MAX_TABLE_BYTES,
    Recording,
    ReportDropped,
    StoredAudio,
)
from data_manifests.corpora.zip_archive import open_zip, read_member
from data_manifests.manifest import Utterance
from data_manifests.normalization import is_speakable, normalize_for_training

AUDIO_COLUMN, TEXT_COLUMN = "Audio Filepath", "Transcription"
MAX_PROMPT_CHARACTERS = 1000  # the longest is a few words; removing notes takes several passes

_FILE_NAME = re.compile(
    r"(?P<language>[a-z]+?)(?:Fm|Ma)\d*-(?P<speaker>[^-]+)-Tmp\d+-.+\.ogg", re.IGNORECASE
)
# Includes the spaces before it, so that "X (note)." becomes "X.". An open bracket runs to the end.
_NOTE = re.compile(r"\s*(?:\([^()]*(?:\)|$)|\[[^\[\]]*(?:\]|$))")
_BETWEEN_PHRASES = re.compile(r"\s+/+\s*|/+\s+")
_RIGHT_WORDS = re.compile(r"(?<!\d)/\S*|/(?!\d)\S*")


def fisd(
    path: Path, report_dropped: ReportDropped, *, dialect: str, copy_audio: bool = True
) -> Iterator[Recording]:
    """Financial Inclusion Speech Dataset (Ashesi University and Nokwary Technologies), one dialect.

    Asamoah Owusu et al., "Financial Inclusion Speech Dataset", 2022, github.com/Ashesi-Org/
    Financial-Inclusion-Speech-Dataset. CC BY 4.0. About 30 h Asante, 38 h Akuapem, 39 h Fante.

    Layout: `data.csv` (`Audio Filepath`, `Transcription`, `Translation`, tab-separated) beside
    `audios/*.ogg` (Opus, 48 kHz), zipped or not, in enclosing folders or not. Folders in `Audio
    Filepath` are ignored: rows and audio are matched by file name. AsantiTwiFm23-MMuHe3cd-
    Tmp033-90pZBJ.ogg: dialect, gender, age, speaker, prompt.

    Known problems: everyone reads the same prompts, about 120 a dialect and three words long on
    average, so a model can memorise them; 90p and 10p share speakers and prompts, so the
    split is "train" for all rows. 1 to 3 % of recordings are cut short or say something else.
    Prompts contain notes to the reader, see `clean_fisd_prompt`; rows changed by it have a `note`.
    Some speaker ids contain a space.

    Args:
        path: a zip (fisd-asanti-twi-90p.zip, ...) or a folder with one or more of them unpacked.
        report_dropped: called for every row that is left out.
        dialect: asante, akuapem or fante.
        copy_audio: off, recordings in a zip are named where they lie.

    Raises:
        InputError: no `data.csv` or no audio, a missing column, a broken zip, or most file names
            name another dialect.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    files = _list_zip(path, copy_audio=copy_audio) if path.is_file() else _list_folder(path)
    if not files.tables or not files.audio:
        raise InputError(f"{path}: not FISD ({'no .ogg' if files.tables else 'no data.csv'} in it)")
    tables = [read_delimited_table(content(), n, row_per_line=True) for n, content in files.tables]
    for table in tables:
        table.require((AUDIO_COLUMN, TEXT_COLUMN))
    _refuse_other_dialect(path, tables, dialect)
    for table in tables:
        for row in table.rows:
            if row.cells is None:
                report_dropped(f"{table.name}:{row.line_number}", "not as many cells as the header")
                continue
            name = _base_name(row.cells[AUDIO_COLUMN])
            try:
                recording = _recording(name, row.cells[TEXT_COLUMN], files.audio.get(name), dialect)
            except InputError as error:
                report_dropped(name or f"{table.name}:{row.line_number}", str(error))
                continue
            yield recording


def clean_fisd_prompt(text: str) -> str:
    """What a reader of an FISD prompt says; "" if that is nothing.

    Notes in round or square brackets are removed: "Mepaa'kyɛw (spoken. Written: Mepawokyew)" is
    Mepaa'kyɛw. Of alternatives the left one is kept: a slash with a space beside it separates whole
    prompts ("ɛberɛ nni hɔ/ mmerɛ nni hɔ" is ɛberɛ nni hɔ), one without a space separates two words
    ("sika/pesewa bi" is sika bi); between digits it belongs to a number. Some readers may have said
    the right one; the data does not show which. ń, written for syllabic n, is n. The result is
    normalised by `normalize_for_training`. Idempotent.
    """
    text = normalize_for_training(text)
    while (without_note := _NOTE.sub("", text)) != text:
        text = without_note
    phrases = [phrase for phrase in _BETWEEN_PHRASES.split(text) if is_speakable(phrase)]
    text = _RIGHT_WORDS.sub("", phrases[0].strip("/ ")) if phrases else ""
    text = unicodedata.normalize("NFC", text).replace("ń", "n").replace("Ń", "N")
    text = normalize_for_training(text)
    return text if is_speakable(text) else ""


@dataclass(frozen=True)
class _Files:
    """The tables (name and reader function), and audio by file name: a file, a recording in an
    archive (`contained_audio`), or one that is to be copied out of it."""

    tables: list[tuple[str, Callable[[], bytes]]]
    audio: dict[str, Path | StoredAudio]


def _list_folder(path: Path) -> _Files:
    files = _Files([], {})
    for file in list_files_below(path):
        kind = _kind_of(str(file.relative_to(path)))
        if kind == "table":
            read = partial(read_regular, file, max_bytes=MAX_TABLE_BYTES)
            files.tables.append((str(file), read))
        elif kind == "audio":
            files.audio.setdefault(file.name, file)
    return files


def _list_zip(path: Path, *, copy_audio: bool) -> _Files:
    archive, names = open_zip(path)
    files = _Files([], {})
    read = partial(read_member, archive)
    for name in names:
        kind = _kind_of(name)
        if kind == "table":
            files.tables.append((f"{path}:{name}", partial(read_member, archive, name)))
        elif kind == "audio":
            stored = StoredAudio(read, name) if copy_audio else Path(make_reference(path, name))
            files.audio.setdefault(PurePosixPath(name).name, stored)
    return files


def _kind_of(relative: str) -> str | None:
    """ "table", "audio", or None for anything else, including hidden files and macOS metadata
    copies."""
    parts = PurePosixPath(relative).parts
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return None
    if parts[-1].lower() == "data.csv":
        return "table"
    return "audio" if parts[-1].lower().endswith(".ogg") else None


def _base_name(cell: str) -> str:
    return PurePosixPath(cell.replace("\\", "/")).name


def _language_of(name: str) -> str:
    """The dialect in a file name, "ga" for the corpus's fourth language, or "" if unclear."""
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        return ""
    found = find_dialects(match["language"])
    return found.pop() if found else "ga" if match["language"].lower() == "ga" else ""


def _refuse_other_dialect(path: Path, tables: list[DelimitedTable], dialect: str) -> None:
    rows = [row.cells for table in tables for row in table.rows if row.cells is not None]
    counts = Counter(_language_of(_base_name(cells[AUDIO_COLUMN])) for cells in rows)
    counts.pop("", None)
    for language, count in counts.most_common(1):
        if language != dialect and 2 * count > len(rows):
            raise InputError(
                f"{path}: {count} of {len(rows)} file names say {language}, expected {dialect}; "
                "name the corpus of that dialect"
            )


def _recording(
    name: str, original: str, audio: Path | StoredAudio | None, dialect: str
) -> Recording:
    """One row as a recording; raises InputError with the reason to leave it out."""
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        raise InputError("file name is not <language><gender><age>-<speaker>-Tmp<n>-<n>.ogg")
    if _language_of(name) not in ("", dialect):
        raise InputError(f"file name says {_language_of(name)}, not {dialect}")
    if audio is None:
        raise InputError("data.csv names it, audios/ does not have it")
    if len(original) > MAX_PROMPT_CHARACTERS:
        raise InputError(f"a prompt of {len(original)} characters")
    text = clean_fisd_prompt(original)
    if not text:
        raise InputError(f"nothing to say in {original!r}")
    if isinstance(audio, Path):
        duration_s, where, stored = audio_duration_s(audio), name_in_manifest(audio), None
    else:
        duration_s, where, stored = encoded_duration_s(audio(), name), name, audio
    utterance = Utterance(
        id=Path(name).stem,
        audio=where,
        text=text,
        duration_s=round(duration_s, 3),
        speaker=f"fisd/{match['speaker'].strip()}",
        dialect=dialect,
        corpus=f"fisd_{dialect}",
        split="train",
        license="CC-BY-4.0",
    )
    is_rewritten = text != normalize_for_training(original)
    return Recording(
        utterance, stored, note=f"prompt rewritten: {original}" if is_rewritten else ""
    )
