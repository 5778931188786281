"""One layer of Gemma 4's audio tower, on frames that come later than those in its cache.

Source: `Gemma4AudioLayer` of transformers 5.23, whose submodules are used as they are; only
attention and the convolution over time are written anew.
"""

# B streams, T new frames (25 per second), D embedding width, H heads, E width of a head, W window
# of a frame (the frame and those it sees before it), P = W - 1, K one less than the convolution's
# kernel

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.gemma4.modeling_gemma4 import (
    Gemma4AudioAttention,
    Gemma4AudioLayer,
    Gemma4AudioLightConv1d,
)


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


def join_caches(caches: Sequence[LayerCache]) -> LayerCache:
    """Caches of one layer and several streams, side by side."""
    values = zip(*(vars(cache).values() for cache in caches), strict=True)
    return LayerCache(*map(torch.cat, values))


def part_caches(joined: LayerCache, caches: Sequence[LayerCache]) -> None:
    """Give each stream its row of what was joined."""
    for row, cache in enumerate(caches):
        for name, value in vars(joined).items():
            setattr(cache, name, value[row : row + 1])


def run_layer(
    layer: Gemma4AudioLayer,
    x_BTD: Tensor,
    cache: LayerCache,
    relative_keys_HEW: Tensor,
    is_before_B1TW: Tensor,
) -> Tensor:
    """One layer's output for the next frames, `[B, T, D]`.

    Args:
        x_BTD: its input for them.
        cache: what came before; moved on.
        relative_keys_HEW: the layer's keys of relative positions.
        is_before_B1TW: bool, True where the window reaches back before a stream's first frame.
    """
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
