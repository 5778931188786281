"""Configurations of Gemma 4 E2B, E4B and 12B at their true size, and of a tiny one shaped like E2B.

    model = Gemma4ForConditionalGeneration(e2b_config())  # 5.1 billion weights: on the meta device

Sources: google/gemma-4-E2B-it, google/gemma-4-E4B-it and google/gemma-4-12B-it, config.json. The
first reproduces names and shapes of all 2,011 published tensors, the last the number of tensors and
weights (tests check it).
"""

from typing import Any

from transformers import (
    Gemma4AudioConfig,
    Gemma4Config,
    Gemma4TextConfig,
    Gemma4UnifiedAudioConfig,
    Gemma4UnifiedConfig,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedVisionConfig,
    Gemma4VisionConfig,
)

VOCABULARY_SIZE = 262_144
# Ids of the special tokens in the published tokenizer.
SPECIAL_IDS = {
    "pad": 0, "eos": 1, "bos": 2, "unk": 3, "think": 98, "channel": 100, "channel_end": 101,
    "turn": 105, "turn_end": 106, "boi": 255_999, "boa": 256_000, "image": 258_880,
    "audio": 258_881, "eoi": 258_882, "eoa": 258_883, "video": 258_884,
}  # fmt: skip
# The same in a tiny vocabulary.
TINY_SPECIAL_IDS = {name: number for number, name in enumerate(SPECIAL_IDS)}
TINY_VOCABULARY_SIZE = 1024


def e2b_config() -> Gemma4Config:
    """Gemma 4 E2B: 35 layers, of which the last 20 share keys and values and are twice as wide."""
    text = _text_config(
        SPECIAL_IDS, vocab_size=VOCABULARY_SIZE, vocab_size_per_layer_input=VOCABULARY_SIZE,
        hidden_size=1536, intermediate_size=6144, num_hidden_layers=35, num_key_value_heads=1,
        num_kv_shared_layers=20, use_double_wide_mlp=True, layer_types=_layer_types(35, 5),
    )  # fmt: skip
    return _config(text, Gemma4AudioConfig(), Gemma4VisionConfig(use_clipped_linears=True))


def e4b_config() -> Gemma4Config:
    """Gemma 4 E4B: 42 layers, of which the last 18 share keys and values."""
    text = _text_config(
        SPECIAL_IDS, vocab_size=VOCABULARY_SIZE, vocab_size_per_layer_input=VOCABULARY_SIZE,
        hidden_size=2560, intermediate_size=10_240, num_hidden_layers=42, num_key_value_heads=2,
        num_kv_shared_layers=18, layer_types=_layer_types(42, 6),
    )  # fmt: skip
    return _config(text, Gemma4AudioConfig(), Gemma4VisionConfig(use_clipped_linears=True))


def unified_12b_config() -> Gemma4UnifiedConfig:
    """Gemma 4 12B, without encoders: 48 layers; in every sixth, values are keys."""
    text = Gemma4UnifiedTextConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=3840, intermediate_size=15_360,
        num_hidden_layers=48, num_attention_heads=16, num_key_value_heads=8,
        num_global_key_value_heads=1, head_dim=256, global_head_dim=512, attention_k_eq_v=True,
        sliding_window=1024, max_position_embeddings=131_072, final_logit_softcapping=30.0,
    )  # fmt: skip
    return Gemma4UnifiedConfig(
        text_config=text,
        audio_config=Gemma4UnifiedAudioConfig(),
        vision_config=Gemma4UnifiedVisionConfig(),
        eos_token_id=[SPECIAL_IDS["eos"], SPECIAL_IDS["turn_end"]],
    )


def tiny_config() -> Gemma4Config:
    """E2B in every way but size: 10 layers, about 0.6 M weights."""
    text = _text_config(
        TINY_SPECIAL_IDS, vocab_size=TINY_VOCABULARY_SIZE,
        vocab_size_per_layer_input=TINY_VOCABULARY_SIZE, hidden_size=64, intermediate_size=96,
        num_hidden_layers=10, num_attention_heads=4, num_key_value_heads=1, head_dim=16,
        global_head_dim=32, hidden_size_per_layer_input=8, num_kv_shared_layers=5,
        sliding_window=64, max_position_embeddings=4096, use_double_wide_mlp=True,
        layer_types=_layer_types(10, 5),
    )  # fmt: skip
    audio = Gemma4AudioConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, output_proj_dims=96,
        subsampling_conv_channels=[128, 32],  # the first must equal the number of mel bands
    )  # fmt: skip
    vision = Gemma4VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, position_embedding_size=64, use_clipped_linears=True,
    )  # fmt: skip
    return _config(text, audio, vision)


def _text_config(ids: dict[str, int], **settings: Any) -> Gemma4TextConfig:
    common: dict[str, Any] = {
        "num_attention_heads": 8, "head_dim": 256, "global_head_dim": 512,
        "hidden_size_per_layer_input": 256, "sliding_window": 512, "final_logit_softcapping": 30.0,
        "pad_token_id": ids["pad"], "bos_token_id": ids["bos"], "eos_token_id": ids["eos"],
    }  # fmt: skip
    return Gemma4TextConfig(**{**common, **settings})


def _layer_types(num_layers: int, period: int) -> list[str]:
    return [
        "full_attention" if layer % period == period - 1 else "sliding_attention"
        for layer in range(num_layers)
    ]


def _config(
    text: Gemma4TextConfig, audio: Gemma4AudioConfig, vision: Gemma4VisionConfig
) -> Gemma4Config:
    ids = SPECIAL_IDS if text.vocab_size == VOCABULARY_SIZE else TINY_SPECIAL_IDS
    return Gemma4Config(
        text_config=text, audio_config=audio, vision_config=vision,
        boi_token_id=ids["boi"], eoi_token_id=ids["eoi"], image_token_id=ids["image"],
        video_token_id=ids["video"], boa_token_id=ids["boa"], eoa_token_index=ids["eoa"],
        audio_token_id=ids["audio"], eos_token_id=[ids["eos"], ids["turn_end"]],
    )  # fmt: skip
