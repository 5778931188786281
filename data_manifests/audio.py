"""Read and write audio: any file libsndfile reads (WAV, FLAC, Ogg/Opus, MP3, ...), as mono float32.

Gemma 4 hears 16 kHz and Mimi speaks 24 kHz; `read_audio` resamples to whichever is asked for. Every
defect that would silently spoil a training run (empty, cut short, silent, NaN) is an `AudioDefect`,
a subclass of `InputError` whose `kind` says which.

Headers are not trusted: rates and lengths have limits, samples are read in blocks and counted, and
no memory is allocated on a header's word. A file's format is told by its content, not its name. In
place of a path there may be a reference into an archive or a Parquet table (`contained_audio.py`),
and the URL of an object on a store (`commands/stores.py`).
"""

import contextlib
import errno
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from commands.atomic_write import written_aside
from commands.errors import InputError
from commands.regular_files import open_regular
from commands.stores import is_url, read_object, url_of
from data_manifests.contained_audio import (
    MAX_MEMBER_BYTES,
    NotThere,
    Reference,
    find_reference,
    read_contained,
)

GEMMA_SAMPLE_RATE_HZ = 16_000  # google/gemma-4-E4B-it processor_config.json
MIMI_SAMPLE_RATE_HZ = 24_000  # kyutai/mimi config.json
# Below this peak a 16-bit file holds nothing but rounding noise (-80 dBFS).
SILENCE_PEAK = 1e-4
# Above this peak (+40 dBFS) samples are not audio levels: integers stored as floats, or damage.
IMPOSSIBLE_PEAK = 100.0
# MP3 headers announce up to two 1152-sample frames more than decode; if more are missing, the file
# is cut short.
MISSING_TOLERANCE_S = 0.15
# The longest recording, or slice of a file, that is decoded at a time.
MAX_DURATION_S = 3600.0
# Telephones record at 8 kHz, studios at up to 384 kHz; another rate is a damaged header.
MIN_SAMPLE_RATE_HZ = 4_000
MAX_SAMPLE_RATE_HZ = 384_000
MAX_CHANNELS = 64
BLOCK_SAMPLES = 2**20  # decoded at a time, of all channels together
# What writers put in place of the length of a WAV file while they do not know it yet.
UNKNOWN_LENGTH_BYTES = 2**31 - 2**16
# A line of libsndfile's log for a chunk that claims more bytes than the file holds.
_CLAIMED_BYTES = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")
# System errors, not defects of the recording.
_NOT_THE_FILES_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


class AudioDefect(InputError):
    """A recording that training must not see; `kind` names the defect in reports."""

    kind = "unreadable audio"


class MissingAudio(AudioDefect):
    """There is no such file."""

    kind = "missing audio"


class CutShort(AudioDefect):
    """Fewer samples decode than the header, or the slice, promises."""

    kind = "cut short"


class SilentAudio(AudioDefect):
    """Nothing but rounding noise."""

    kind = "silent"


@dataclass(frozen=True)
class DecodedAudio:
    """Mono samples, float32 `[num_samples]` in about [-1, 1], at the file's own rate."""

    samples: np.ndarray
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """How long the samples last."""
        return len(self.samples) / self.sample_rate_hz


def audio_duration_s(path: Path) -> float:
    """How long a recording is, as its header says.

    Raises:
        AudioDefect: missing, not a regular file, empty, not audio that libsndfile reads, a rate or
            length that no recording has, or cut short.
    """
    with _opened(path) as sound:
        return _duration_of(sound, url_of(path))


def encoded_duration_s(encoded: bytes, name: str) -> float:
    """How long a recording is that was stored in an archive or a table.

    Args:
        encoded: the whole file.
        name: what to call it in messages.

    Raises:
        AudioDefect: as `audio_duration_s`.
    """
    if not encoded:
        raise AudioDefect(f"{name}: empty file (0 bytes)")
    with _sound_file(io.BytesIO(encoded), name) as sound:
        return _duration_of(sound, name)


