"""A table of one's own recordings: a file in each row, and what is said in it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from commands.errors import InputError
from commands.json_files import read_json_lines
from commands.regular_files import read_regular
from data_manifests.audio import audio_duration_s
from data_manifests.audio_files import is_phone_audio
from data_manifests.corpora.converted_audio import ConvertedAudio
from data_manifests.corpora.delimited_table import read_delimited_table
from data_manifests.corpora.dialect_names import find_dialects
from data_manifests.corpora.recording import (
    MAX_TABLE_BYTES,
    Recording,
    ReportDropped,
    StoredAudio,
    text_to_say,
)
from data_manifests.manifest import Utterance
from data_manifests.phone_audio import MissingPyAV, decode_phone_audio

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl")


def own_table(
    path: Path,
    report_dropped: ReportDropped,
    *,
    corpus: str,
    columns: Mapping[str, str],
    dialect: str,
    license: str,
    converted: ConvertedAudio | None,
) -> Iterator[Recording]:
    """Recordings named in a spreadsheet that was saved as CSV (UTF-8), or in JSON Lines.

    Layout: a header row, then a row for each recording; columns separated by commas, semicolons,
    tabs or `|`. Files are named as they lie from the table's folder. What phones record in formats
    that libsndfile does not read (`phone_audio.py`) is copied as FLAC.

    Args:
        path: the table.
        report_dropped: called for every row that is left out.
        corpus: its name in the manifest.
        columns: "audio" and "text" -> the table's columns; also "speaker", "id" and "dialect", if
            it has them. Without speakers all recordings count as one; without ids a recording is
            called as its file.
        dialect: of the rows whose own column does not say it.
        license: SPDX name, as in "CC-BY-4.0".
        converted: keeps recordings of phones until they are copied; None leaves them where they
            are, as all others.

    Raises:
        InputError: the table cannot be read, lacks a column, or names recordings of phones where
            PyAV is missing.
    """
    for where, cells in _read_rows(path, tuple(columns.values())):
        name = (cells or {}).get(columns["audio"], "")
        try:
            if cells is None:
                raise InputError("not as many cells as the header")
            row = {ours: cells.get(theirs, "") for ours, theirs in columns.items()}
            recording = _recording(path.parent, row, corpus, dialect, license, converted)
        except MissingPyAV:
            raise
        except InputError as error:
            report_dropped(name or where, str(error))
            continue
        yield recording


def _read_rows(
    path: Path, wanted: tuple[str, ...]
) -> Iterator[tuple[str, Mapping[str, str] | None]]:
    """Every row after its place; None for one with a wrong number of cells."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise InputError(
            f"--corpus table={path}: expected one of {', '.join(TABLE_SUFFIXES)}; save a "
            "spreadsheet as CSV (UTF-8)"
        )
    if not path.is_file():
        raise InputError(f"--corpus table={path}: no such file")
    if path.suffix.lower() == ".jsonl":
        for number, row in enumerate(read_json_lines(path), start=1):
            cells = {key: str(value).strip() for key, value in row.items() if value is not None}
            missing = [column for column in wanted if column not in row]
            if missing:
                raise InputError(f"{path}:{number}: no key {missing[0]!r}")
            yield f"{path}:{number}", cells
        return
    content = read_regular(path, max_bytes=MAX_TABLE_BYTES)
    table = read_delimited_table(content, str(path), row_per_line=False)
    table.require(wanted)
    for line in table.rows:
        yield f"{path}:{line.line_number}", line.cells


def _recording(
    folder: Path,
    row: Mapping[str, str],
    corpus: str,
    dialect: str,
    license: str,
    converted: ConvertedAudio | None,
) -> Recording:
    """One row as a recording; raises InputError with the reason to leave it out."""
    if not row["audio"]:
        raise InputError("no audio")
    text = text_to_say(row["text"])
    named = Path(row["audio"].replace("\\", "/"))
    file = folder / named
    stored: StoredAudio | None = None
    audio = str(file.resolve())
    if converted is not None and is_phone_audio(file):
        with file.open("rb") as encoded:
            decoded = decode_phone_audio(encoded, str(file))
        duration_s = len(decoded.samples_N) / decoded.sample_rate_hz
        stored = converted.add(decoded.encode("FLAC"))
        audio = file.with_suffix(".flac").name
    else:
        duration_s = audio_duration_s(file)
    id_ = row.get("id") or named.with_suffix("").as_posix()
    stated = find_dialects(row["dialect"]) if row.get("dialect") else set()
    utterance = Utterance(
        id=f"{corpus}-{id_}".replace("/", "_"),
        audio=audio,
        text=text,
        duration_s=round(duration_s, 3),
        speaker=f"{corpus}/{row.get('speaker') or 'unknown'}",
        dialect=stated.pop() if len(stated) == 1 else dialect,
        corpus=corpus,
        split="train",
        license=license,
    )
    return Recording(utterance, stored)
