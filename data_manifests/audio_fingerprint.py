"""Tell whether two files hold the same recording, whatever their format, rate and loudness.

    is_same_recording(fingerprint(decoded), fingerprint(other))

After J. Haitsma and T. Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002: a moment
of sound is 32 bits, each the sign of a difference between neighbouring bands and moments. Encoding
changes few of these signs. Another reading of a sentence, even by the same person, is another
sound: nearly half of them differ. Unlike in the paper, moments are 32 ms apart, because recordings
are compared whole and not found by three seconds of them; and what is quiet is not compared,
because there a sign is chance.

`tests/same_recordings.py` measures both kinds of error on real speech.
"""

# F moments of 32 ms, W windows, B bands

from dataclasses import dataclass

import numpy as np

from data_manifests.audio import DecodedAudio, resample

SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 4096  # 0.256 s; in the paper 0.37
HOP_SAMPLES = 512
NUM_BITS = 32
# As in the paper 300 to 2000 Hz, widened to what telephones pass.
MIN_HZ, MAX_HZ = 300.0, 3000.0
# Moments so far below the loudest one are not compared.
QUIET_DB = -30.0
# What comes later is not needed to tell recordings of one sentence apart.
MAX_SECONDS = 60.0
# Recordings are compared from their first loud moment on, and shifted by up to half a second: an
# encoder may add a click, or hide a soft beginning.
MAX_SHIFT = 16
# Share of bits. The paper allows 0.35, for music. Of 221 real clips, copies in usual formats differ
# by up to 0.18 from their originals, Opus at 6 kbit/s by up to 0.33, two clips by at least 0.41.
MAX_DIFFERENT = 0.3
# Of recordings of less than a second: chance brings two of them to 0.27.
MAX_DIFFERENT_IF_SHORT = 0.2
SHORT_MOMENTS = 32
# Of the moments that are loud in either, so many must be loud in both.
MIN_SHARED = 0.7


@dataclass(frozen=True)
class Fingerprint:
    """From the first loud moment of a recording to the last one.

    Attributes:
        bits_F: uint32, the signs of each moment.
        is_loud_F: bool, the moments that are compared.
    """

    bits_F: np.ndarray
    is_loud_F: np.ndarray

    @property
    def num_loud(self) -> int:
        """How many moments are compared."""
        return int(np.count_nonzero(self.is_loud_F))

    def to_bytes(self) -> bytes:
        """Five bytes for each moment, 160 a second."""
        return self.bits_F.astype("<u4").tobytes() + self.is_loud_F.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Fingerprint":
        """What `to_bytes` was called on."""
        num_moments = len(content) // 5
        bits_F = np.frombuffer(content, dtype="<u4", count=num_moments)
        return cls(bits_F, np.frombuffer(content, dtype=bool, offset=4 * num_moments))


def fingerprint(decoded: DecodedAudio) -> Fingerprint:
    """The fingerprint of a recording that is not silent."""
    samples = decoded.samples[: int(MAX_SECONDS * decoded.sample_rate_hz)]
    samples = resample(samples, decoded.sample_rate_hz, SAMPLE_RATE_HZ)
    padded = np.pad(samples, WINDOW_SAMPLES)
    windows_WN = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum_WN = np.fft.rfft(windows_WN * np.hanning(WINDOW_SAMPLES).astype(np.float32))
    power_WB = np.add.reduceat(np.abs(spectrum_WN) ** 2, _band_edges(), axis=1)[:, : NUM_BITS + 1]
    changes_WB = np.diff(np.diff(power_WB, axis=1), axis=0)
    bits_F = np.packbits(changes_WB > 0, axis=1, bitorder="little").view("<u4")[:, 0]
    loudness_F = power_WB[1:].sum(axis=1)
    is_loud_F = loudness_F >= loudness_F.max() * 10 ** (QUIET_DB / 10)
    first, last = np.flatnonzero(is_loud_F)[[0, -1]]
    return Fingerprint(bits_F[first : last + 1], is_loud_F[first : last + 1])


def is_same_recording(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether two recordings are one."""
    is_short = min(one.num_loud, other.num_loud) < SHORT_MOMENTS
    most = MAX_DIFFERENT_IF_SHORT if is_short else MAX_DIFFERENT
    return share_different(one, other) <= most


def share_different(one: Fingerprint, other: Fingerprint) -> float:
    """Share of the signs that differ, with the recordings shifted so that they differ least; 1 if
    too few of their loud moments fall together."""
    if len(one.bits_F) < len(other.bits_F):
        one, other = other, one
    num_loud = max(one.num_loud, other.num_loud)
    if min(one.num_loud, other.num_loud) < MIN_SHARED * num_loud:
        return 1.0
    length = len(one.bits_F)
    pad = (MAX_SHIFT, MAX_SHIFT + len(other.bits_F))
    windows = np.lib.stride_tricks.sliding_window_view
    shifts = slice(0, MAX_SHIFT * 2 + 1 + length - len(other.bits_F))
    bits_WF = windows(np.pad(one.bits_F, pad), len(other.bits_F))[shifts]
    is_loud_WF = windows(np.pad(one.is_loud_F, pad), len(other.bits_F))[shifts] & other.is_loud_F
    num_different_W = (np.bitwise_count(bits_WF ^ other.bits_F) * is_loud_WF).sum(axis=1)
    num_both_W = is_loud_WF.sum(axis=1)
    has_enough_W = num_both_W >= MIN_SHARED * num_loud
    if not has_enough_W.any():
        return 1.0
    return float((num_different_W[has_enough_W] / (NUM_BITS * num_both_W[has_enough_W])).min())


def _band_edges() -> np.ndarray:
    """The first bin of each of 33 bands, equally wide on a logarithmic scale, and the bin after."""
    edges_hz = np.geomspace(MIN_HZ, MAX_HZ, NUM_BITS + 2)
    return np.round(edges_hz * WINDOW_SAMPLES / SAMPLE_RATE_HZ).astype(int)
