"""UGSpeechData, the Akan part: people describing pictures; one recording in ten is transcribed."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from commands.errors import InputError
from commands.regular_files import list_files_below, read_regular
from data_manifests.audio import audio_duration_s
from data_manifests.corpora.delimited_table import read_delimited_table
from data_manifests.corpora.recording import (
    MAX_TABLE_BYTES,
    MAX_TRANSCRIPT_BYTES,
    Recording,
    ReportDropped,
    text_to_say,
)
from data_manifests.manifest import Utterance

AUDIO_SUFFIXES = (".flac", ".mp3", ".ogg", ".wav")
TABLE_SUFFIXES = (".csv", ".tsv")
# Use the column whose name contains one of these, in this order of preference: "Full Filename"
# before "AUDIO_URL" before "ORG_NAME" before "SPEAKER_ID".
FILE_NAME_COLUMNS = ("file", "audio", "name", "id")
TEXT_COLUMNS = ("transcri", "text")
_FILE_NAME = re.compile(r"ak_gh_.*?_u(?P<user>\d+)_.*", re.IGNORECASE)


def ugspeechdata(path: Path, report_dropped: ReportDropped) -> Iterator[Recording]:
    """UGSpeechData (University of Ghana), Akan: 1,000 h, of which 100 h are transcribed.

    Wiafe et al., "UGSpeechData", Science Data Bank, doi:10.57760/sciencedb.22298, 2023. Licence:
    github.com/HCI-LAB-UGSPEECHDATA says CC BY-NC-ND 4.0, which is what the rows say; other sources
    give CC BY 4.0 for the deposit. Read the terms of your copy before you publish a model.

    Layout. From the corpus's own pages: `Akan.tar` and `Transcribed data/Akan.zip` (audio),
    `Metadata/Akan.xlsx`; names like ak_gh_image_0828_u776_1_1682163241022_05459, u776 being the
    speaker; 15 to 30 s each. According to other people's code for its Dagbani and Ewe parts, not
    verified here: audio is MP3, and transcripts are in the workbook's sheet "Transcribed", columns
    `Full Filename` and `Transcription`. So this recipe uses whatever it finds: audio anywhere below
    the folder, transcripts in any .csv or .tsv below it with a file-name and a transcript column,
    else in a .txt named like the recording. Export the sheet as CSV (UTF-8): .xlsx is not read.

    Known problems: dialects are mixed and not labelled, hence "unknown". WAXAL's aka_asr was made
    from it: never test on one and train on the other.

    Args:
        path: folder with the unpacked archives and the exported sheet.
        report_dropped: called for every transcribed row that is left out, and once for all
            recordings without a transcript, with their number.

    Raises:
        InputError: no folder, no audio, no transcript, or a table that cannot be read.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; unpack Akan.tar or Akan.zip first")
    files = [file for file in list_files_below(path) if not file.name.startswith(".")]
    audio: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() in AUDIO_SUFFIXES:
            audio.setdefault(file.stem, file)
    if not audio:
        raise InputError(f"{path}: no audio in it ({', '.join(AUDIO_SUFFIXES)})")
    transcribed: set[str] = set()
    for stem, original in _read_transcripts(path, files, audio, report_dropped):
        try:
            if stem in transcribed:
                raise InputError("transcribed twice; the first is used")
            transcribed.add(stem)
            utterance = _utterance(stem, original, audio.get(stem))
        except InputError as error:
            report_dropped(stem, str(error))
            continue
        yield Recording(utterance)
    num_untranscribed = len(audio.keys() - transcribed)
    if num_untranscribed:
        report_dropped(f"{num_untranscribed} recordings", "no transcript")


def _read_transcripts(
    path: Path, files: Sequence[Path], audio: dict[str, Path], report_dropped: ReportDropped
) -> Iterator[tuple[str, str]]:
    """Each recording's name without suffix, and its transcript; .txt only if no table has any."""
    has_transcripts = False
    for file in files:
        if file.suffix.lower() not in TABLE_SUFFIXES:
            continue
        content = read_regular(file, max_bytes=MAX_TABLE_BYTES)
        table = read_delimited_table(content, str(file), row_per_line=False)
        name_column = _find_column(table.columns, FILE_NAME_COLUMNS)
        others = [column for column in table.columns if column != name_column]
        text_column = _find_column(others, TEXT_COLUMNS)
        if name_column is None or text_column is None:
            continue  # metadata about speakers and pictures
        for row in table.rows:
            if row.cells is None:
                report_dropped(f"{file}:{row.line_number}", "not as many cells as the header")
            elif row.cells[text_column]:
                has_transcripts = True
                yield _stem(row.cells[name_column]), row.cells[text_column]
    if has_transcripts:
        return
    for file in files:
        if file.suffix.lower() == ".txt" and file.stem in audio:
            has_transcripts = True
            content = read_regular(file, max_bytes=MAX_TRANSCRIPT_BYTES)
            yield file.stem, content.decode("utf-8-sig", errors="replace")
    if not has_transcripts:
        workbooks = [file for file in files if file.suffix.lower() == ".xlsx"]
        hint = f"; export the transcripts of {workbooks[0]} as CSV (UTF-8)" if workbooks else ""
        raise InputError(f"{path}: no transcripts in it (.csv, .tsv or .txt){hint}")


def _find_column(columns: Sequence[str], parts: Sequence[str]) -> str | None:
    for part in parts:
        for column in columns:
            if part in column.lower():
                return column
    return None


def _stem(cell: str) -> str:
    name = PurePosixPath(cell.replace("\\", "/"))
    return name.stem if name.suffix.lower() in AUDIO_SUFFIXES else name.name


def _utterance(stem: str, original: str, file: Path | None) -> Utterance:
    """One row as an utterance; raises InputError with the reason to leave it out."""
    match = _FILE_NAME.fullmatch(stem)
    if match is None:
        raise InputError("file name is not ak_gh_..._u<speaker>_..., so its speaker is unknown")
    if file is None:
        raise InputError("transcribed, but its audio is not there")
    if "\N{REPLACEMENT CHARACTER}" in original:
        raise InputError("transcript is not UTF-8")
    text = text_to_say(original)
    duration_s = round(audio_duration_s(file), 3)
    return Utterance(
        id=stem,
        audio=str(file.resolve()),
        text=text,
        duration_s=duration_s,
        speaker=f"ugspeech/u{match['user']}",
        dialect="unknown",
        corpus="ugspeechdata",
        split="train",
        license="CC-BY-NC-ND-4.0",
    )
