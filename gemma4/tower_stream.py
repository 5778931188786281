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

Source: `Gemma4AudioModel` of transformers 5.23, whose submodules are used as they are; only
attention and the convolution over time are written anew, for frames that come later.
"""

# B utterances, T new frames (25 per second), D embedding width, H heads, E width of a head, W
# window of a frame (the frame and those it sees before it), N samples at 16 kHz, M mel frames
# (100 per second), F mel bins

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.gemma4.modeling_gemma4 import (
    Gemma4AudioAttention,
    Gemma4AudioLayer,
    Gemma4AudioLightConv1d,
)

from commands.device import full_float32
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.gemma import MIN_SAMPLES, PIECE_FRAMES, SAMPLES_PER_FRAME, AudioEncoder

MELS_PER_FRAME = 4
SAMPLES_PER_MEL = SAMPLES_PER_FRAME // MELS_PER_FRAME
# The subsampler's two convolutions reach 3 mel frames back; in steps of a whole frame, that is 4.
MEL_CONTEXT = 4


@dataclass
class LayerCache:
    """What one layer's next frames will look back at.

    Attributes:
        keys_BHPE: float32, of the frames before; P = W - 1. Zero before the first frame.
        values_BHPE: the same for values.
        convolved_BDK: inputs of the convolution; K is one less than its kernel's width.
    """

    keys_BHPE: Tensor
    values_BHPE: Tensor
    convolved_BDK: Tensor


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
                cache = _join(of_streams)
                x_BTD = _layer(layer, x_BTD, cache, relative_keys_HEW, is_before_B1TW)
                _part(cache, of_streams)
        return x_BTD

    def _empty_cache(self, layer: Gemma4AudioLayer) -> LayerCache:
        attention, convolution = layer.self_attn, layer.lconv1d.depthwise_conv1d
        weight = convolution.weight
        shape = (1, attention.num_heads, self.window - 1, attention.head_dim)
        keys_BHPE = torch.zeros(shape, dtype=torch.float32, device=weight.device)
        return LayerCache(
            keys_BHPE, keys_BHPE.clone(), weight.new_zeros(1, len(weight), convolution.left_pad)
        )


def _join(caches: Sequence[LayerCache]) -> LayerCache:
    values = zip(*(vars(cache).values() for cache in caches), strict=True)
    return LayerCache(*map(torch.cat, values))


def _part(joined: LayerCache, caches: Sequence[LayerCache]) -> None:
    for row, cache in enumerate(caches):
        for name, value in vars(joined).items():
            setattr(cache, name, value[row : row + 1])


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

    @property
    def duration_s(self) -> float:
        """How long the speech has lasted so far."""
        num_dropped = max(0, self._num_mels - 1) * SAMPLES_PER_MEL
        return (num_dropped + len(self._samples_N)) / GEMMA_SAMPLE_RATE_HZ

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


def _layer(
    layer: Gemma4AudioLayer,
    x_BTD: Tensor,
    cache: LayerCache,
    relative_keys_HEW: Tensor,
    is_before_B1TW: Tensor,
) -> Tensor:
    limit = min(layer.gradient_clipping, torch.finfo(x_BTD.dtype).max)
    x_BTD = layer.feed_forward1(x_BTD)
    y_BTD = layer.norm_pre_attn(x_BTD.clamp(-limit, limit))
    y_BTD = _attention(layer.self_attn, y_BTD, cache, relative_keys_HEW, is_before_B1TW)
    x_BTD = x_BTD + layer.norm_post_attn(y_BTD.clamp(-limit, limit))
    x_BTD = _light_convolution(layer.lconv1d, x_BTD, cache)
    x_BTD = layer.feed_forward2(x_BTD)
    return layer.norm_out(x_BTD.clamp(-limit, limit))


def _attention(
    module: Gemma4AudioAttention,
    x_BTD: Tensor,
    cache: LayerCache,
    relative_keys_HEW: Tensor,
    is_before_B1TW: Tensor,
) -> Tensor:
    """Each frame attends to itself and the window before it; in float32, as in the stock module."""
    heads = (module.num_heads, module.head_dim)
    query_BHTE, key_BHTE, value_BHTE = (
        projection(x_BTD).float().unflatten(-1, heads).transpose(1, 2)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    query_BHTE = query_BHTE * module.q_scale * F.softplus(module.per_dim_scale).float()
    keys = torch.cat([cache.keys_BHPE, key_BHTE * module.k_scale], dim=2)
    values = torch.cat([cache.values_BHPE, value_BHTE], dim=2)
    num_kept = cache.keys_BHPE.shape[2]
    cache.keys_BHPE, cache.values_BHPE = (x[:, :, -num_kept:].clone() for x in (keys, values))
    window = num_kept + 1
    logits_BHTW = (query_BHTE[..., None, :] @ keys.unfold(2, window, 1)).squeeze(-2)
    logits_BHTW = logits_BHTW + query_BHTE @ relative_keys_HEW
    cap = module.attention_logits_soft_cap
    logits_BHTW = (logits_BHTW / cap).tanh() * cap
    logits_BHTW = logits_BHTW.masked_fill(
        is_before_B1TW, module.config.attention_invalid_logits_value
    )
    weights_BHTW = logits_BHTW.softmax(dim=-1)
    y_BHTE = (values.unfold(2, window, 1) @ weights_BHTW[..., None]).squeeze(-1)
    return module.post(y_BHTE.transpose(1, 2).flatten(2).to(x_BTD.dtype))


def _light_convolution(module: Gemma4AudioLightConv1d, x_BTD: Tensor, cache: LayerCache) -> Tensor:
    y_BTD = F.glu(module.linear_start(module.pre_layer_norm(x_BTD)), dim=-1)
    inputs = torch.cat([cache.convolved_BDK, y_BTD.transpose(1, 2)], dim=2)
    cache.convolved_BDK = inputs[:, :, -cache.convolved_BDK.shape[2] :].clone()
    weight = module.depthwise_conv1d.weight
    y_BTD = F.conv1d(inputs, weight, groups=len(weight)).transpose(1, 2)
    limit = min(module.gradient_clipping, torch.finfo(x_BTD.dtype).max)
    y_BTD = module.act_fn(module.conv_norm(y_BTD.clamp(-limit, limit)))
    return x_BTD + module.linear_end(y_BTD)
