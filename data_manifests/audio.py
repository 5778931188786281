"""Audio in and out: any file libsndfile reads (WAV, FLAC, Ogg/Opus, MP3, ...) as mono float32.

Gemma 4 hears 16 kHz and Mimi speaks 24 kHz; `read_audio` resamples to whichever is asked for. Every
defect that would silently spoil a training run (empty, cut short, silent, NaN) is an `AudioDefect`,
a subclass of `InputError` whose `kind` says which.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from data_manifests.atomic_write import written_aside
from data_manifests.errors import InputError

GEMMA_SAMPLE_RATE_HZ = 16_000  # google/gemma-4-E4B-it processor_config.json
MIMI_SAMPLE_RATE_HZ = 24_000  # kyutai/mimi config.json
# Below this peak a 16-bit file holds nothing but rounding noise (-80 dBFS).
SILENCE_PEAK = 1e-4
# MP3 headers announce up to two 1152-sample frames more than decode; anything beyond this is a cut
# file.
MISSING_TOLERANCE_S = 0.15


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
class AudioInfo:
    """What a file's header says, before decoding."""

    duration_s: float
    sample_rate_hz: int


@dataclass(frozen=True)
class DecodedAudio:
    """Mono samples, float32 `[num_samples]` in about [-1, 1], at the file's own rate."""

    samples: np.ndarray
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """How long the samples last."""
        return len(self.samples) / self.sample_rate_hz


def audio_info(path: Path) -> AudioInfo:
    """Read a file's header.

    Raises:
        AudioDefect: missing, empty, or not audio that libsndfile reads.
    """
    if not path.is_file():
        raise MissingAudio(f"{path}: no such audio file")
    if path.stat().st_size == 0:
        raise AudioDefect(f"{path}: empty file (0 bytes)")
    return _info_of(str(path), str(path))


def audio_info_of_bytes(encoded: bytes, name: str) -> AudioInfo:
    """Read the header of an encoded file that lies in an archive or a table.

    Args:
        encoded: the whole file.
        name: what to call it in messages.

    Raises:
        AudioDefect: empty, or not audio that libsndfile reads.
    """
    if not encoded:
        raise AudioDefect(f"{name}: empty file (0 bytes)")
    return _info_of(io.BytesIO(encoded), name)


def read_audio(
    path: Path,
    sample_rate_hz: int,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> np.ndarray:
    """Decode a file, or a slice of it, to mono at a given rate.

    Resampling is soxr's high quality, through librosa.

    Args:
        path: audio file.
        sample_rate_hz: rate of the result.
        start_s: where the slice begins, in seconds.
        duration_s: length of the slice; None reads to the end.

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
    """Decode a file, or a slice of it, to mono at its own rate, and refuse what is no recording.

    Args:
        path: audio file; its channels are averaged.
        start_s: where the slice begins, in seconds.
        duration_s: length of the slice; None reads to the end.

    Raises:
        AudioDefect: unreadable, cut short (fewer samples than the header or the slice promises),
            silent, or holding NaN or infinity.
    """
    info = audio_info(path)
    start = round(start_s * info.sample_rate_hz)
    num_wanted = -1 if duration_s is None else round(duration_s * info.sample_rate_hz)
    try:
        samples, _ = soundfile.read(
            str(path), start=start, frames=num_wanted, dtype="float32", always_2d=True
        )
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioDefect(f"{path}: cannot be decoded ({_reason(error)})") from None
    available_s = len(samples) / info.sample_rate_hz
    expected_s = info.duration_s - start_s if duration_s is None else duration_s
    if available_s < expected_s - MISSING_TOLERANCE_S:
        raise CutShort(
            f"{path}: cut short, {available_s:.2f} s decode where {expected_s:.2f} s were expected"
        )
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioDefect(f"{path}: holds NaN or infinite samples")
    if np.abs(mono).max(initial=0.0) < SILENCE_PEAK:
        raise SilentAudio(f"{path}: silent (peak below {SILENCE_PEAK})")
    return DecodedAudio(mono, info.sample_rate_hz)


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
    """Write mono float32 audio as 16-bit WAV; written aside and renamed, peaks above 1 are scaled
    down. WriteError where the disk is full."""
    peak = float(np.abs(samples).max(initial=0.0))
    encoded = io.BytesIO()  # on a full disk soundfile stumbles over its own assertion
    soundfile.write(
        encoded, samples / max(1.0, peak), sample_rate_hz, format="WAV", subtype="PCM_16"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        aside.write_bytes(encoded.getvalue())


def to_pcm16(samples: np.ndarray) -> bytes:
    """Float samples -> raw 16-bit little-endian ones, as players take them; beyond +-1 is cut."""
    return (samples.clip(-1, 1) * 32767).astype("<i2").tobytes()


def _info_of(file: str | io.BytesIO, name: str) -> AudioInfo:
    try:
        info = soundfile.info(file)
    except soundfile.SoundFileError as error:
        raise AudioDefect(f"{name}: not readable as audio ({_reason(error)})") from None
    if info.frames == 0:
        raise AudioDefect(f"{name}: empty audio (0 samples)")
    return AudioInfo(info.frames / info.samplerate, info.samplerate)


def _reason(error: Exception) -> str:
    """libsndfile's own words, without the path it repeats."""
    return str(error).split(": ")[-1].rstrip(".")
