"""Read the recordings of all requested corpora once, and write their audio as files."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from commands.atomic_write import ASIDE_SUFFIX, written_aside
from commands.errors import InputError
from commands.licenses import UNKNOWN_LICENSE, is_allowed
from data_manifests.corpora.dropped_rows import DroppedRows
from data_manifests.corpora.recording import CorpusRecordings, Recording
from data_manifests.corpora.recording_spool import RecordingSpool
from data_manifests.hash_set import HashSet, hash_text
from data_manifests.line_writer import LineWriter
from data_manifests.manifest import Utterance
from data_manifests.same_recordings import ComparedColumns
from data_manifests.speaker_dialects import SpeakerDialects
from data_manifests.split_columns import SplitColumns
from data_manifests.twi_dialects import guess_dialect

_PLAIN_NAME = re.compile(r"(?![.-])[^/\\:*?\"<>|\x00-\x1f\x7f]+")
MAX_PLAIN_BYTES = 200  # file systems allow 255, and a file being written has a longer name


class _ReadRows:
    """What has been read of a corpus: the number of rows, and a hash of ids, texts and speakers."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.digest = hashlib.sha256()


@dataclass
class CollectedRecordings:
    """Recordings of all corpora, in order: on disk, and in memory what splitting needs of them.

    Attributes:
        spool: the recordings.
        columns: what splitting needs.
        compared: what finding copies needs.
        rewritten: lists the transcripts in which more than the spelling was changed.
        num_rewritten: their number, by corpus.
        licenses: of corpora whose rows are under another licence than their recipe says.
        allow_licenses: licences of rows that are kept; of all, if it is empty.
        speaker_dialects: evidence of each speaker's dialect, if it is to be guessed by speaker.
    """

    spool: RecordingSpool
    columns: SplitColumns
    compared: ComparedColumns
    rewritten: LineWriter
    num_rewritten: Counter[str] = field(default_factory=Counter)
    licenses: Mapping[str, str] = field(default_factory=dict)
    allow_licenses: Collection[str] = ()
    speaker_dialects: SpeakerDialects | None = None
    _read: dict[str, _ReadRows] = field(default_factory=dict)

    def with_license(self, recording: Recording) -> Recording:
        """A recording with its corpus's licence, if another one was named for it; InputError, the
        reason to leave it out, if its licence is not allowed."""
        u = recording.utterance
        license = self.licenses.get(u.corpus, u.license)
        if not is_allowed(license, self.allow_licenses):
            raise InputError(f"its licence, {license or UNKNOWN_LICENSE}, is not allowed")
        if license == u.license:
            return recording
        return replace(recording, utterance=replace(u, license=license))

    def add(self, recording: Recording, source: int) -> None:
        """Append a recording of a source."""
        u = recording.utterance
        self.spool.add(recording)
        self.columns.add(u)
        self.compared.add(u.text, source)
        if self.speaker_dialects is not None:
            self.speaker_dialects.add(u)
        of_corpus = self._read.get(u.corpus) or self._read.setdefault(u.corpus, _ReadRows())
        of_corpus.num_rows += 1
        of_corpus.digest.update(f"{u.id}\0{u.text}\0{u.speaker}\n".encode())
        if recording.note:
            row = {"corpus": u.corpus, "id": u.id, "text": u.text, "note": recording.note}
            self.rewritten.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            self.num_rewritten[u.corpus] += 1

    def guess_dialects(self) -> np.ndarray | None:
        """What is guessed of each recording by its speaker, as `SpeakerDialects.guess` has it; None
        if nothing is to be guessed by speaker."""
        if self.speaker_dialects is None:
            return None
        return self.speaker_dialects.guess(self.columns.speaker)

    def provenance(self) -> dict[str, dict[str, Any]]:
        """Each corpus's number of rows, and a hash of their ids and texts; hashing the audio would
        take longer than preparing it."""
        return {
            corpus: {"rows": read.num_rows, "sha256": read.digest.hexdigest()}
            for corpus, read in self._read.items()
        }


def collect_recordings(
    corpora: Sequence[CorpusRecordings],
    dropped: DroppedRows,
    collected: CollectedRecordings,
) -> None:
    """Read every corpus to its end.

    If a recording's dialect is unknown, its utterance gets a `dialect_guess` where its spelling
    allows one.

    Args:
        corpora: the recordings of each.
        dropped: rows that are left out are added to it, with the reason.
        collected: every recording is added to it; the first of two with the same id.

    Raises:
        InputError: a corpus without a usable utterance, or none at all under an allowed licence.
    """
    ids = HashSet()
    num_collected = 0
    for corpus in corpora:
        name, num_before = corpus.name, len(ids)
        for recording in tqdm(corpus.recordings, desc=name, unit=" utterances"):
            utterance = recording.utterance
            if not ids.add(hash_text(utterance.id)):
                reason = f"its id is that of another recording of {name}"
                dropped.add(name, utterance.id, reason)
                continue
            try:
                licensed = collected.with_license(recording)
            except InputError as error:
                dropped.add(name, utterance.id, str(error))
                continue
            collected.add(_with_dialect_guess(licensed), corpus.source)
            num_collected += 1
        if len(ids) == num_before:
            most = "; ".join(
                f"{found.reason} ({found.num_rows})"
                for found in dropped.most_common(1, corpus=name)
            )
            raise InputError(f"{name}: no usable utterance{': ' + most if most else ''}")
    if not num_collected:
        raise InputError("--allow-licenses: no utterance is under one of these licences")


def _with_dialect_guess(recording: Recording) -> Recording:
    if recording.utterance.dialect != "unknown":
        return recording
    guess = guess_dialect(recording.utterance.text)
    if guess == "unknown":
        return recording
    return replace(recording, utterance=replace(recording.utterance, dialect_guess=guess))


class AudioFolder:
    """Copies audio out of archives and tables into `out/audio/<corpus>/`; existing files are
    kept."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._inside = f"{out.resolve()}/"
        self._taken = HashSet()

    def write(self, recording: Recording) -> Utterance:
        """Write a recording's audio, unless it is a file already.

        Returns:
            The utterance, with `audio` relative to `out` if it lies below it, so that the folder
            can be moved, else absolute.
        """
        utterance = recording.utterance
        if recording.audio_bytes is None:
            if not utterance.audio.startswith(self._inside):
                return utterance
            return replace(utterance, audio=utterance.audio.removeprefix(self._inside))
        name = _safe_name(utterance)
        if not self._taken.add(hash_text(utterance.corpus, name.casefold())):
            name = _made_name(utterance)
            self._taken.add(hash_text(utterance.corpus, name.casefold()))
        relative = Path("audio", utterance.corpus, name)
        path = self._out / relative
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside:
                aside.write_bytes(recording.audio_bytes())
        return replace(utterance, audio=str(relative))


def _safe_name(utterance: Utterance) -> str:
    """The file name that a corpus gives a recording, or one made from its id if that could lead
    elsewhere, be too long, or look like an unfinished file."""
    name = utterance.audio
    is_plain = (
        _PLAIN_NAME.fullmatch(name)
        and len(name.encode()) <= MAX_PLAIN_BYTES
        and not name.endswith(ASIDE_SUFFIX)
    )
    return name if is_plain else _made_name(utterance)


def _made_name(utterance: Utterance) -> str:
    suffix = PurePosixPath(utterance.audio).suffix
    made = hashlib.sha256(utterance.id.encode()).hexdigest()[:32]
    return made + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "")
