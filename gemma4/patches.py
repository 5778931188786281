"""How the Gemma 4 without encoders (12B) hears: the waveform in patches of 640 samples.

    encoder = PatchEncoder(load_feature_extractor(name))
    [frames_TD] = encoder.encode([waveform_N])

A patch is 40 ms of sound as it is, D = 640, and becomes one position of the prompt. It depends on
no other, so that a recording in pieces, beside others, or still arriving gives the same patches,
bit for bit.
"""

# B recordings, T frames (25 per second), D samples of a frame, N samples at 16 kHz

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import Gemma4UnifiedAudioFeatureExtractor

from commands.errors import InputError
from commands.origins import Origin
from gemma4.feature_extractors import SAMPLES_PER_FRAME
from gemma4.prepared_audio import FeatureBatch, PreparedAudio

# In the place of a tower's fingerprint: patches are the same for every model that takes them, and
# nothing that was made with a tower belongs to them.
NO_TOWER = Origin(tower="0" * 32)


class PatchEncoder:
    """Cuts waveforms into patches, with the interface of `AudioEncoder`.

    Attributes:
        dim: samples of a patch.
        origin: `NO_TOWER`.
    """

    def __init__(self, extractor: Gemma4UnifiedAudioFeatureExtractor) -> None:
        """
        Args:
            extractor: that of the checkpoint.
        """
        self.extractor = extractor
        self.dim: int = extractor.audio_samples_per_token
        self.origin = NO_TOWER

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Cut recordings of any length.

        Args:
            waveforms: mono float32 in [-1, 1] at 16 kHz, each `[num_samples]`.

        Returns:
            One float32 tensor `[T_i, D]` per recording; the last patch ends with zeros.

        Raises:
            InputError: a recording has no sample.
        """
        return self.encode_prepared(self.prepare(waveforms))

    def prepare(self, waveforms: Sequence[np.ndarray]) -> PreparedAudio:
        """All of `encode` but the removal of padding; arguments and InputError as there."""
        for waveform in waveforms:
            self.refuse_too_short(waveform)
        features = self.extractor(list(waveforms), truncation=False, return_tensors="pt")
        batch = FeatureBatch(features["input_features"], features["input_features_mask"])
        return PreparedAudio((batch,))

    def encode_prepared(self, prepared: PreparedAudio) -> list[Tensor]:
        """The rest of `encode`; returns what that returns."""
        [batch] = prepared.batches
        return [
            frames_TD[mask_T]
            for frames_TD, mask_T in zip(batch.features_BMF, batch.mask_BM, strict=True)
        ]

    @staticmethod
    def refuse_too_short(waveform: np.ndarray) -> None:
        """Raise InputError for a recording without a sample."""
        if not len(waveform):
            raise InputError("too short for one frame: no sample in it")


class StreamingPatches:
    """Patches of any number of streams, with the interface of `StreamingTower`."""

    def __init__(self, encoder: PatchEncoder) -> None:
        self.encoder = encoder

    def start(self) -> "PatchStream":
        """A stream before its first sample."""
        return PatchStream()


class PatchStream:
    """One recording, as it arrives, with the interface of `TowerStream`.

    Attributes:
        num_frames: how many patches have been returned.
    """

    def __init__(self) -> None:
        self.num_frames = 0
        self._samples_N = np.zeros(0, np.float32)
        self._is_finished = False

    @property
    def num_waiting(self) -> int:
        """How many patches are complete, but not taken."""
        return len(self._samples_N) // SAMPLES_PER_FRAME

    def add(self, samples_N: np.ndarray) -> None:
        """Hear more, as `push`, and leave its patches to `encode_with`."""
        assert not self._is_finished, "the stream is finished"
        self._samples_N = np.concatenate([self._samples_N, samples_N.astype(np.float32)])

    def push(self, samples_N: np.ndarray) -> Tensor:
        """Hear more.

        Args:
            samples_N: float32 in [-1, 1], mono, 16 kHz; any number, also none.

        Returns:
            float32 `[T, D]`: the patches that these samples complete.
        """
        self.add(samples_N)
        return self._take(self.num_waiting)

    def finish(self) -> Tensor:
        """The end of the recording; returns the last patch if it was begun, filled with zeros."""
        assert not self._is_finished, "the stream is finished"
        self._samples_N = np.pad(self._samples_N, (0, -len(self._samples_N) % SAMPLES_PER_FRAME))
        self._is_finished = True
        return self._take(self.num_waiting)

    def encode_with(self, others: Sequence["PatchStream"], num_frames: int) -> list[Tensor]:
        """The next patches of this stream and of others.

        Args:
            num_frames: taken of each; each has at least so many waiting.

        Returns:
            float32 `[num_frames, D]` of each.
        """
        return [stream._take(num_frames) for stream in (self, *others)]

    def _take(self, num_frames: int) -> Tensor:
        end = num_frames * SAMPLES_PER_FRAME
        taken_TD = self._samples_N[:end].reshape(num_frames, SAMPLES_PER_FRAME)
        self._samples_N = self._samples_N[end:].copy()
        self.num_frames += num_frames
        return torch.from_numpy(taken_TD.copy())
