"""Forward pass of Gemma 4's audio tower up to `output_proj`: the stock module, faster on a CPU.

On a CPU, `Gemma4AudioModel.forward` (transformers 5.23) spends half of its bfloat16 time outside
matrix products. The same weights are therefore computed here in fewer passes over memory:

- linear layers run in oneDNN, with the clip of their output fused in;
- clip bounds are numbers: `torch.clamp` with tensor bounds does not vectorise (a quarter of the
  stock bfloat16 time);
- convolutions keep channels last, so that nothing is transposed around them;
- attention contexts are cast, padded and laid out in one copy each.

Equal to the stock forward up to rounding, which a test checks; inference only.
"""

# B utterances, T frames (25 per second), D embedding width, H heads, E width of a head, N blocks of
# C frames, W context of a block (its C frames and those before), M mel frames (100 per second)

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Gemma4AudioModel
from transformers.models.gemma4.modeling_gemma4 import (
    Gemma4AudioAttention,
    Gemma4AudioFeedForward,
    Gemma4AudioLayer,
    Gemma4AudioLightConv1d,
    Gemma4AudioSubSampleConvProjection,
    Gemma4ClippableLinear,
    Gemma4RMSNorm,
)

from gemma4.linear import linear

# 40 s of recordings, or one that is longer: of more, what lies between two layers no longer fits
# into a processor's caches (`benchmarks.tokenize`).
MEL_FRAMES_AT_ONCE = 4000


