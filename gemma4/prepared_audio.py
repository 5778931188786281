"""Recordings as the audio tower is given them: log-mel features, which a CPU computes ahead."""

# B recordings, M mel frames (100 per second), F mel bands

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MelBatch:
    """What goes through the tower at once.

    Attributes:
        features_BMF: log-mel features, float32 on the CPU.
        mask_BM: bool, True at real frames.
    """

    features_BMF: Tensor
    mask_BM: Tensor


@dataclass(frozen=True)
class PreparedAudio:
    """The features of several recordings.

    Attributes:
        batches: one with all recordings, or one for each piece of each recording.
        kept: for each recording the frames to keep of each of its pieces; empty if all are in one
            batch, of which all frames are kept.
    """

    batches: tuple[MelBatch, ...]
    kept: tuple[tuple[slice, ...], ...] = ()
