"""Gemma 4's audio tower on speech that is still arriving: the embeddings of the whole recording.

    ear = StreamingTower(encoder)
    stream = ear.start()
    for samples_N in microphone:
        frames_TD = stream.push(samples_N)  # those that are complete by now, perhaps none
    frames_TD = stream.finish()  # at most one more, which the speech did not fill

`encode_together` takes a step of several streams in one pass, whenever each began.

The tower is strictly causal: a frame depends on the 40 ms that it covers, one sample more, and what
came before. So each layer keeps what its next frames will look back at: keys and values of 11
frames, and 4 inputs of its convolution; the mel front end keeps one window of samples and 4 mel
frames. Memory and the cost of a second of speech do not depend on how long it has lasted.

`tower_layer.py` runs one layer on frames that come later.
"""

# B utterances, T new frames (25 per second), D embedding width, H heads, E width of a head, W
# window of a frame (the frame and those it sees before it), N samples at 16 kHz, M mel frames
# (100 per second), F mel bins

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioLayer

from commands.device import full_float32
from gemma4.feature_extractors import MIN_SAMPLES, SAMPLES_PER_FRAME
from gemma4.gemma import PIECE_FRAMES, AudioEncoder
from gemma4.tower_layer import LayerCache, join_caches, part_caches, run_layer

MELS_PER_FRAME = 4
SAMPLES_PER_MEL = SAMPLES_PER_FRAME // MELS_PER_FRAME
# The subsampler's two convolutions reach 3 mel frames back; in steps of a whole frame, that is 4.
MEL_CONTEXT = 4


class StreamingTower:
    """An audio tower that can be run on any number of streams, each with its own cache."""

    def __init__(self, encoder: AudioEncoder) -> None:
        """
        Args:
            encoder: of which tower and mel front end are used as they are.
        """
        self.encoder = encoder
        tower = encoder.tower
        # A frame sees itself and 11 before it. Of 13 relative positions, the first is never used.
        self.window = tower.config.attention_context_left - 1
        with torch.no_grad():
            positions = tower.rel_pos_enc(tower.output_proj.weight)  # reads its dtype and device
            self._relative_keys_HEW = [
                layer.self_attn.relative_k_proj(positions)
                .float()
                .view(-1, layer.self_attn.num_heads, layer.self_attn.head_dim)[-self.window :]
                .permute(1, 2, 0)
                for layer in tower.layers
            ]

    def start(self) -> "TowerStream":
        """A stream before its first sample."""
        return TowerStream(self)

    def empty_caches(self) -> list[LayerCache]:
        """Caches of a stream before its first frame, one for each layer."""
        return [self._empty_cache(layer) for layer in self.encoder.tower.layers]

    @torch.no_grad()
    def step(
        self, x_BTD: Tensor, caches: Sequence[list[LayerCache]], nums_before: Sequence[int]
    ) -> Tensor:
        """Run frames through all layers, and move the caches on.

        Args:
            x_BTD: the subsampler's output for the next frames of each stream.
            caches: of each stream, one for each layer; changed.
            nums_before: how many frames of each stream came before these.

        Returns:
            Embeddings before `output_proj`, `[B, T, D]`.
        """
        device = x_BTD.device
        ages_W = torch.arange(self.window - 1, -1, -1, device=device)
        times_BT1 = (
            torch.tensor(nums_before, device=device)[:, None, None]
            + torch.arange(x_BTD.shape[1], device=device)[:, None]
        )
        is_before_B1TW = (ages_W > times_BT1)[:, None]
        layers = self.encoder.tower.layers
        with full_float32():
            for layer, relative_keys_HEW, *of_streams in zip(
                layers, self._relative_keys_HEW, *caches, strict=True
            ):
                cache = join_caches(of_streams)
                x_BTD = run_layer(layer, x_BTD, cache, relative_keys_HEW, is_before_B1TW)
                part_caches(cache, of_streams)
        return x_BTD

    def _empty_cache(self, layer: Gemma4AudioLayer) -> LayerCache:
        attention, convolution = layer.self_attn, layer.lconv1d.depthwise_conv1d
        weight = convolution.weight
        shape = (1, attention.num_heads, self.window - 1, attention.head_dim)
        keys_BHPE = torch.zeros(shape, dtype=torch.float32, device=weight.device)
        return LayerCache(
            keys_BHPE, keys_BHPE.clone(), weight.new_zeros(1, len(weight), convolution.left_pad)
        )


