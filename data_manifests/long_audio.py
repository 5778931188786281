"""Recordings of any length, block by block: memory does not grow with their length.

    with open_long_audio(Path("talk.m4a")) as recording:
        for block_N in recording.blocks: ...

Everything that `audio.py` reads, and what phones record (.m4a), with the extra `.[phone]`. What is
inside an archive or on a store is fetched whole, and decoded in blocks.
"""

# N samples

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from commands.regular_files import open_regular
from commands.stores import url_of
from data_manifests.audio import BLOCK_SAMPLES, IMPOSSIBLE_PEAK, refuse_cut_short
from data_manifests.audio_defects import MISSING_TOLERANCE_S, AudioDefect, CutShort
from data_manifests.audio_files import is_phone_audio, open_audio, reason_of
from data_manifests.phone_audio import open_phone_audio


@dataclass(frozen=True)
class LongRecording:
    """A recording that is being decoded.

    Attributes:
        rate_hz: its sampling rate.
        duration_s: as its header says; 0 if it does not.
        blocks: its samples in order, float32 `[N]`, mono, once; raises AudioDefect where they
            cannot be decoded, end before the header says, or are no audio levels.
    """

    rate_hz: int
    duration_s: float
    blocks: Iterator[np.ndarray]


@contextlib.contextmanager
def open_long_audio(path: Path) -> Iterator[LongRecording]:
    """Open a recording of any length; `AudioDefect` and `MissingPyAV` if that is impossible."""
    if is_phone_audio(path):
        with open_regular(path) as file, open_phone_audio(file, str(path)) as phone:
            blocks = (block_N.astype(np.float32) / 2**15 for block_N in phone.blocks)
            yield LongRecording(phone.sample_rate_hz, phone.promised_s, blocks)
        return
    with open_audio(path) as sound:
        refuse_cut_short(sound, url_of(path))
        duration_s = sound.frames / sound.samplerate
        yield LongRecording(sound.samplerate, duration_s, _decode_blocks(sound, url_of(path)))


def _decode_blocks(sound: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    rate_hz = sound.samplerate
    num_samples = 0
    while True:
        # As many at a time as `read_audio` decodes: other numbers give slightly other samples of
        # an MP3 file (libsndfile 1.2.2).
        try:
            block = sound.read(BLOCK_SAMPLES // sound.channels, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, ValueError) as error:
            raise AudioDefect(f"{name}: cannot be decoded ({reason_of(error)})") from None
        if not len(block):
            break
        block_N = block.mean(axis=1)
        [damaged] = (~(np.abs(block_N) <= IMPOSSIBLE_PEAK)).nonzero()
        if len(damaged):
            yield block_N[: damaged[0]]
            at_s = (num_samples + damaged[0]) / rate_hz
            raise AudioDefect(f"{name}: holds NaN or impossibly loud samples after {at_s:.1f} s")
        num_samples += len(block_N)
        yield block_N
    if num_samples < sound.frames - MISSING_TOLERANCE_S * rate_hz:
        raise CutShort(
            f"{name}: cut short, {num_samples / rate_hz:.2f} s decode where "
            f"{sound.frames / rate_hz:.2f} s were expected"
        )
