"""Read and write audio: WAV, FLAC, Ogg/Opus, MP3, ..., and what phones record, as mono float32.

Gemma 4 hears 16 kHz and Mimi speaks 24 kHz; `read_audio` resamples to whichever is asked for. Every
defect that would silently spoil a training run (empty, cut short, silent, NaN) is an `AudioDefect`
(`audio_defects.py`), a subclass of `InputError` whose `kind` says which.

Headers are not trusted: rates and lengths have limits, samples are read in blocks and counted, and
no memory is allocated on a header's word. A file's format is told by its content, not its name
(`audio_files.py`). In place of a path there may be a reference into an archive or a Parquet table
(`contained_audio.py`), and the URL of an object on a store (`commands/stores.py`).
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from commands.atomic_write import written_aside
from commands.stores import url_of
from data_manifests.audio_defects import (
    MAX_DURATION_S,
    MISSING_TOLERANCE_S,
    AudioDefect,
    CutShort,
    SilentAudio,
)
from data_manifests.audio_files import open_audio, open_encoded, reason_of

GEMMA_SAMPLE_RATE_HZ = 16_000  # google/gemma-4-E4B-it processor_config.json
MIMI_SAMPLE_RATE_HZ = 24_000  # kyutai/mimi config.json
# Below this peak a 16-bit file holds nothing but rounding noise (-80 dBFS).
SILENCE_PEAK = 1e-4
# Above this peak (+40 dBFS) samples are not audio levels: integers stored as floats, or damage.
IMPOSSIBLE_PEAK = 100.0
BLOCK_SAMPLES = 2**20  # decoded at a time, of all channels together
# What writers put in place of the length of a WAV file while they do not know it yet.
UNKNOWN_LENGTH_BYTES = 2**31 - 2**16
# A line of libsndfile's log for a chunk that claims more bytes than the file holds.
_CLAIMED_BYTES = re.compile(r"(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)")


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
    with open_audio(path) as sound:
        return _duration_of(sound, url_of(path))


def encoded_duration_s(encoded: bytes, name: str) -> float:
    """How long a recording is that was stored in an archive or a table.

    Args:
        encoded: the whole file.
        name: what to call it in messages.

    Raises:
        AudioDefect: as `audio_duration_s`.
    """
    with open_encoded(encoded, name) as sound:
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
    with open_audio(path) as sound:
        return _decode_sound(sound, url_of(path), start_s=start_s, duration_s=duration_s)


def decode_encoded(encoded: bytes, name: str) -> DecodedAudio:
    """`decode_audio` of a recording that was stored in an archive or a table.

    Args:
        encoded: the whole file.
        name: what to call it in messages.

    Raises:
        AudioDefect: as `decode_audio`.
    """
    with open_encoded(encoded, name) as sound:
        return _decode_sound(sound, name, start_s=0.0, duration_s=None)


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


def _duration_of(sound: soundfile.SoundFile, name: str) -> float:
    """Seconds of a whole recording, as its header says; AudioDefect if they cannot be right."""
    duration_s: float = sound.frames / sound.samplerate
    _refuse_too_long(duration_s, f"{name}: its header says that it")
    refuse_cut_short(sound, name)
    return duration_s


def refuse_cut_short(sound: soundfile.SoundFile, name: str) -> None:
    """Raise CutShort if a header promises more than the file holds."""
    duration_s = sound.frames / sound.samplerate
    for claimed, found in _CLAIMED_BYTES.findall(sound.extra_info):
        claimed_s = duration_s * int(claimed) / max(1, int(found))
        if int(claimed) < UNKNOWN_LENGTH_BYTES and claimed_s > duration_s + MISSING_TOLERANCE_S:
            raise CutShort(
                f"{name}: cut short, its header promises {claimed_s:.2f} s and {duration_s:.2f} s "
                "are there"
            )


def _decode_sound(
    sound: soundfile.SoundFile, name: str, *, start_s: float, duration_s: float | None
) -> DecodedAudio:
    """Decode an opened recording, or a slice of it; AudioDefect if it is none."""
    if duration_s is None:
        expected_s = _duration_of(sound, name) - start_s
    else:
        expected_s = duration_s
        _refuse_too_long(duration_s, f"{name}: the slice")
    samples = _decode(sound, name, start_s=start_s, duration_s=expected_s)
    available_s = len(samples) / sound.samplerate
    if available_s < expected_s - MISSING_TOLERANCE_S:
        raise CutShort(
            f"{name}: cut short, {available_s:.2f} s decode where {expected_s:.2f} s were expected"
        )
    if not np.isfinite(samples).all():
        raise AudioDefect(f"{name}: holds NaN or infinite samples")
    peak = np.abs(samples).max(initial=0.0)
    if peak < SILENCE_PEAK:
        raise SilentAudio(f"{name}: silent (peak below {SILENCE_PEAK})")
    if peak > IMPOSSIBLE_PEAK:
        raise AudioDefect(f"{name}: holds samples of up to {peak:.3g}, where 1 is full scale")
    return DecodedAudio(samples, sound.samplerate)


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
        raise AudioDefect(f"{name}: cannot be decoded ({reason_of(error)})") from None
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _refuse_too_long(duration_s: float, what: str) -> None:
    if not duration_s <= MAX_DURATION_S:
        raise AudioDefect(f"{what} lasts {duration_s:.0f} s; at most {MAX_DURATION_S:.0f} can be")
