"""Common Voice Twi: a small crowd-sourced corpus, in Mozilla's own layout."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_manifests.audio import audio_info
from data_manifests.corpora.dialect_names import find_dialects
from data_manifests.corpora.recording import Recording, ReportDropped
from data_manifests.errors import InputError
from data_manifests.manifest import Utterance
from data_manifests.twi_text import is_speakable, normalize_for_training

COMMON_VOICE_TABLES = ("validated", "other", "invalidated")


def common_voice(
    folder: Path, report_dropped: ReportDropped, *, tables: Sequence[str] = ("validated",)
) -> Iterator[Recording]:
    """Mozilla Common Voice, Scripted Speech, Twi (`tw`), any release.

    Ardila et al., "Common Voice: A Massively-Multilingual Speech Corpus", LREC 2020. CC0-1.0;
    whoever downloads it promises not to try to identify speakers. Releases come from Mozilla Data
    Collective.

    Layout: `clips/*.mp3` (32 kHz), `train.tsv dev.tsv test.tsv validated.tsv other.tsv
    invalidated.tsv`, `clip_durations.tsv` (milliseconds). TSVs are unquoted: a stray `"` is part of
    the sentence.

    Known problems: the Twi release is tiny (0.3 h), nearly all one man; `dev.tsv` and `test.tsv`
    may be empty, so the official splits are not used and `data_manifests.build` makes its own;
    sentences carry stray bullets and quotes; readers report them to be Akuapem, but no column says
    so, hence "unknown".

    Args:
        folder: the folder that holds `clips/`, usually `cv-corpus-.../tw`.
        report_dropped: told about every row that is left out.
        tables: of "validated", "other" (not yet voted on), "invalidated" (voted down, or a tie).

    Raises:
        InputError: a file of the layout is missing, or a table lacks a column.
    """
    if not (folder / "clips").is_dir():
        raise InputError(f"{folder}: not a Common Voice folder (no clips/ in it)")
    durations_s = _read_clip_durations(folder / "clip_durations.tsv")
    for table in tables:
        for row in _read_tsv(folder / f"{table}.tsv", ("client_id", "path", "sentence")):
            clip = folder / "clips" / row["path"]
            if not clip.is_file():
                report_dropped(row["path"], f"{table}.tsv names it, clips/ does not have it")
                continue
            text = normalize_for_training(row["sentence"])
            if not is_speakable(text):
                report_dropped(row["path"], f"nothing to say in {row['sentence']!r}")
                continue
            try:
                duration_s = durations_s.get(row["path"]) or round(audio_info(clip).duration_s, 3)
            except InputError as error:
                report_dropped(row["path"], str(error))
                continue
            utterance = Utterance(
                id=clip.stem,
                audio=str(clip.resolve()),
                text=text,
                duration_s=duration_s,
                speaker=row["client_id"],
                dialect=_dialect_of(row),
                corpus="common_voice",
                split="train",
                license="CC0-1.0",
            )
            yield Recording(utterance)


def _dialect_of(row: dict[str, str]) -> str:
    found = find_dialects(f"{row.get('variant') or ''} {row.get('accents') or ''}")
    return found.pop() if len(found) == 1 else "unknown"


def _read_clip_durations(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    rows = _read_tsv(path, ("clip", "duration[ms]"))
    return {row["clip"]: int(row["duration[ms]"]) / 1000 for row in rows}


def _read_tsv(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; is the corpus complete?")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise InputError(f"{path}:1: no column {missing[0]!r}")
        for row in reader:
            if any(row[column] is None for column in columns):
                raise InputError(f"{path}:{reader.line_num}: fewer columns than the header")
            yield row
