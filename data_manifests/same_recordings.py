"""Find recordings that are in a mixture twice: in two corpora, under other names, in other formats.

A mirror of a corpus may have lost its speakers. Then a recording of a test speaker would be trained
on under another name. So recordings of one sentence are compared by what is heard, by
`audio_fingerprint.py`, where they are

- of two sources: two corpora, or two that are read through `dataset`, `table` or `manifest`;
- of one source and two speakers, and equally long to the millisecond;
- of a corpus of which recordings are held out, so that nothing else keeps copies together.

Only these are decoded, each once. Of two that are the same, one stays: that of a speaker held out
by name; then that of a corpus whose own splits are kept; then that of the corpus that comes first
in `build_settings.CORPORA`, and of several datasets the one that was named first.

Time grows with the number of recordings, and within one sentence with its square, about a
millisecond a pair. In memory are a few numbers of each; fingerprints, a kilobyte a second, are
on disk.
"""

# N utterances, C candidates

import base64
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from commands.errors import InputError
from data_manifests.audio import DecodedAudio, decode_audio, decode_encoded
from data_manifests.audio_fingerprint import (
    MIN_SHARED,
    Fingerprint,
    fingerprint,
    is_same_recording,
)
from data_manifests.corpora.recording import Recording
from data_manifests.corpora.recording_spool import RecordingSpool
from data_manifests.hash_set import hash_text
from data_manifests.held_out import comparison_key
from data_manifests.line_writer import LineWriter
from data_manifests.manifest import SPLITS
from data_manifests.phone_audio import MissingPyAV
from data_manifests.split_columns import DEV, TEST, TRAIN, SplitColumns

NO_COPY = -1


class ComparedColumns:
    """What finding copies needs of every utterance besides `SplitColumns`: 10 bytes a row."""

    def __init__(self) -> None:
        self._spoken = array("Q")
        self._source = array("H")

    def add(self, text: str, source: int) -> None:
        """Append an utterance; sources have numbers, and of two copies the lower one's stays."""
        self._spoken.append(hash_text(comparison_key(text)))
        self._source.append(source)

    @property
    def spoken(self) -> np.ndarray:
        """Hashes of what is said, with e and o for ɛ and ɔ and without spaces, uint64."""
        return np.frombuffer(self._spoken, dtype=np.uint64)

    @property
    def source(self) -> np.ndarray:
        """Numbers of the sources, uint16."""
        return np.frombuffer(self._source, dtype=np.uint16)


@dataclass(frozen=True)
class FoundCopies:
    """What was found.

    Attributes:
        original_N: int64, of each copy the row that stays, `NO_COPY` of all others.
        num_compared: recordings that were decoded.
        num_unreadable: of these, those that could not be.
    """

    original_N: np.ndarray
    num_compared: int
    num_unreadable: int

    @property
    def is_copy_N(self) -> np.ndarray:
        """The copies, bool."""
        return self.original_N != NO_COPY


def find_copies(
    columns: SplitColumns, compared: ComparedColumns, spool: RecordingSpool, lines: LineWriter
) -> FoundCopies:
    """Compare the recordings of a mixture.

    Args:
        columns, compared, spool: of the same utterances, in the same order.
        lines: takes the fingerprints.

    Raises:
        MissingPyAV: a recording was made by a phone, and PyAV is not installed.
    """
    rows_C = np.flatnonzero(_are_candidates(columns, compared))
    begins, num_loud = array("q"), array("I")
    recordings = spool.read(rows_C, np.zeros(len(columns), dtype=np.uint8))
    for recording in tqdm(recordings, "compare", len(rows_C), unit=" recordings"):
        found = _fingerprint_of(recording)
        line = base64.b64encode(found.to_bytes()) + b"\n" if found else b""
        begins.append(lines.write(line) if found else NO_COPY)
        num_loud.append(found.num_loud if found else 0)
    candidates = _Candidates(
        source_C=compared.source[rows_C],
        speaker_C=columns.speaker[rows_C],
        milliseconds_C=_milliseconds(columns)[rows_C],
        is_compared_whole_C=_hold_out_recordings(columns)[rows_C],
        num_loud_C=np.frombuffer(num_loud, dtype=np.uint32).astype(np.int64),
    )
    order_C = np.lexsort((*_rank(columns, compared, rows_C), compared.spoken[rows_C]))
    order_C = order_C[candidates.num_loud_C[order_C] > 0]
    starts = np.flatnonzero(np.diff(compared.spoken[rows_C[order_C]]) != 0) + 1
    original_N = np.full(len(columns), NO_COPY)
    for of_sentence in np.split(order_C, starts):
        encoded = lines.read(begins[number] for number in of_sentence.tolist())
        fingerprints = [Fingerprint.from_bytes(base64.b64decode(line)) for line in encoded]
        for copy, original in candidates.find_copies(of_sentence, fingerprints):
            original_N[rows_C[copy]] = rows_C[original]
    return FoundCopies(original_N, len(rows_C), len(rows_C) - len(order_C))