def read_audio(
    path: Path,
    sample_rate_hz: int,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """`decode_audio`, resampled to a given rate with soxr's high-quality setting, through librosa.

    Returns:
        float32 `[num_samples]` in about [-1, 1].

    Raises:
        AudioDefect: as `decode_audio`.
    """
    decoded = decode_audio(path, start_s=start_s, duration_s=duration_s)
    return resample(decoded.samples, decoded.sample_rate_hz, sample_rate_hz)


def decode_audio(
    path: Path, *, start_s: float = 0.0, duration_s: float | None = None
) -> DecodedAudio:
    """Decode a file, or a slice of it, to mono at its own rate, and refuse what is not a recording.

    Args:
        path: audio file; its channels are averaged.
        start_s: where the slice begins, in seconds.
        duration_s: length of the slice; None reads to the end.

    Raises:
        AudioDefect: as `audio_duration_s`; or cut short (fewer samples than the header or the slice
            promises), silent, louder than any recording, or holding NaN or infinity.
    """
    with _opened(path) as sound:
        rate_hz = sound.samplerate
        if duration_s is None:
            expected_s = _duration_of(sound, url_of(path)) - start_s
        else:
            expected_s = duration_s
            _refuse_too_long(duration_s, f"{url_of(path)}: the slice")
        samples = _decode(sound, url_of(path), start_s=start_s, duration_s=expected_s)
    available_s = len(samples) / rate_hz
    if available_s < expected_s - MISSING_TOLERANCE_S:
        raise CutShort(
            f"{url_of(path)}: cut short, {available_s:.2f} s decode where {expected_s:.2f} s were "
            "expected"
        )
    if not np.isfinite(samples).all():
        raise AudioDefect(f"{url_of(path)}: holds NaN or infinite samples")
    peak = np.abs(samples).max(initial=0.0)
    if peak < SILENCE_PEAK:
        raise SilentAudio(f"{url_of(path)}: silent (peak below {SILENCE_PEAK})")
    if peak > IMPOSSIBLE_PEAK:
        raise AudioDefect(
            f"{url_of(path)}: holds samples of up to {peak:.3g}, where 1 is full scale"
        )
    return DecodedAudio(samples, rate_hz)


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample mono float32 audio `[num_samples]`; unchanged where the rates agree."""
    if from_hz == to_hz:
        return samples
    import librosa  # one second to import, and not every command resamples

    resampled: np.ndarray = librosa.resample(
        samples, orig_sr=from_hz, target_sr=to_hz, res_type="soxr_hq"
    )
    return resampled


def write_wav(path: Path, samples: np.ndarray, sample_rate_hz: int) -> None:
    """Write mono float32 audio as 16-bit WAV; written atomically; peaks above 1 are scaled down.

    Raises:
        WriteError: the file cannot be written.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    # Encoded in memory first, because libsndfile does not report disk errors.
    encoded = io.BytesIO()
    soundfile.write(
        encoded, samples / max(1.0, peak), sample_rate_hz, format="WAV", subtype="PCM_16"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_bytes(encoded.getbuffer())


def to_pcm16(samples: np.ndarray) -> bytes:
    """Float samples -> raw 16-bit little-endian ones, as players expect; clipped to +-1."""
    return (samples.clip(-1, 1) * 32767).astype("<i2").tobytes()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """A file that libsndfile has opened: the same file from its header to its last sample."""
    reference = find_reference(path)
    try:
        if reference is not None or is_url(path):
            encoded = _encoded(reference, path) if reference else _read_whole(path)
            with _sound_file(io.BytesIO(encoded), url_of(path)) as sound:
                yield sound
            return
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise AudioDefect(f"{url_of(path)}: empty file (0 bytes)")
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


def _encoded(reference: Reference, path: Path) -> bytes:
    """The bytes of a recording in an archive or a table; AudioDefect if it is not there."""
    try:
        encoded = read_contained(reference)
    except NotThere as error:
        raise MissingAudio(str(error)) from None
    except InputError as error:
        raise AudioDefect(str(error)) from None
    if not encoded:
        raise AudioDefect(f"{url_of(path)}: empty file (0 bytes)")
    return encoded


def _read_whole(path: Path) -> bytes:
    """The bytes of a recording that is an object on a store."""
    encoded = read_object(path, size=MAX_MEMBER_BYTES + 1)
    if not encoded:
        raise AudioDefect(f"{url_of(path)}: empty file (0 bytes)")
    if len(encoded) > MAX_MEMBER_BYTES:
        raise AudioDefect(f"{url_of(path)}: over {MAX_MEMBER_BYTES} bytes, which no recording has")
    return encoded


@contextlib.contextmanager
def _sound_file(file: int | io.BytesIO, name: str) -> Iterator[soundfile.SoundFile]:
    """Open audio; AudioDefect if it is not audio, or its header is not that of a recording."""
    try:
        sound = soundfile.SoundFile(file, closefd=False)
    except soundfile.SoundFileError as error:
        raise AudioDefect(f"{name}: not readable as audio ({_reason(error)})") from None
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


def _duration_of(sound: soundfile.SoundFile, name: str) -> float:
    """Seconds of a whole recording, as its header says; AudioDefect if they cannot be right."""
    duration_s: float = sound.frames / sound.samplerate
    _refuse_too_long(duration_s, f"{name}: its header says that it")
    for claimed, found in _CLAIMED_BYTES.findall(sound.extra_info):
        claimed_s = duration_s * int(claimed) / max(1, int(found))
        if int(claimed) < UNKNOWN_LENGTH_BYTES and claimed_s > duration_s + MISSING_TOLERANCE_S:
            raise CutShort(
                f"{name}: cut short, its header promises {claimed_s:.2f} s and {duration_s:.2f} s "
                "are there"
            )
    return duration_s


def _decode(
    sound: soundfile.SoundFile, name: str, *, start_s: float, duration_s: float
) -> np.ndarray:
    """Samples of a slice, float32 `[num_samples]`; fewer where the file ends before it."""
    rate_hz = sound.samplerate
    start = round(min(start_s * rate_hz, sound.frames))
    num_wanted = max(0, round(duration_s * rate_hz))
    blocks: list[np.ndarray] = []
    try:
        if start:
            sound.seek(start)
        while num_wanted > 0:
            num_frames = min(num_wanted, BLOCK_SAMPLES // sound.channels)
            block = sound.read(num_frames, dtype="float32", always_2d=True).mean(axis=1)
            if len(block) == 0:
                break
            blocks.append(block)
            num_wanted -= len(block)
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioDefect(f"{name}: cannot be decoded ({_reason(error)})") from None
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _refuse_too_long(duration_s: float, what: str) -> None:
    if not duration_s <= MAX_DURATION_S:
        raise AudioDefect(f"{what} lasts {duration_s:.0f} s; at most {MAX_DURATION_S:.0f} can be")


def _reason(error: Exception) -> str:
    """libsndfile's own words, without the path it repeats."""
    return str(error).split(": ")[-1].rstrip(".")
