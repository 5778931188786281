"""Recordings that were decoded to know their length, kept as FLAC until they are copied: once is
enough.

    with converted_audio(out / "converted.tmp") as converted:
        stored = converted.add(flac)
        stored() == flac
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from commands.atomic_write import remove, write_errors
from data_manifests.corpora.recording import StoredAudio


class ConvertedAudio:
    """A file of recordings, one after another; `converted_audio` makes and removes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b")
        self._num_bytes = 0

    def add(self, encoded: bytes) -> StoredAudio:
        """Append a recording; WriteError if the disk is full."""
        with write_errors(self._path):
            self._file.seek(0, 2)
            self._file.write(encoded)
        self._num_bytes += len(encoded)
        return StoredAudio(self._read, f"{self._num_bytes - len(encoded)}:{len(encoded)}")

    def close(self) -> None:
        """Write and read nothing more."""
        with contextlib.suppress(OSError):  # a full disk, which `add` has reported
            self._file.close()

    # One function for all recordings: `RecordingSpool` tells them by it.
    def _read(self, place: str) -> bytes:
        start, _, size = place.partition(":")
        self._file.seek(int(start))
        return self._file.read(int(size))


@contextlib.contextmanager
def converted_audio(path: Path) -> Iterator[ConvertedAudio]:
    """Keep recordings in a file that is removed when the block ends."""
    with write_errors(path):
        converted = ConvertedAudio(path)
    try:
        yield converted
    finally:
        converted.close()
        remove(path)
