"""Recordings as phones and browsers make them, which libsndfile does not read: M4A, 3GP, AAC, AMR,
WebM. PyAV decodes them, which `pip install -e '.[phone]'` brings.

They are told by their first bytes, whatever their names are. Samples are 16-bit integers, so that a
copy in FLAC (`as_flac`) holds the same samples as the recording.
"""

# N samples

import contextlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile

from commands.errors import InputError
from data_manifests.audio_defects import MAX_DURATION_S, MISSING_TOLERANCE_S, AudioDefect, CutShort

if TYPE_CHECKING:
    from av import AudioFrame

NUM_FIRST_BYTES = 12
"""So many bytes tell what a file is."""

PHONE_SUFFIXES = {"mov": ".m4a", "matroska": ".webm", "amr": ".amr", "aac": ".aac"}
"""What a file of each format is called, where nobody has named it."""


class MissingPyAV(InputError):
    """PyAV, which reads the recording, is not installed."""


@dataclass(frozen=True)
class PhoneAudio:
    """A decoded recording.

    Attributes:
        samples_N: int16, mono.
        sample_rate_hz: its own.
    """

    samples_N: np.ndarray
    sample_rate_hz: int

    def encode(self, kind: str) -> bytes:
        """As a file of 16 bits, "WAV" or "FLAC"."""
        file = io.BytesIO()
        soundfile.write(file, self.samples_N, self.sample_rate_hz, format=kind, subtype="PCM_16")
        return file.getvalue()


def find_phone_format(first_bytes: bytes) -> str | None:
    """The format of a recording that PyAV must decode, as FFmpeg calls it; None for all others.

    Args:
        first_bytes: of the file, at least `NUM_FIRST_BYTES` if it has so many.
    """
    if first_bytes[4:8] == b"ftyp":  # ISO 14496-12: MP4, M4A, 3GP
        return "mov"
    if first_bytes.startswith(b"\x1aE\xdf\xa3"):  # RFC 8794: Matroska, WebM
        return "matroska"
    if first_bytes.startswith(b"#!AMR"):  # RFC 4867
        return "amr"
    # ADTS (ISO 13818-7): twelve set bits, then any version, and layer 0, which no MPEG audio has.
    if len(first_bytes) > 1 and first_bytes[0] == 0xFF and first_bytes[1] & 0xF6 == 0xF0:
        return "aac"
    return None


@dataclass(frozen=True)
class PhoneStream:
    """A recording that is being decoded.

    Attributes:
        sample_rate_hz: its own.
        promised_s: how long it is by its header; 0 if that does not say it.
        blocks: its samples in order, int16 `[N]`, mono, once; raises CutShort at the end if there
            are fewer than promised, and AudioDefect where they cannot be decoded.
    """

    sample_rate_hz: int
    promised_s: float
    blocks: Iterator[np.ndarray]


@contextlib.contextmanager
def open_phone_audio(file: BinaryIO, name: str) -> Iterator[PhoneStream]:
    """Open a recording that has a `find_phone_format`, of any length.

    Args:
        file: the recording, at its beginning.
        name: what to call it in messages.

    Raises:
        AudioDefect: it is no recording.
        MissingPyAV: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingPyAV(
            f"{name}: recordings in this format need PyAV: pip install -c constraints.txt -e "
            "'.[phone]'; or convert them: ffmpeg -i a.m4a a.wav"
        ) from None
    kind = find_phone_format(file.read(NUM_FIRST_BYTES))
    file.seek(0)
    with contextlib.ExitStack() as stack:
        with _decoding_errors(name):
            # The format is named: FFmpeg's guesses include lists of other files.
            container = stack.enter_context(av.open(file, mode="r", format=kind))
            if not container.streams.audio:
                raise AudioDefect(f"{name}: no sound in it")
            stream = container.streams.audio[0]
            promised_s = float((stream.duration or 0) * (stream.time_base or 0))
        promised_s *= kind == "mov"  # of the others, FFmpeg guesses it from the file's size
        blocks = _blocks(container.decode(stream), stream.rate, promised_s, name)
        yield PhoneStream(stream.rate, promised_s, blocks)


def decode_phone_audio(file: BinaryIO, name: str) -> PhoneAudio:
    """Decode a recording that has a `find_phone_format`.

    Args:
        file: the recording, at its beginning.
        name: what to call it in messages.

    Raises:
        AudioDefect: it is no recording, is cut short, or lasts over an hour.
        MissingPyAV: it is not installed.
    """
    blocks: list[np.ndarray] = []
    num_samples = 0
    with open_phone_audio(file, name) as stream:
        for block_N in stream.blocks:
            blocks.append(block_N)
            num_samples += len(block_N)
            if num_samples > MAX_DURATION_S * stream.sample_rate_hz:
                raise AudioDefect(f"{name}: lasts over {MAX_DURATION_S:.0f} s")
    return PhoneAudio(np.concatenate(blocks), stream.sample_rate_hz)


def _blocks(
    frames: "Iterator[AudioFrame]", rate_hz: int, promised_s: float, name: str
) -> Iterator[np.ndarray]:
    """Samples of a stream, int16 `[N]`, mono, at the stream's rate; as `PhoneStream.blocks`."""
    import av

    num_samples = 0
    with _decoding_errors(name):
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
        for frame in itertools.chain(frames, (None,)):  # None flushes what the resampler holds back
            for resampled in resampler.resample(frame):
                block_N = resampled.to_ndarray().reshape(-1)
                num_samples += len(block_N)
                yield block_N
    if not num_samples:
        raise AudioDefect(f"{name}: empty audio (0 samples)")
    if num_samples / rate_hz < promised_s - MISSING_TOLERANCE_S:
        raise CutShort(
            f"{name}: cut short, its header promises {promised_s:.2f} s and "
            f"{num_samples / rate_hz:.2f} s are there"
        )


@contextlib.contextmanager
def _decoding_errors(name: str) -> Iterator[None]:
    import av

    try:
        yield
    except AudioDefect:
        raise
    # ValueError: the stream changes its rate or its channels.
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AudioDefect(f"{name}: not readable as audio ({reason})") from None
