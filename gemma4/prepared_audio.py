"""Recordings as Gemma's ear is given them: features, which a CPU computes ahead."""

# B recordings, M frames of features (100 per second of log-mel, 25 of waveform), F their width

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class FeatureBatch:
    """What goes through the ear at once.

    Attributes:
        features_BMF: log-mel features, or patches of the waveform; float32 on the CPU.
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

    batches: tuple[FeatureBatch, ...]
    kept: tuple[tuple[slice, ...], ...] = ()
