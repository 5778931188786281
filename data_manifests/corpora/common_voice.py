"""Common Voice Twi: a small crowd-sourced corpus, in Mozilla's own layout."""

import os
import re
import stat
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from commands.errors import InputError
from data_manifests.audio import audio_duration_s
from data_manifests.corpora.delimited_table import TableRow, stream_table
from data_manifests.corpora.dialect_names import find_dialects
from data_manifests.corpora.recording import Recording, ReportDropped, text_to_say
from data_manifests.hash_set import hash_text
from data_manifests.manifest import Utterance

COMMON_VOICE_TABLES = ("validated", "other", "invalidated")
# Clips last an hour at most; eight digits of milliseconds are a day.
_MILLISECONDS = re.compile("[0-9]{1,8}")


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
    clips = _Clips(folder / "clips", _ClipDurations(folder / "clip_durations.tsv"))
    for name in tables:
        path = folder / f"{name}.tsv"
        for row in _stream_tsv(path, ("client_id", "path", "sentence")):
            if row.cells is None:
                report_dropped(f"{path}:{row.line_number}", "not as many cells as the header")
                continue
            try:
                utterance = _utterance(clips, row.cells, table=name)
            except InputError as error:
                clip = row.cells["path"] or f"{path}:{row.line_number}"
                report_dropped(clip, str(error))
                continue
            yield Recording(utterance)


class _ClipDurations:
    """Durations of millions of clips, 12 bytes each; none if there is no such table."""

    def __init__(self, path: Path) -> None:
        hashes, milliseconds = array("Q"), array("I")
        rows = _stream_tsv(path, ("clip", "duration[ms]")) if path.is_file() else iter(())
        for row in rows:
            cells = row.cells or {"clip": "", "duration[ms]": ""}
            if _MILLISECONDS.fullmatch(cells["duration[ms]"]) is None:
                raise InputError(
                    f"{path}:{row.line_number}: expected a clip and its milliseconds, got "
                    f"{cells['duration[ms]'][:40]!r}"
                )
            hashes.append(hash_text(cells["clip"]))
            milliseconds.append(int(cells["duration[ms]"]))
        order = np.argsort(np.frombuffer(hashes, dtype=np.uint64), kind="stable")
        self._hashes = array("Q", np.frombuffer(hashes, dtype=np.uint64)[order].tobytes())
        ordered = np.frombuffer(milliseconds, dtype=np.uint32)[order]
        self._milliseconds = array("I", ordered.tobytes())

    def find(self, clip: str) -> float | None:
        """Seconds of a clip; of one that is there twice, the last; None if it is not there."""
        hashed = hash_text(clip)
        position = bisect_right(self._hashes, hashed) - 1
        if position < 0 or self._hashes[position] != hashed:
            return None
        return self._milliseconds[position] / 1000


class _Clips:
    """The folder `clips/`."""

    def __init__(self, folder: Path, durations: _ClipDurations) -> None:
        self.folder = folder
        self.durations = durations
        self._resolved = str(folder.resolve())

    def find(self, name: str) -> str | None:
        """The absolute path of a clip, links resolved; None if there is no such file."""
        path = f"{self.folder}/{name}"
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError):  # also where no file can have this name
            return None
        if stat.S_ISREG(mode):
            return f"{self._resolved}/{name}"
        return os.path.realpath(path) if os.path.isfile(path) else None


def _utterance(clips: _Clips, cells: dict[str, str], *, table: str) -> Utterance:
    """One row as an utterance; raises InputError with the reason to leave it out."""
    name = cells["path"]
    if name in ("", ".") or "/" in name:
        raise InputError("its path is not the name of a file")
    audio = clips.find(name)
    if audio is None:
        raise InputError(f"{table}.tsv names it, clips/ does not have it")
    stem, _, suffix = name.rpartition(".")
    text = text_to_say(cells["sentence"])
    duration_s = clips.durations.find(name) or round(audio_duration_s(clips.folder / name), 3)
    return Utterance(
        id=stem if stem and suffix else name,
        audio=audio,
        text=text,
        duration_s=duration_s,
        speaker=cells["client_id"],
        dialect=_dialect_of(cells),
        corpus="common_voice",
        split="train",
        license="CC0-1.0",
    )


def _dialect_of(row: dict[str, str]) -> str:
    named = f"{row.get('variant') or ''} {row.get('accents') or ''}"
    found = find_dialects(named) if named != " " else set()
    return found.pop() if len(found) == 1 else "unknown"


def _stream_tsv(path: Path, columns: tuple[str, ...]) -> Iterator[TableRow]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; is the corpus complete?")
    yield from stream_table(path, columns)