class TowerStream:
    """One recording, as it arrives.

    Attributes:
        num_frames: how many frames have been returned.
    """

    def __init__(self, tower: StreamingTower) -> None:
        self.num_frames = 0
        self._tower = tower
        self._caches = tower.empty_caches()
        self._samples_N = np.zeros(0, np.float32)
        self._num_mels = 0  # computed so far
        self._mels_MF = torch.zeros(0, tower.encoder.extractor.feature_size)
        self._is_finished = False

    def push(self, samples_N: np.ndarray) -> Tensor:
        """Hear more.

        Args:
            samples_N: float32 in [-1, 1], mono, 16 kHz; any number, also none.

        Returns:
            float32 `[T, D]` on the CPU, before `output_proj`: the frames that these samples
            complete. Equal, up to rounding, to `AudioEncoder.encode` of the whole recording.
        """
        self.add(samples_N)
        found = [self._no_frames]
        while self.num_waiting:
            # So many go through the layers at once, however many samples are pushed.
            found += encode_together([self], min(self.num_waiting, PIECE_FRAMES))
        return torch.cat(found)

    def add(self, samples_N: np.ndarray) -> None:
        """Hear more, as `push`, and leave its frames to `encode_together`."""
        assert not self._is_finished, "the stream is finished"
        self._samples_N = np.concatenate([self._samples_N, samples_N.astype(np.float32)])
        self._compute_mels()

    def encode_with(self, others: Sequence["TowerStream"], num_frames: int) -> list[Tensor]:
        """`encode_together` of this stream and others."""
        return encode_together([self, *others], num_frames)

    @property
    def num_waiting(self) -> int:
        """How many frames are complete, but not encoded."""
        return (len(self._mels_MF) - self._context) // MELS_PER_FRAME

    def finish(self) -> Tensor:
        """The end of the recording.

        Returns:
            As `push`: one frame if the last one was begun, else none.
        """
        assert not self._is_finished, "the stream is finished"
        self._is_finished = True
        num_left = len(self._mels_MF) - self._context
        return _encode([self], num_left)[0] if num_left else self._no_frames

    @property
    def _context(self) -> int:
        """How many of the mel frames kept belong to frames before."""
        return MEL_CONTEXT if self.num_frames else 0

    @property
    def _no_frames(self) -> Tensor:
        return torch.zeros(0, self._tower.encoder.dim)

    def _compute_mels(self) -> None:
        """Compute the mel frames whose window is complete, and drop the samples before the next."""
        # From the second frame on, the samples kept begin one hop earlier: the extractor puts zeros
        # before what it is given, and the first frame that it computes there is thrown away.
        num_extra = 1 if self._num_mels else 0
        num_mels = (len(self._samples_N) - MIN_SAMPLES) // SAMPLES_PER_MEL + 1
        if num_mels <= num_extra:
            return
        end = (num_mels - 1) * SAMPLES_PER_MEL + MIN_SAMPLES
        features_BMF, mask_BM = self._tower.encoder.log_mel([self._samples_N[:end]])
        mels_MF = features_BMF[mask_BM][num_extra:]
        self._mels_MF = torch.cat([self._mels_MF, mels_MF])
        self._num_mels += len(mels_MF)
        self._samples_N = self._samples_N[(num_mels - 1) * SAMPLES_PER_MEL :].copy()

    def _subsample(self, num_mels: int) -> Tensor:
        """The subsampler's output, `[1, T, D]`, for the next mel frames: of whole frames, or of one
        that ends early."""
        tower = self._tower.encoder.tower
        weight = tower.output_proj.weight
        context, end = self._context, self._context + num_mels
        # What is missing in the last frame is masked, as it is at the end of a whole recording.
        features_MF = F.pad(self._mels_MF[:end], (0, 0, 0, -end % MELS_PER_FRAME))
        is_real_M = torch.arange(len(features_MF)) < end
        with full_float32():
            x_1TD, _ = tower.subsample_conv_projection(
                features_MF[None].to(weight.device, weight.dtype), is_real_M[None].to(weight.device)
            )
        self._mels_MF = self._mels_MF[max(0, end - MEL_CONTEXT) :].clone()
        return x_1TD[:, context // MELS_PER_FRAME :]


def encode_together(streams: Sequence[TowerStream], num_frames: int) -> list[Tensor]:
    """Encode the next frames of several streams in one pass.

    Args:
        streams: of the same tower; each has at least so many waiting.
        num_frames: taken of each, at least 1.

    Returns:
        As `TowerStream.push`, for each, `num_frames` long.
    """
    assert all(stream.num_waiting >= num_frames for stream in streams)
    return _encode(streams, num_frames * MELS_PER_FRAME)


@torch.no_grad()
def _encode(streams: Sequence[TowerStream], num_mels: int) -> list[Tensor]:
    nums_before = [stream.num_frames for stream in streams]
    x_BTD = torch.cat([stream._subsample(num_mels) for stream in streams])
    caches = [stream._caches for stream in streams]
    frames_BTD = streams[0]._tower.step(x_BTD, caches, nums_before).float().cpu()
    for stream in streams:
        stream.num_frames += frames_BTD.shape[1]
    return list(frames_BTD)
