"""Tell whether two files hold the same recording, whatever their format, rate and loudness.

    is_same_recording(fingerprint(decoded), fingerprint(other))

After J. Haitsma and T. Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002: a moment
of sound is 96 bits, each the sign of a difference between neighbouring bands and moments. Another
reading of a sentence is another sound, and nearly half of them differ. Encoding changes signs only
where the difference is small: so of each moment the half with the largest differences is compared.

Unlike in the paper, bands are narrow and equally wide, so that they tell the harmonics of one voice
from those of another; moments are 32 ms apart, because recordings are compared whole and not found
by three seconds of them; and what is quiet is not compared. `python -m tests.mirrors` measures both
kinds of error.
"""

# F moments of 32 ms, W windows or shifts, B bands, P parts of 32 bits

from dataclasses import dataclass

import numpy as np

from data_manifests.audio import DecodedAudio, resample

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 4096  # 0.256 s; in the paper 0.37
HOP_SAMPLES = 512
NUM_BITS = 96
NUM_PARTS = NUM_BITS // 32
# What telephones pass; 32 Hz a band.
MIN_HZ, MAX_HZ = 200.0, 3300.0
# Moments so far below the loudest one are not compared.
QUIET_DB = -30.0
# What comes later is not needed to tell recordings of one sentence apart.
MAX_SECONDS = 60.0
# Recordings are compared from their first loud moment on, and shifted by up to half a second: an
# encoder may add a click, or hide a soft beginning.
MAX_SHIFT = 16
# Share of the compared bits. Copies in two formats of 35 recordings, of the pairs of six formats,
# differ by up to 0.23 (AMR against WebM), in the median by 0.05.
MAX_DIFFERENT = 0.24
MAX_DIFFERENT_OF_SOME = 0.38
# Of the moments that are loud in either, so many must be loud in both.
MIN_SHARED = 0.6


@dataclass(frozen=True)
class Fingerprint:
    """From the first loud moment of a recording to the last one.

    Attributes:
        bits_FP: uint32, the signs of each moment.
        compared_FP: uint32, which of them are compared; none of a quiet moment.
    """

    bits_FP: np.ndarray
    compared_FP: np.ndarray

    @property
    def is_loud_F(self) -> np.ndarray:
        """The moments that are compared, bool."""
        return np.asarray(self.compared_FP.any(axis=1))

    @property
    def num_loud(self) -> int:
        """How many moments are compared."""
        return int(np.count_nonzero(self.is_loud_F))

    def to_bytes(self) -> bytes:
        """24 bytes for each moment, 750 a second."""
        return np.concatenate([self.bits_FP, self.compared_FP]).astype("<u4").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Fingerprint":
        """What `to_bytes` was called on."""
        return cls(*np.frombuffer(content, dtype="<u4").reshape(2, -1, NUM_PARTS))


def fingerprint(decoded: DecodedAudio) -> Fingerprint:
    """The fingerprint of a recording that is not silent."""
    samples = decoded.samples[: int(MAX_SECONDS * decoded.sample_rate_hz)]
    samples = resample(samples, decoded.sample_rate_hz, SAMPLE_RATE_HZ)
    padded = np.pad(samples, WINDOW_SAMPLES)
    windows_WN = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum_WN = np.fft.rfft(windows_WN * np.hanning(WINDOW_SAMPLES).astype(np.float32))
    power_WB = np.add.reduceat(np.abs(spectrum_WN) ** 2, _band_edges(), axis=1)[:, : NUM_BITS + 1]
    changes_WB = np.diff(np.diff(power_WB, axis=1), axis=0)
    size_WB = np.abs(changes_WB)
    loudness_F = power_WB[1:].sum(axis=1)
    is_loud_F = loudness_F >= loudness_F.max() * 10 ** (QUIET_DB / 10)
    is_compared_WB = (size_WB >= np.median(size_WB, axis=1, keepdims=True)) & is_loud_F[:, None]
    first, last = np.flatnonzero(is_loud_F)[[0, -1]]
    loud = slice(first, last + 1)
    return Fingerprint(_pack(changes_WB[loud] > 0), _pack(is_compared_WB[loud]))


def is_same_recording(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether two recordings are one."""
    # A sixth of the signs refuses most.
    if _least_different(one, other, step=2, parts=slice(1)) > MAX_DIFFERENT_OF_SOME:
        return False
    return share_different(one, other) <= MAX_DIFFERENT


def share_different(one: Fingerprint, other: Fingerprint) -> float:
    """Share of the signs that differ, with the recordings shifted so that they differ least; 1 if
    too few of their loud moments fall together."""
    return _least_different(one, other, step=1, parts=slice(NUM_PARTS))


def _least_different(one: Fingerprint, other: Fingerprint, *, step: int, parts: slice) -> float:
    """`share_different` of some parts of every `step`-th moment."""
    if len(one.bits_FP) < len(other.bits_FP):
        one, other = other, one
    most_loud = max(one.num_loud, other.num_loud)
    if min(one.num_loud, other.num_loud) < MIN_SHARED * most_loud:
        return 1.0
    length = len(other.bits_FP)
    around = (MAX_SHIFT, MAX_SHIFT)
    windows = np.lib.stride_tricks.sliding_window_view
    bits_WPF, compared_WPF = (
        windows(np.pad(of_one_FP[:, parts], (around, (0, 0))), length, axis=0)[:, :, ::step]
        for of_one_FP in (one.bits_FP, one.compared_FP)
    )
    compared_WPF = compared_WPF & other.compared_FP[::step, parts].T
    different_WPF = (bits_WPF ^ other.bits_FP[::step, parts].T) & compared_WPF
    num_compared_W = np.bitwise_count(compared_WPF).sum(axis=(1, 2))
    num_different_W = np.bitwise_count(different_WPF).sum(axis=(1, 2))
    are_loud_WF = windows(np.pad(one.is_loud_F, around), length) & other.is_loud_F
    has_enough_W = (are_loud_WF.sum(axis=1) >= MIN_SHARED * most_loud) & (num_compared_W > 0)
    if not has_enough_W.any():
        return 1.0
    return float((num_different_W[has_enough_W] / num_compared_W[has_enough_W]).min())


def _pack(is_set_FB: np.ndarray) -> np.ndarray:
    """Bools of 96 bands -> uint32, three for each moment."""
    return np.packbits(is_set_FB, axis=1, bitorder="little").view("<u4")


def _band_edges() -> np.ndarray:
    """The first bin of each of 97 bands, and the bin after the last one."""
    edges_hz = np.linspace(MIN_HZ, MAX_HZ, NUM_BITS + 2)
    return np.round(edges_hz * WINDOW_SAMPLES / SAMPLE_RATE_HZ).astype(int)
