"""Recordings on disk while the splits are made: they need half a kilobyte each, and a corpus has
millions."""

from array import array
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import numpy as np
from pydantic_core import from_json, to_json

from data_manifests.corpora.recording import Recording, StoredAudio
from data_manifests.line_writer import LineWriter
from data_manifests.manifest import COLUMNS, SPLITS, Utterance

ROWS_AT_A_TIME = 4096

_values_of = attrgetter(*COLUMNS)


class RecordingSpool:
    """Recordings in the order in which they came; of each only its place is kept in memory, which
    is 8 bytes."""

    def __init__(self, lines: LineWriter) -> None:
        self._lines = lines
        self._begins = array("Q")
        self._readers: list[Callable[[Any], bytes]] = []

    def __len__(self) -> int:
        return len(self._begins)

    def add(self, recording: Recording) -> None:
        """Append a recording; its note is not kept."""
        values = _values_of(recording.utterance)
        stored = recording.audio_bytes
        if stored is not None:
            values += (self._number_of(stored.read), stored.place)
        self._begins.append(self._lines.write(to_json(values) + b"\n"))

    def read(self, numbers_N: np.ndarray, splits: np.ndarray) -> Iterator[Recording]:
        """Read recordings back.

        Args:
            numbers_N: which ones, int; 0 for the first that was added.
            splits: the split of every recording there is, a position in `SPLITS`.
        """
        for start in range(0, len(numbers_N), ROWS_AT_A_TIME):
            numbers = numbers_N[start : start + ROWS_AT_A_TIME]
            lines = self._lines.read([self._begins[number] for number in numbers.tolist()])
            for line, split in zip(lines, splits[numbers].tolist(), strict=True):
                values = from_json(line)
                fields = dict(zip(COLUMNS, values, strict=False))
                fields["split"] = SPLITS[split]
                stored = values[len(COLUMNS) :]
                audio = StoredAudio(self._readers[stored[0]], stored[1]) if stored else None
                yield Recording(Utterance(**fields), audio)

    def _number_of(self, reader: Callable[[Any], bytes]) -> int:
        """A reader's position in the list; there is one for each archive or table."""
        for number, known in enumerate(self._readers):
            if known == reader:  # bound methods are equal, not the same
                return number
        self._readers.append(reader)
        return len(self._readers) - 1
