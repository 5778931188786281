"""Read any Hugging Face audio dataset: on the Hub, saved to disk, Parquet, a folder of audio."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from commands.errors import InputError
from data_manifests.audio import audio_duration_s, encoded_duration_s
from data_manifests.corpora.dataset_rows import Columns, DatasetRow, DatasetRows, open_rows
from data_manifests.corpora.dialect_names import find_dialects
from data_manifests.corpora.recording import Recording, ReportDropped, text_to_say
from data_manifests.hash_set import HashSet, hash_text
from data_manifests.manifest import Utterance
from data_manifests.phone_audio import PHONE_SUFFIXES, MissingPyAV, find_phone_format

AUDIO_SUFFIXES = (".flac", ".mp3", ".ogg", ".opus", ".wav")
_NOT_IN_FILE_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]')


def audio_dataset(
    source: str,
    report_dropped: ReportDropped,
    *,
    corpus: str,
    dialect: str,
    license: str,
    text_column: str,
    audio_column: str = "audio",
    speaker_column: str | None = None,
    id_column: str | None = None,
    dialect_column: str | None = None,
    config: str | None = None,
    official_splits: Mapping[str, str] | None = None,
    copy_audio: bool = True,
) -> Iterator[Recording]:
    """Read any Hugging Face dataset with an audio and a text column; cite and license it as its
    card says.

    Layout: a name on the Hub, or a local path: a folder written by `save_to_disk`, a Parquet file
    or a folder of them, or a folder of audio with `metadata.csv` or `metadata.jsonl` (its audio
    column is then "audio"). No code of a dataset is ever run.

    Known problems: `datasets` copies Parquet into its cache (HF_HOME), which takes the disk space
    twice, unless `copy_audio` is off. Folders of audio on the Hub need the package torchcodec;
    local ones do not. Without a speaker column all recordings count as one speaker, and speakers
    cannot be held out.

    Args:
        source: name on the Hub or local path.
        report_dropped: called for every row that is left out.
        corpus: its name in the manifest.
        dialect: dialect of the rows whose `dialect_column` does not decide it.
        license: SPDX name, as in "CC-BY-4.0".
        text_column: column of transcripts.
        audio_column: column of recordings.
        speaker_column: None if there is none; the speaker is then "<corpus>/unknown".
        id_column: None numbers the rows.
        dialect_column: its cells decide the dialect if they name one, as in "Asante Twi".
        config: which of the dataset's configurations to use; None if it has only one.
        official_splits: the dataset's split names -> ours, if they can be trusted, as in
            {"validation": "dev"}; all other rows are "train".
        copy_audio: off, recordings in Parquet files on this disk are named where they lie.

    Raises:
        InputError: cannot be opened (not found, offline, other configurations, no data), a column
            is missing (the message names the existing ones), or recordings would have to be copied
            and may not be.
    """
    columns = Columns(
        audio=audio_column,
        text=text_column,
        speaker=speaker_column,
        id=id_column,
        dialect=dialect_column,
    )
    yield from read_rows(
        open_rows(source, config, copy_audio=copy_audio), columns, report_dropped,
        corpus=corpus, dialect=dialect, license=license, official_splits=official_splits or {},
    )  # fmt: skip


def read_rows(
    splits: Mapping[str, DatasetRows],
    columns: Columns,
    report_dropped: ReportDropped,
    *,
    corpus: str,
    dialect: str,
    license: str,
    official_splits: Mapping[str, str],
) -> Iterator[Recording]:
    """Rows of an opened dataset as recordings; arguments and errors as in `audio_dataset`."""
    for rows in splits.values():
        rows.require(columns)
    ids = HashSet()
    for split, rows in splits.items():
        for i, row in enumerate(rows.read(columns)):
            row_id = f"{corpus}-{split}-{i:06d}"
            try:
                if row.problem:
                    raise InputError(row.problem)
                if columns.id:
                    row_id = _NOT_IN_FILE_NAMES.sub("_", str(row.cells[columns.id]))
                if hash_text(row_id) in ids:
                    raise InputError("its id is that of an earlier row")
                utterance = _utterance(
                    row, row_id, columns, corpus=corpus, dialect=dialect, license=license,
                    split=official_splits.get(split, "train"),
                )  # fmt: skip
            except MissingPyAV:
                raise
            except InputError as error:
                report_dropped(row_id, str(error))
                continue
            ids.add(hash_text(row_id))
            yield Recording(utterance, row.stored)


def _utterance(
    row: DatasetRow, row_id: str, columns: Columns,
    *, corpus: str, dialect: str, license: str, split: str,
) -> Utterance:  # fmt: skip
    """One row as an utterance; raises InputError with the reason to leave the row out."""
    cells = row.cells
    if not isinstance(cells[columns.text] or "", str):
        raise InputError(f"its text is not a string, but {type(cells[columns.text]).__name__}")
    text = text_to_say(cells[columns.text] or "")
    audio = cells[columns.audio]
    if audio is None:
        raise InputError("no audio")
    if audio["bytes"] is not None:
        duration_s = encoded_duration_s(audio["bytes"], row_id)
        where = row.reference or row_id + _suffix_of(audio)
    elif audio["path"]:
        file = Path(audio["path"])
        duration_s, where = audio_duration_s(file), str(file.resolve())
    else:
        raise InputError("no audio")
    stated = find_dialects(str(cells[columns.dialect])) if columns.dialect else set()
    speaker = cells[columns.speaker] if columns.speaker else None
    return Utterance(
        id=row_id,
        audio=where,
        text=text,
        duration_s=round(duration_s, 3),
        speaker=f"{corpus}/{'unknown' if speaker in (None, '') else speaker}",
        dialect=stated.pop() if len(stated) == 1 else dialect,
        corpus=corpus,
        split=split,
        license=license,
    )


def _suffix_of(audio: Mapping[str, Any]) -> str:
    """The file suffix, from the dataset's file name, else from the first bytes; of what phones
    record, from these alone. "" if neither tells."""
    suffix = PurePosixPath(audio["path"] or "").suffix.lower()
    if phone_format := find_phone_format(audio["bytes"]):
        return PHONE_SUFFIXES[phone_format]
    if suffix in AUDIO_SUFFIXES:
        return suffix
    for start, suffix in ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg")):
        if audio["bytes"].startswith(start):
            return suffix
    # An ID3 tag, or the eleven set bits that open an MPEG frame.
    is_mp3 = re.match(rb"ID3|\xff[\xe0-\xff]", audio["bytes"]) is not None
    return ".mp3" if is_mp3 else ""
