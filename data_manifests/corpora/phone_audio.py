"""Recordings of phones in formats that libsndfile does not read (.m4a), as FLAC; through PyAV."""

# N samples

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from commands.errors import InputError
from data_manifests.audio import MAX_DURATION_S, AudioDefect, MissingAudio, encoded_duration_s
from data_manifests.corpora.recording import one_line

if TYPE_CHECKING:
    from av import AudioFrame

PHONE_SUFFIXES = (".3gp", ".aac", ".amr", ".m4a", ".mp4", ".webm")


class MissingPyAV(InputError):
    """PyAV, which reads the recording, is not installed."""


def as_flac(path: str) -> bytes:
    """A recording as a FLAC file, mono, 16 bits, at its own rate.

    Args:
        path: the file.

    Raises:
        AudioDefect: it is missing, is no recording, or lasts over an hour.
        MissingPyAV: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingPyAV(
            f"{path}: recordings in this format need PyAV: pip install -c constraints.txt -e "
            "'.[phone]'; or convert them: ffmpeg -i a.m4a a.wav"
        ) from None
    if not Path(path).is_file():
        raise MissingAudio(f"{path}: no such audio file")
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise AudioDefect(f"{path}: no sound in it")
            stream = container.streams.audio[0]
            rate_hz = stream.rate
            blocks = list(_blocks(container.decode(stream), rate_hz, path))
    except (av.FFmpegError, OSError) as error:
        raise AudioDefect(f"{path}: not readable as audio ({one_line(error)})") from None
    if not blocks:
        raise AudioDefect(f"{path}: empty audio (0 samples)")
    encoded = io.BytesIO()
    soundfile.write(encoded, np.concatenate(blocks), rate_hz, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()


def flac_duration_s(path: Path) -> float:
    """How long a recording is, in seconds; it is decoded to know it. Errors as of `as_flac`."""
    return encoded_duration_s(as_flac(str(path)), str(path))


def _blocks(frames: "Iterator[AudioFrame]", rate_hz: int, path: str) -> Iterator[np.ndarray]:
    """Samples of a stream, int16 `[N]`, mono, at the stream's rate."""
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
    num_samples = 0
    for frame in (*frames, None):  # None flushes what the resampler holds back
        for resampled in resampler.resample(frame):
            block_N = resampled.to_ndarray().reshape(-1)
            num_samples += len(block_N)
            if num_samples > MAX_DURATION_S * rate_hz:
                raise AudioDefect(f"{path}: lasts over {MAX_DURATION_S:.0f} s")
            yield block_N
