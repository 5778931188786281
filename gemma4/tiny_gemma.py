"""Small Gemma 4s of the real classes, with random weights: for tests, the demo and benchmarks."""

import math
from typing import Any

import torch
from transformers import (
    Gemma4AudioConfig,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4UnifiedAudioConfig,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedVisionConfig,
    Gemma4VisionConfig,
)

from gemma4.kinds import ATTENTION, KINDS, PATCHES, AnyGemma


def tiny_gemma(
    vocabulary_size: int, special_ids: dict[str, int], seed: int = 0
) -> Gemma4ForConditionalGeneration:
    """A real Gemma 4 of about 0.6 M random parameters, shaped like E4B in every way that matters.

    Sliding and full layers, shared keys and values, per-layer embeddings, logit softcap; for tests
    and for the offline demo. Random weights are chosen so that no norm, bias or scale is trivially
    one or zero.

    Args:
        vocabulary_size: vocabulary size of its tokenizer.
        special_ids: ids of "boi eoi image video boa eoa audio pad bos eos turn_end" in that
            tokenizer.
        seed: seed for the random weights.
    """
    model = small_gemma(
        vocabulary_size, special_ids,
        text={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8, "head_dim": 16,
            "global_head_dim": 32, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 3,
            "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2,
        },
        audio={"hidden_size": 64, "num_hidden_layers": 2, "output_proj_dims": 48},
        attention=ATTENTION,
    )  # fmt: skip
    return _randomise(model, seed)


def tiny_unified_gemma(
    vocabulary_size: int, special_ids: dict[str, int], seed: int = 0
) -> Gemma4UnifiedForConditionalGeneration:
    """A real Gemma 4 without encoders, of about 0.4 M random parameters, shaped like 12B.

    Patches of 640 samples, sliding and full layers, the latter with one head whose values are its
    keys; no per-layer embeddings, no shared layers. Like the published checkpoint, it suppresses
    the marks that end audio and pictures, and names a third token that ends an answer.

    Args:
        vocabulary_size, special_ids, seed: as for `tiny_gemma`.
    """
    model = small_unified_gemma(
        vocabulary_size, special_ids,
        text={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8, "head_dim": 16,
            "global_head_dim": 32,
            "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2,
        },
        attention=KINDS[PATCHES].attention,
    )  # fmt: skip
    return _randomise(model, seed)


def _randomise(model: AnyGemma, seed: int) -> AnyGemma:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2:
                fan_in = parameter[0].numel()
                std = 0.05 if "embed_tokens" in name else 0.8 / math.sqrt(fan_in)
                parameter.copy_(std * noise)
            else:
                parameter.copy_((1.0 if "norm" in name else 0.0) + 0.1 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.fill_(0.7)
    return model.eval()


def small_gemma(
    vocabulary_size: int,
    special_ids: dict[str, int],
    *,
    text: dict[str, Any],
    audio: dict[str, Any],
    attention: dict[str, str],
) -> Gemma4ForConditionalGeneration:
    """A Gemma 4 with a window of 64 positions, as transformers initialises it.

    Args:
        vocabulary_size: vocabulary size of its tokenizer.
        special_ids: as for `tiny_gemma`.
        text: further settings of the decoder.
        audio: further settings of the audio tower.
        attention: implementation of attention, by part.
    """
    decoder = Gemma4TextConfig(
        vocab_size=vocabulary_size, vocab_size_per_layer_input=vocabulary_size,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=64,
        max_position_embeddings=4096, final_logit_softcapping=30.0,
        pad_token_id=special_ids["pad"], bos_token_id=special_ids["bos"],
        eos_token_id=special_ids["eos"], **text,
    )  # fmt: skip
    tower = Gemma4AudioConfig(
        num_attention_heads=4,
        subsampling_conv_channels=[128, 32],  # the first must equal the number of mel bands
        **audio,
    )
    config = small_config(decoder, tower, special_ids)
    model = Gemma4ForConditionalGeneration._from_config(config, attn_implementation=attention)
    _set_generation(model, special_ids)
    return model


def small_unified_gemma(
    vocabulary_size: int, special_ids: dict[str, int], *, text: dict[str, Any], attention: Any
) -> Gemma4UnifiedForConditionalGeneration:
    """A Gemma 4 without encoders, as transformers initialises it; see `tiny_unified_gemma`.

    Args:
        vocabulary_size, special_ids: as for `tiny_gemma`.
        text: further settings of the decoder.
        attention: implementation of attention, as `Kind` has it.
    """
    decoder = Gemma4UnifiedTextConfig(
        vocab_size=vocabulary_size, num_attention_heads=4, num_key_value_heads=2,
        num_global_key_value_heads=1, attention_k_eq_v=True, sliding_window=64,
        max_position_embeddings=4096, final_logit_softcapping=30.0,
        pad_token_id=special_ids["pad"], bos_token_id=special_ids["bos"],
        eos_token_id=special_ids["eos"], **text,
    )  # fmt: skip
    # Never used, but with the default configuration it would take 120 MB.
    vision = Gemma4UnifiedVisionConfig(
        patch_size=2, mm_embed_dim=32, mm_posemb_size=16, output_proj_dims=32
    )
    config = Gemma4UnifiedConfig(
        text_config=decoder, audio_config=Gemma4UnifiedAudioConfig(), vision_config=vision,
        **_placeholders(special_ids),
    )  # fmt: skip
    model = Gemma4UnifiedForConditionalGeneration._from_config(
        config, attn_implementation=attention
    )
    _set_generation(model, special_ids)
    # In the place of the published <|tool_response>, which small tokenizers do not have.
    model.generation_config.eos_token_id.append(special_ids["channel"])
    model.generation_config.suppress_tokens = [special_ids["eoa"], special_ids["eoi"]]
    return model


def _set_generation(model: AnyGemma, special_ids: dict[str, int]) -> None:
    model.generation_config.eos_token_id = [special_ids["eos"], special_ids["turn_end"]]
    model.generation_config.pad_token_id = special_ids["pad"]
    model.generation_config.bos_token_id = special_ids["bos"]


def small_config(
    text: Gemma4TextConfig, audio: Gemma4AudioConfig, special_ids: dict[str, int]
) -> Gemma4Config:
    """Decoder and tower -> a full Gemma 4 configuration, with the smallest possible vision tower.

    Args:
        special_ids: ids of "boi eoi image video boa eoa audio" in the tokenizer.
    """
    # Never used, but with the default configuration it would take 300 MB.
    vision = Gemma4VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, position_embedding_size=64, use_clipped_linears=True,
    )  # fmt: skip
    return Gemma4Config(
        text_config=text,
        audio_config=audio,
        vision_config=vision,
        **_placeholders(special_ids),
    )


def _placeholders(special_ids: dict[str, int]) -> dict[str, int]:
    """Settings that name the tokens around and in place of sound and pictures."""
    return {
        "boi_token_id": special_ids["boi"], "eoi_token_id": special_ids["eoi"],
        "image_token_id": special_ids["image"], "video_token_id": special_ids["video"],
        "boa_token_id": special_ids["boa"], "eoa_token_index": special_ids["eoa"],
        "audio_token_id": special_ids["audio"],
    }  # fmt: skip