@dataclass(frozen=True)
class _Candidates:
    """What decides which recordings are compared with which."""

    source_C: np.ndarray
    speaker_C: np.ndarray
    milliseconds_C: np.ndarray
    is_compared_whole_C: np.ndarray
    num_loud_C: np.ndarray

    def find_copies(
        self, numbers: np.ndarray, fingerprints: list[Fingerprint]
    ) -> Iterator[tuple[int, int]]:
        """Every copy among recordings of one sentence, with its original.

        Args:
            numbers: of the recordings; those that stay come first.
            fingerprints: of the same recordings.
        """
        source, speaker = self.source_C[numbers], self.speaker_C[numbers]
        milliseconds, num_loud = self.milliseconds_C[numbers], self.num_loud_C[numbers]
        is_whole = self.is_compared_whole_C[numbers]
        stays = np.ones(len(numbers), dtype=bool)
        for i in range(1, len(numbers)):
            are_compared = (source[:i] != source[i]) | (is_whole[:i] & is_whole[i])
            are_compared |= (speaker[:i] != speaker[i]) & (milliseconds[:i] == milliseconds[i])
            are_compared &= num_loud[:i] >= MIN_SHARED * num_loud[i]
            are_compared &= num_loud[i] >= MIN_SHARED * num_loud[:i]
            others = np.flatnonzero(are_compared & stays[:i])
            # The most similar length first: a copy is soon found.
            order = np.argsort(np.abs(num_loud[others] - num_loud[i]), kind="stable")
            for j in others[order].tolist():
                if is_same_recording(fingerprints[i], fingerprints[j]):
                    stays[i] = False
                    yield int(numbers[i]), int(numbers[j])
                    break


def _are_candidates(columns: SplitColumns, compared: ComparedColumns) -> np.ndarray:
    """The utterances that are compared with any other, bool `[N]`."""
    spoken_N, source_N = compared.spoken, compared.source
    milliseconds_N = _milliseconds(columns)
    are_candidates_N = _differ_within((spoken_N,), source_N)
    are_candidates_N |= _differ_within((spoken_N, source_N, milliseconds_N), columns.speaker)
    if columns.settings.holds_out_recordings:
        rows = np.flatnonzero(_hold_out_recordings(columns))
        are_candidates_N[rows] |= _differ_within((spoken_N[rows],), np.arange(len(rows)))
    return are_candidates_N


def _differ_within(keys: tuple[np.ndarray, ...], values_N: np.ndarray) -> np.ndarray:
    """The rows with whose keys there are two values, bool `[N]`."""
    order_N = np.lexsort(keys)
    is_first_N = np.zeros(len(order_N), dtype=bool)
    is_first_N[:1] = True
    for key_N in keys:
        sorted_N = key_N[order_N]
        is_first_N[1:] |= sorted_N[1:] != sorted_N[:-1]
    starts = np.flatnonzero(is_first_N)
    found_N = np.zeros(len(order_N), dtype=bool)
    if len(starts):
        least = np.minimum.reduceat(values_N[order_N], starts)
        most = np.maximum.reduceat(values_N[order_N], starts)
        found_N[order_N] = np.repeat(least != most, np.diff(starts, append=len(order_N)))
    return found_N


def _rank(
    columns: SplitColumns, compared: ComparedColumns, rows_C: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Keys of `numpy.lexsort`, the last one first: the recordings that stay come before others."""
    settings = columns.settings
    own = [i for i, corpus in enumerate(columns.corpora) if corpus in settings.with_own_splits]
    has_own_C = np.isin(columns.corpus[rows_C], own)
    # Of a corpus's own splits, test before dev before train.
    order_of_split = np.array([{TEST: 0, DEV: 1, TRAIN: 2}[split] for split in range(len(SPLITS))])
    own_C = np.where(has_own_C, order_of_split[columns.own_split[rows_C]], len(SPLITS))
    keys: tuple[np.ndarray, ...] = (rows_C, compared.source[rows_C], own_C)
    if settings.names_speakers:
        keys += (columns.named_split[rows_C] == TRAIN,)
    return keys


def _hold_out_recordings(columns: SplitColumns) -> np.ndarray:
    """The utterances of corpora of which recordings are held out, bool `[N]`."""
    held_out = [columns.settings.held_out_of(corpus) == "recording" for corpus in columns.corpora]
    return np.array(held_out, dtype=bool)[columns.corpus]


def _milliseconds(columns: SplitColumns) -> np.ndarray:
    return np.round(columns.duration_s * 1000).astype(np.int64)


def _fingerprint_of(recording: Recording) -> Fingerprint | None:
    """What a recording sounds like; None if it cannot be decoded, of which `check` says more."""
    try:
        return fingerprint(_decode(recording))
    except MissingPyAV:
        raise
    except InputError:
        return None


def _decode(recording: Recording) -> DecodedAudio:
    utterance = recording.utterance
    if recording.audio_bytes is not None:
        return decode_encoded(recording.audio_bytes(), utterance.id)
    if utterance.start_s is None:
        return decode_audio(Path(utterance.audio))
    return decode_audio(
        Path(utterance.audio), start_s=utterance.start_s, duration_s=utterance.duration_s
    )