def fast_cpu_forward(
    tower: Gemma4AudioModel, features_BMF: Tensor, mask_BM: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the tower up to the input of `output_proj`; without gradients.

    Args:
        tower: stock module in evaluation mode, float32 or bfloat16.
        features_BMF: log-mel features of `Gemma4AudioFeatureExtractor`, dtype and device of the
            tower.
        mask_BM: bool, True at real frames.

    Returns:
        frames_BTD in the tower's dtype, and mask_BT, bool, True at real frames.
    """
    num_rows = max(1, MEL_FRAMES_AT_ONCE // features_BMF.shape[1])
    pieces = [
        _forward(tower, *few)
        for few in zip(features_BMF.split(num_rows), mask_BM.split(num_rows), strict=True)
    ]
    frames, masks = zip(*pieces, strict=True)
    return torch.cat(frames), torch.cat(masks)


def _forward(
    tower: Gemma4AudioModel, features_BMF: Tensor, mask_BM: Tensor
) -> tuple[Tensor, Tensor]:
    x_BTD, mask_BT = _subsample(tower.subsample_conv_projection, features_BMF, mask_BM)
    positions = tower.rel_pos_enc(x_BTD)
    blocked_BNCW = _blocked_contexts(tower, mask_BT)
    for layer in tower.layers:
        x_BTD = _layer(layer, x_BTD, positions, blocked_BNCW)
    return x_BTD, mask_BT


def stock_forward(
    tower: Gemma4AudioModel, features_BMF: Tensor, mask_BM: Tensor
) -> tuple[Tensor, Tensor]:
    """The same computed by the stock module, on any device."""
    captured: list[Tensor] = []
    # The tower's own hidden states end after output_proj, so the input of output_proj is captured
    # by a hook.
    hook = tower.output_proj.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    try:
        output = tower(features_BMF, mask_BM)
    finally:
        hook.remove()
    return captured[0], output.attention_mask.bool()


def _subsample(
    module: Gemma4AudioSubSampleConvProjection, features_BMF: Tensor, mask_BM: Tensor
) -> tuple[Tensor, Tensor]:
    image = features_BMF[:, None]
    for layer in (module.layer0, module.layer1):
        image = image * mask_BM[:, None, :, None]
        weight = layer.conv.weight.contiguous(memory_format=torch.channels_last)
        image = F.conv2d(image.contiguous(memory_format=torch.channels_last), weight, None, 2, 1)
        by_pixel = image.permute(0, 2, 3, 1)
        by_pixel = F.layer_norm(
            by_pixel, by_pixel.shape[-1:], layer.norm.weight, None, layer.norm.eps
        )
        image = by_pixel.relu_().permute(0, 3, 1, 2)
        mask_BM = mask_BM[:, ::2]
    return linear(image.permute(0, 2, 3, 1).flatten(2), module.input_proj_linear.weight), mask_BM


def _blocked_contexts(tower: Gemma4AudioModel, mask_BT: Tensor) -> Tensor:
    """Which frames of its context each frame must not see: bool `[B, N, C, W]`."""
    chunk, num_past = tower.config.attention_chunk_size, tower.config.attention_context_left - 1
    num_blocks = math.ceil(mask_BT.shape[1] / chunk)
    padded = F.pad(mask_BT, (num_past, num_blocks * chunk - mask_BT.shape[1]))
    is_real_BNW = padded.unfold(1, num_past + chunk, chunk)
    distance_CW = torch.arange(chunk)[:, None] + num_past - torch.arange(num_past + chunk)
    in_window_CW = (distance_CW >= 0) & (distance_CW < num_past)
    return ~(is_real_BNW[:, :, None] & in_window_CW)


def _layer(
    layer: Gemma4AudioLayer, x_BTD: Tensor, positions: Tensor, blocked_BNCW: Tensor
) -> Tensor:
    limit = min(layer.gradient_clipping, torch.finfo(x_BTD.dtype).max)
    x_BTD = _feed_forward(layer.feed_forward1, x_BTD)
    y_BTD = _rms_norm(layer.norm_pre_attn, x_BTD.clamp(-limit, limit))
    y_BTD = _attention(layer.self_attn, y_BTD, positions, blocked_BNCW)
    x_BTD = _rms_norm(layer.norm_post_attn, y_BTD.clamp_(-limit, limit)).add_(x_BTD)
    x_BTD = _light_convolution(layer.lconv1d, x_BTD)
    x_BTD = _feed_forward(layer.feed_forward2, x_BTD)
    return _rms_norm(layer.norm_out, x_BTD.clamp_(-limit, limit))


def _feed_forward(module: Gemma4AudioFeedForward, x_BTD: Tensor) -> Tensor:
    limit = min(module.gradient_clipping, torch.finfo(x_BTD.dtype).max)
    y_BTD = _rms_norm(module.pre_layer_norm, x_BTD.clamp(-limit, limit))
    hidden = module.act_fn(_clipped_linear(module.ffw_layer_1, y_BTD))
    y_BTD = _clipped_linear(module.ffw_layer_2, hidden).clamp_(-limit, limit)
    return _rms_norm(module.post_layer_norm, y_BTD).mul_(module.post_layer_scale).add_(x_BTD)


def _light_convolution(module: Gemma4AudioLightConv1d, x_BTD: Tensor) -> Tensor:
    limit = min(module.gradient_clipping, torch.finfo(x_BTD.dtype).max)
    y_BTD = _clipped_linear(module.linear_start, _rms_norm(module.pre_layer_norm, x_BTD))
    # Treated as an image one pixel high, channels last. It is padded at both ends and cut at the
    # right end, so that the convolution is causal.
    image = F.glu(y_BTD, dim=-1).transpose(1, 2)[:, :, None]
    weight = module.depthwise_conv1d.weight[:, :, None]
    padding = (0, module.depthwise_conv1d.left_pad)
    image = F.conv2d(image, weight, padding=padding, groups=len(weight))
    y_BTD = image[:, :, 0, : x_BTD.shape[1]].transpose(1, 2).clamp(-limit, limit)
    y_BTD = module.act_fn(_rms_norm(module.conv_norm, y_BTD))
    return _clipped_linear(module.linear_end, y_BTD).add_(x_BTD)


def _attention(
    module: Gemma4AudioAttention, x_BTD: Tensor, positions: Tensor, blocked_BNCW: Tensor
) -> Tensor:
    """Chunked local attention with relative positions; in float32, as in the stock module."""
    batch_size, num_blocks, chunk, context = blocked_BNCW.shape
    heads = (module.num_heads, module.head_dim)
    num_frames = x_BTD.shape[1]

    def by_head(projection: Gemma4ClippableLinear, num_past: int) -> Tensor:
        """Float32 `[B, H, num_past + N C, E]`, zero before the first frame and after the last."""
        shape = (batch_size, heads[0], num_past + num_blocks * chunk, heads[1])
        padded = torch.zeros(shape, dtype=torch.float32)
        y_BTHE = _clipped_linear(projection, x_BTD).unflatten(-1, heads)
        padded[:, :, num_past : num_past + num_frames] = y_BTHE.transpose(1, 2)
        return padded

    scale_E = F.softplus(module.per_dim_scale).float() * module.q_scale
    query = by_head(module.q_proj, 0).mul_(scale_E)
    key_BHNEW, value_BHNEW = (
        by_head(projection, module.max_past_horizon).unfold(2, context, chunk)
        for projection in (module.k_proj, module.v_proj)
    )
    relative_key = module.relative_k_proj(positions).float().view(-1, *heads)
    by_position = (query @ relative_key.permute(1, 2, 0)).unflatten(2, (num_blocks, chunk))
    logits = (query.unflatten(2, (num_blocks, chunk)) @ key_BHNEW).mul_(module.k_scale)
    logits = logits.add_(module._rel_shift(by_position))
    cap = module.attention_logits_soft_cap
    logits = logits.div_(cap).tanh_().mul_(cap)
    logits.masked_fill_(blocked_BNCW[:, None], module.config.attention_invalid_logits_value)
    output = logits.softmax(dim=-1) @ value_BHNEW.transpose(-1, -2)
    output = output.flatten(2, 3)[:, :, :num_frames].transpose(1, 2)
    return _clipped_linear(module.post, output.to(x_BTD.dtype).flatten(2))


def _rms_norm(module: Gemma4RMSNorm, x_BTD: Tensor) -> Tensor:
    y_BTD = x_BTD.float()
    mean_square = torch.linalg.vector_norm(y_BTD, dim=-1, keepdim=True).square() / x_BTD.shape[-1]
    y_BTD = y_BTD * torch.rsqrt(mean_square + module.eps)
    return y_BTD.mul_(module.weight.float()).to(x_BTD.dtype)


def _clipped_linear(module: Gemma4ClippableLinear, x: Tensor) -> Tensor:
    if not module.use_clipped_linears:
        return linear(x, module.linear.weight)
    x = x.clamp(module.input_min.item(), module.input_max.item())
    bounds = module.output_min.item(), module.output_max.item()
    return linear(x, module.linear.weight, clip=bounds)
