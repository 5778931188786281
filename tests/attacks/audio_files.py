"""Recordings as files: sound ones, those of samples that nobody speaks, and headers that lie."""

import functools
import io
import random
import struct
from collections.abc import Callable
from functools import partial

import numpy as np
import soundfile

RATE_HZ = 16_000
SECONDS = 2.0
FORMATS = {
    "wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"), "w64": ("W64", "PCM_16"), "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"), "adpcm.wav": ("WAV", "IMA_ADPCM"), "rf64": ("RF64", "PCM_24"),
}  # fmt: skip


@functools.cache
def encoded(extension: str, number: int = 9, rate_hz: int = RATE_HZ) -> bytes:
    """Two seconds of noise; another for every number."""
    if extension == "opus":
        rate_hz = 48_000
    rng = np.random.default_rng(number)
    samples = (0.1 * rng.standard_normal(round(SECONDS * rate_hz))).clip(-0.9, 0.9)
    return as_file(samples.astype(np.float32), extension, rate_hz)


def as_file(samples: np.ndarray, extension: str, rate_hz: int = RATE_HZ) -> bytes:
    file = io.BytesIO()
    container, subtype = FORMATS[extension]
    soundfile.write(file, samples, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


def noise(num_samples: int = 32_000) -> np.ndarray:
    return (0.1 * np.random.default_rng(9).standard_normal(num_samples)).astype(np.float32)


def _with(value: float, *, everywhere: bool = False) -> np.ndarray:
    samples = noise()
    samples[slice(None) if everywhere else 100] = value
    return samples


ODD_SAMPLES = {
    "one sample": noise(1), "no sample": noise(0), "160 samples": noise(160),
    "a NaN": _with(np.nan), "all NaN": _with(np.nan, everywhere=True), "infinity": _with(np.inf),
    "minus infinity": _with(-np.inf), "huge": _with(3e38), "all huge": _with(3e38, everywhere=True),
    "1e30": _with(1e30), "integers as floats": 32_768 * noise(), "silent": 0 * noise(),
    "denormal": 1e-40 * noise(), "constant": _with(0.5, everywhere=True),
    "64 channels": np.repeat(noise()[:, None], 64, axis=1),
    "1024 channels": np.repeat(noise(4_000)[:, None], 1024, axis=1),
}  # fmt: skip


def _patched(extension: str, find: bytes, offset: int, value: bytes) -> bytes:
    """A file with some bytes of its header replaced, at an offset behind a mark."""
    content = bytearray(encoded(extension))
    place = content.index(find) + offset
    content[place : place + len(value)] = value
    return bytes(content)


def _flac_claiming(
    *, rate_hz: int = RATE_HZ, num_samples: int = 32_000, channels: int = 1
) -> bytes:
    # STREAMINFO: 20 bits of rate, 3 of channels, 5 of bits a sample, 36 of length.
    fields = rate_hz << 44 | (channels - 1) << 41 | 15 << 36 | num_samples
    return _patched("flac", b"fLaC", 18, fields.to_bytes(8, "big"))


def _ogg_claiming(extension: str, num_samples: int) -> bytes:
    """The last page says that so many samples came before its end; its checksum is right."""
    content = bytearray(encoded(extension))
    last = content.rindex(b"OggS")
    content[last + 6 : last + 14] = struct.pack("<q", num_samples)
    content[last + 22 : last + 26] = bytes(4)
    content[last + 22 : last + 26] = struct.pack("<I", _ogg_checksum(content[last:]))
    return bytes(content)


def _ogg_checksum(page: bytes) -> int:
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 0x80000000 else 0)) & 0xFFFFFFFF
    return checksum


def _u32(number: int) -> bytes:
    return struct.pack("<I", number)


LIARS: dict[str, Callable[[], bytes]] = {
    **{
        f"flac of {number} samples": partial(_flac_claiming, num_samples=number)
        for number in (0, 1, 2**16, 2**31, 2**35, 2**36 - 1)
    },
    **{
        f"flac of {rate_hz} Hz": partial(_flac_claiming, rate_hz=rate_hz)
        for rate_hz in (0, 1, 100, 8_000, 655_350, 2**20 - 1)
    },
    "flac of 8 channels": partial(_flac_claiming, channels=8),
    "flac of 1 Hz and 2^35 samples": partial(_flac_claiming, rate_hz=1, num_samples=2**35),
    **{
        f"{extension} of {number} samples": partial(_ogg_claiming, extension, number)
        for extension in ("ogg", "opus")
        for number in (0, -1, 1000, 2**35, 2**62, 2**63 - 1)
    },
    "opus of 255 channels": partial(_patched, "opus", b"OpusHead", 9, b"\xff"),
    "opus that skips everything": partial(_patched, "opus", b"OpusHead", 10, b"\xff\xff"),
    "opus at +128 dB": partial(_patched, "opus", b"OpusHead", 16, b"\xff\x7f"),
    **{
        f"wav of {number} bytes": partial(_patched, "wav", b"data", 4, _u32(number))
        for number in (0, 1, 3, 32_000, 64_001, 80_000, 2**31 - 1, 2**31, 2**32 - 1)
    },
    **{
        f"wav of {number} Hz": partial(_patched, "wav", b"fmt ", 12, _u32(number))
        for number in (0, 1, 100, 8_000, 96_000, 2**31 - 1, 2**31, 2**32 - 1)
    },
    **{
        f"wav of {number} channels": partial(
            _patched, "wav", b"fmt ", 10, struct.pack("<H", number)
        )
        for number in (0, 2, 64, 1024, 1025, 65_535)
    },
    **{
        f"wav of {number} bits": partial(_patched, "wav", b"fmt ", 22, struct.pack("<H", number))
        for number in (0, 1, 8, 24, 32, 64, 65_535)
    },
    **{
        f"wav of format {number:#x}": partial(
            _patched, "wav", b"fmt ", 8, struct.pack("<H", number)
        )
        for number in (0, 2, 3, 6, 0x11, 0x31, 0x55, 0xFFFE)
    },
    "wav of blocks of 0": partial(_patched, "wav", b"fmt ", 20, b"\0\0"),
    "wav of a RIFF of 0": partial(_patched, "wav", b"RIFF", 4, bytes(4)),
    "wav of a huge fmt": partial(_patched, "wav", b"fmt ", 4, _u32(2**31)),
    "aiff of 2^31 samples": partial(_patched, "aiff", b"COMM", 10, struct.pack(">I", 2**31)),
    "96 kHz": lambda: encoded("wav", rate_hz=96_000),
    "384 kHz": lambda: encoded("wav", rate_hz=384_000),
    "mp3 behind a huge tag": lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + encoded("mp3"),
    "mp3 twice": lambda: 2 * encoded("mp3"),
    "flac twice": lambda: 2 * encoded("flac"),
    "ogg twice": lambda: 2 * encoded("ogg"),
    "wav and noise": lambda: encoded("wav") + random.Random(0).randbytes(5000),
    "an hour and more": lambda: as_file(np.tile([0.1, -0.1], 3_700 * 2_000), "flac", 4_000),
}
