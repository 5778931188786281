"""Common Voice Twi: a small crowd-sourced corpus, in Mozilla's own layout."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from commands.errors import InputError
from commands.regular_files import read_regular
from data_manifests.audio import audio_duration_s
from data_manifests.corpora.delimited_table import DelimitedTable, read_delimited_table
from data_manifests.corpora.dialect_names import find_dialects
from data_manifests.corpora.recording import MAX_TABLE_BYTES, Recording, ReportDropped, text_to_say
from data_manifests.manifest import Utterance

COMMON_VOICE_TABLES = ("validated", "other", "invalidated")


def common_voice(
    folder: Path, report_dropped: ReportDropped, *, tables: Sequence[str] = ("validated",)
) -> Iterator[Recording]:
    """Mozilla Common Voice, Scripted Speech, Twi (`tw`), any release.

    Ardila et al., "Common Voice: A Massively-Multilingual Speech Corpus", LREC 2020. CC0-1.0;
    anyone who downloads it promises not to try to identify speakers. Releases come from Mozilla
    Data Collective.

    Layout: `clips/*.mp3` (32 kHz), `train.tsv dev.tsv test.tsv validated.tsv other.tsv
    invalidated.tsv`, `clip_durations.tsv` (milliseconds). TSVs are unquoted: a stray `"` is part of
    the sentence.

    Known problems: the Twi release is tiny (0.3 h), nearly all from one man; `dev.tsv` and
    `test.tsv` may be empty, so the official splits are not used and `data_manifests.build` makes
    its own; sentences carry stray bullets and quotes; readers report them to be Akuapem, but no
    column says so, hence "unknown".

    Args:
        folder: the folder that holds `clips/`, usually `cv-corpus-.../tw`.
        report_dropped: called for every row that is left out.
        tables: any of "validated", "other" (not yet voted on), "invalidated" (voted down, or a
            tie).

    Raises:
        InputError: a file of the layout is missing, or a table cannot be read or lacks a column.
    """
    if not (folder / "clips").is_dir():
        raise InputError(f"{folder}: not a Common Voice folder (no clips/ in it)")
    durations_s = _read_clip_durations(folder / "clip_durations.tsv")
    for name in tables:
        table = _read_tsv(folder / f"{name}.tsv", ("client_id", "path", "sentence"))
        for row in table.rows:
            if row.cells is None:
                report_dropped(f"{table.name}:{row.line_number}", "not as many cells as the header")
                continue
            try:
                utterance = _utterance(folder / "clips", row.cells, durations_s, table=name)
            except InputError as error:
                clip = row.cells["path"] or f"{table.name}:{row.line_number}"
                report_dropped(clip, str(error))
                continue
            yield Recording(utterance)


def _utterance(
    clips: Path, cells: dict[str, str], durations_s: dict[str, float], *, table: str
) -> Utterance:
    """One row as an utterance; raises InputError with the reason to leave it out."""
    name = cells["path"]
    if not name or Path(name).name != name:
        raise InputError("its path is not the name of a file")
    clip = clips / name
    if not os.path.isfile(clip):  # also False if no file can have this name
        raise InputError(f"{table}.tsv names it, clips/ does not have it")
    text = text_to_say(cells["sentence"])
    duration_s = durations_s.get(name) or round(audio_duration_s(clip), 3)
    return Utterance(
        id=clip.stem,
        audio=str(clip.resolve()),
        text=text,
        duration_s=duration_s,
        speaker=cells["client_id"],
        dialect=_dialect_of(cells),
        corpus="common_voice",
        split="train",
        license="CC0-1.0",
    )


def _dialect_of(row: dict[str, str]) -> str:
    found = find_dialects(f"{row.get('variant') or ''} {row.get('accents') or ''}")
    return found.pop() if len(found) == 1 else "unknown"


def _read_clip_durations(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    durations_s = {}
    table = _read_tsv(path, ("clip", "duration[ms]"))
    for row in table.rows:
        cells = row.cells or {"clip": "", "duration[ms]": ""}
        # Clips last an hour at most; eight digits of milliseconds are a day.
        if re.fullmatch("[0-9]{1,8}", cells["duration[ms]"]) is None:
            raise InputError(
                f"{path}:{row.line_number}: expected a clip and its milliseconds, got "
                f"{cells['duration[ms]'][:40]!r}"
            )
        durations_s[cells["clip"]] = int(cells["duration[ms]"]) / 1000
    return durations_s


def _read_tsv(path: Path, columns: tuple[str, ...]) -> DelimitedTable:
    if not path.is_file():
        raise InputError(f"{path}: no such file; is the corpus complete?")
    content = read_regular(path, max_bytes=MAX_TABLE_BYTES)
    table = read_delimited_table(content, str(path), row_per_line=True, quoted=False)
    table.require(columns)
    return table
