"""The demo's Gemma 4s before training: transformers' own classes, small.

One has E4B's structure: sliding-window and full attention layers, shared keys and values, per-layer
embeddings, softcapped logits and a causal conformer tower. About 5 M parameters, 10 MB in bfloat16.
The other has 12B's: no tower, patches of the waveform, and a decoder that must do the hearing.
"""

# B clips, M mel frames (100 per second), F mel bands, T frames (25 per second), D tower width,
# C channels

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedForConditionalGeneration,
    PreTrainedTokenizerBase,
)
from transformers.models.gemma4.modeling_gemma4 import (
    Gemma4AudioModel,
    Gemma4AudioSubSampleConvProjection,
    Gemma4ClippableLinear,
)

from demo.gemma.tokenizer import special_token_ids
from gemma4.audio_tower import stock_forward
from gemma4.speech_embeddings import accept_embeddings
from gemma4.tiny_gemma import small_gemma, small_unified_gemma

LAYER_TYPES = ["sliding_attention", "sliding_attention", "full_attention"] * 2
UNIFIED_LAYER_TYPES = [*["sliding_attention"] * 3, "full_attention"] * 2
AnyModel = TypeVar("AnyModel", bound=nn.Module)
# torch 2.13's flash attention for CPUs takes a third of a training step at these sizes.
ATTENTION = {"text_config": "eager", "vision_config": "eager", "audio_config": "eager"}


def build_gemma(tokenizer: PreTrainedTokenizerBase, seed: int) -> Gemma4ForConditionalGeneration:
    """A Gemma 4 with random weights, ready for training in float32; takes embeddings as well."""
    model = small_gemma(
        len(tokenizer), special_token_ids(tokenizer),
        text={
            "hidden_size": 160, "intermediate_size": 512, "num_hidden_layers": len(LAYER_TYPES),
            "head_dim": 32, "global_head_dim": 64, "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 3, "layer_types": LAYER_TYPES,
        },
        audio={"hidden_size": 160, "num_hidden_layers": 4, "output_proj_dims": 192},
        attention=ATTENTION,
    )  # fmt: skip
    return accept_embeddings(_initialise(model, seed))


def build_unified_gemma(
    tokenizer: PreTrainedTokenizerBase, seed: int
) -> Gemma4UnifiedForConditionalGeneration:
    """A Gemma 4 without encoders, likewise. Its decoder is deeper: its first half hears."""
    model = small_unified_gemma(
        len(tokenizer), special_token_ids(tokenizer),
        text={
            "hidden_size": 192, "intermediate_size": 512,
            "num_hidden_layers": len(UNIFIED_LAYER_TYPES), "head_dim": 48, "global_head_dim": 64,
            "layer_types": UNIFIED_LAYER_TYPES,
        },
        attention="eager",
    )  # fmt: skip
    return _initialise(model, seed)


def _initialise(model: AnyModel, seed: int) -> AnyModel:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2 and "norm" not in name:
                is_table = "embed_tokens" in name
                std = 0.05 if is_table else 0.8 / math.sqrt(parameter[0].numel())
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return model


def tower_frames(
    tower: Gemma4AudioModel, features_BMF: Tensor, mask_BM: Tensor
) -> tuple[Tensor, Tensor]:
    """The stock tower up to `output_proj`, with gradients, faster on a CPU.

    The convolutions keep channels last; clipping, whose bounds are infinite until a checkpoint sets
    them, is skipped. Equal to the stock forward up to rounding (a test checks it).

    Args:
        tower: float32; run it in `half_precision`.
        features_BMF: log-mel features.
        mask_BM: bool, True at real frames.

    Returns:
        frames_BTD and mask_BT, bool, True at real frames.
    """
    subsample = tower.subsample_conv_projection
    clipped = [m for m in tower.modules() if isinstance(m, Gemma4ClippableLinear)]
    were_clipping = [module.use_clipped_linears for module in clipped]

    def channels_last(features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert mask is not None
        return _subsample(subsample, features, mask)

    subsample.forward = channels_last
    for module in clipped:
        module.use_clipped_linears = False
    try:
        return stock_forward(tower, features_BMF, mask_BM)
    finally:
        del subsample.forward
        for module, was_clipping in zip(clipped, were_clipping, strict=True):
            module.use_clipped_linears = was_clipping


def _subsample(
    module: Gemma4AudioSubSampleConvProjection, features_BMF: Tensor, mask_BM: Tensor
) -> tuple[Tensor, Tensor]:
    """Mel frames -> the tower's frames: two strided convolutions, then a linear map."""
    is_half = torch.is_autocast_enabled("cpu")
    dtype = torch.bfloat16 if is_half else features_BMF.dtype
    features_BMF = (features_BMF * mask_BM[..., None]).to(dtype)
    # With one input channel, this is a product over 3 x 3 patches, which leaves channels last.
    patches = F.pad(features_BMF, (1, 1, 1, 1)).unfold(1, 3, 2).unfold(2, 3, 2).flatten(-2)
    first, second = module.layer0, module.layer1
    x_BTFC = patches @ first.conv.weight.flatten(1).t().to(dtype)
    x_BTFC = _norm_relu(x_BTFC, first.norm)
    mask_BT = mask_BM[:, ::2]
    x_BTFC = x_BTFC * mask_BT[:, :, None, None].to(dtype)
    weight = second.conv.weight.to(dtype).contiguous(memory_format=torch.channels_last)
    x_BCTF = F.conv2d(x_BTFC.permute(0, 3, 1, 2), weight, stride=2, padding=1)
    x_BTFC = _norm_relu(x_BCTF.permute(0, 2, 3, 1), second.norm)
    return module.input_proj_linear(x_BTFC.flatten(2)), mask_BT[:, ::2]


def _norm_relu(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight.to(x.dtype), None, norm.eps).relu()
