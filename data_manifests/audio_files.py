"""Open a recording, wherever it lies and whatever its format is: a file, a member of an archive, a
row of a table, an object on a store.

libsndfile reads WAV, FLAC, Ogg, MP3 and others; what phones record is decoded by `phone_audio.py`
first. Which of the two is told by the first bytes of the file, and not by its name. Every command
opens recordings here, so that all of them hear the same samples.
"""

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

import soundfile

from commands.errors import InputError
from commands.regular_files import open_regular
from commands.stores import is_url, read_object, url_of
from data_manifests.audio_defects import AudioDefect, MissingAudio
from data_manifests.contained_audio import (
    MAX_MEMBER_BYTES,
    NotThere,
    Reference,
    find_reference,
    read_contained,
)
from data_manifests.phone_audio import NUM_FIRST_BYTES, decode_phone_audio, find_phone_format

# Telephones record at 8 kHz, studios at up to 384 kHz; another rate is a damaged header.
MIN_SAMPLE_RATE_HZ = 4_000
MAX_SAMPLE_RATE_HZ = 384_000
MAX_CHANNELS = 64
# System errors, not defects of the recording.
_NOT_THE_FILES_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


@contextlib.contextmanager
def open_audio(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a recording: the same file from its header to its last sample.

    Raises:
        AudioDefect: missing, not a regular file, empty, not audio, or with a header that is not
            that of a recording.
        MissingPyAV: it was made by a phone, and PyAV is not installed.
    """
    reference = find_reference(path)
    try:
        if reference is not None or is_url(path):
            encoded = _read_reference(reference) if reference else _read_whole(path)
            with open_encoded(encoded, url_of(path)) as sound:
                yield sound
            return
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise AudioDefect(f"{url_of(path)}: empty file (0 bytes)")
            # Not `read`: libsndfile begins where the descriptor is, which buffers move.
            if find_phone_format(os.pread(file.fileno(), NUM_FIRST_BYTES, 0)):
                decoded = decode_phone_audio(file, url_of(path))
                with _sound_file(io.BytesIO(decoded.encode("WAV")), url_of(path)) as sound:
                    yield sound
                return
            # By descriptor: given a name, libsndfile takes any "x.au", "x.gsm" or "x.vox" for
            # audio.
            with _sound_file(file.fileno(), url_of(path)) as sound:
                yield sound
    except OSError as error:
        if error.errno in _NOT_THE_FILES_FAULT:
            raise
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise MissingAudio(f"{url_of(path)}: no such audio file") from None
        raise AudioDefect(f"{url_of(path)}: {error.strerror or error}") from None


@contextlib.contextmanager
def open_encoded(encoded: bytes, name: str) -> Iterator[soundfile.SoundFile]:
    """Open a recording that was stored in an archive or a table.

    Args:
        encoded: the whole file.
        name: what to call it in messages.

    Raises:
        AudioDefect, MissingPyAV: as `open_audio`.
    """
    if not encoded:
        raise AudioDefect(f"{name}: empty file (0 bytes)")
    if find_phone_format(encoded[:NUM_FIRST_BYTES]):
        encoded = decode_phone_audio(io.BytesIO(encoded), name).encode("WAV")
    with _sound_file(io.BytesIO(encoded), name) as sound:
        yield sound


def is_phone_audio(path: Path) -> bool:
    """Whether a file on this disk is a recording that PyAV must decode; False if there is none."""
    try:
        with open_regular(path) as file:
            return find_phone_format(file.read(NUM_FIRST_BYTES)) is not None
    except OSError:
        return False


def reason_of(error: Exception) -> str:
    """libsndfile's own words, without the path it repeats."""
    return str(error).split(": ")[-1].rstrip(".")


def _read_reference(reference: Reference) -> bytes:
    """The bytes of a recording in an archive or a table; AudioDefect if it is not there."""
    try:
        return read_contained(reference)
    except NotThere as error:
        raise MissingAudio(str(error)) from None
    except InputError as error:
        raise AudioDefect(str(error)) from None


def _read_whole(path: Path) -> bytes:
    """The bytes of a recording that is an object on a store."""
    encoded = read_object(path, size=MAX_MEMBER_BYTES + 1)
    if len(encoded) > MAX_MEMBER_BYTES:
        raise AudioDefect(f"{url_of(path)}: over {MAX_MEMBER_BYTES} bytes, which no recording has")
    return encoded


@contextlib.contextmanager
def _sound_file(file: int | io.BytesIO, name: str) -> Iterator[soundfile.SoundFile]:
    """Open audio; AudioDefect if it is not audio, or its header is not that of a recording."""
    try:
        sound = soundfile.SoundFile(file, closefd=False)
    except soundfile.SoundFileError as error:
        raise AudioDefect(f"{name}: not readable as audio ({reason_of(error)})") from None
    with sound:
        if not MIN_SAMPLE_RATE_HZ <= sound.samplerate <= MAX_SAMPLE_RATE_HZ:
            raise AudioDefect(
                f"{name}: its header says {sound.samplerate} Hz, recordings have "
                f"{MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ}"
            )
        if not 1 <= sound.channels <= MAX_CHANNELS:
            raise AudioDefect(f"{name}: its header says {sound.channels} channels")
        if sound.frames == 0:
            raise AudioDefect(f"{name}: empty audio (0 samples)")
        yield sound
