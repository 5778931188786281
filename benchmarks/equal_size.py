"""Speechless and two other generators of code frames, built with the same number of parameters.

flattened: one Llama with one token per code: 200 steps per second of speech, instead of 25 large
and 175 small ones.
CSM (Sesame, 2025): divides the work as ours does; transformers' own class, and its nested
`generate`.

All have random weights, which do not affect timings: every step runs, whatever is sampled.
"""

# B utterances, S prefix positions, T frames (25 per second), K codebooks, V codes per codebook

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import (
    CsmConfig,
    CsmForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.generation import generate_batch
from stage2_speechless.model import Speechless
from stage2_speechless.sampling import DEFAULT_TEMPERATURE, DEFAULT_TOP_K, SamplingSettings
from stage2_speechless.vocabulary import NOTHING, Vocabulary

Model: TypeAlias = Any  # Speechless, LlamaForCausalLM or CsmForConditionalGeneration

SHAPES: dict[str, Callable[[], SpeechlessConfig]] = {
    "reference": SpeechlessConfig,
    "small": partial(
        SpeechlessConfig,
        num_codebooks=4, codebook_size=64, width=64, num_layers=2, num_heads=4, depth_width=32,
        depth_layers=1, depth_heads=4,
    ),
}  # fmt: skip
TEXT = "me din de ama na mefiri kumasi ɛnnɛ anɔpa"  # 41 characters
DIALECT = "asante"
RATE_CPS = 14.0
FEED_FORWARD_STEP = 16
# Required by the class, and discarded before anything is counted or timed.
TINY_CODEC = {
    "model_type": "mimi", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 16, "num_filters": 2,
    "upsample_groups": 16, "codebook_size": 8, "codebook_dim": 4, "num_quantizers": 2,
    "num_semantic_quantizers": 1, "vector_quantization_hidden_dimension": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """Steps per frame, and the parameters that each step multiplies by (without embeddings)."""

    large_steps: int
    large_parameters: float
    small_steps: int = 0
    small_parameters: float = 0.0

    @property
    def parameters_per_frame(self) -> float:
        large = self.large_steps * self.large_parameters
        return large + self.small_steps * self.small_parameters


def build_model(name: str, shape: SpeechlessConfig) -> Model:
    """A model with random weights, in evaluation mode.

    Args:
        name: "Speechless", "flattened" or "CSM".
        shape: shape of Speechless; the others get as many parameters by their feed-forward width.
    """
    torch.manual_seed(0)
    if name == "Speechless":
        speechless = Speechless(shape)
        # A logit of 0 is never among the highest of many symmetric ones, so speech does not end.
        nn.init.zeros_(speechless.code0_head.weight[speechless.end_of_speech])
        return speechless.eval()
    with torch.device("meta"):
        speechless = Speechless(shape)
    wanted = count_parameters(speechless)
    width = speechless.temporal.config.intermediate_size
    if name == "CSM":
        return _fit(lambda width: _build_csm(shape, speechless, width), wanted).eval()
    # A flattened model has no second transformer, but more layers of the usual shape instead.
    with torch.device("meta"):
        one, two = (count_parameters(_build_flattened(shape, n, width)) for n in (1, 2))
    num_layers = 1 + round((wanted - one) / (two - one))
    return _fit(lambda width: _build_flattened(shape, num_layers, width), wanted).eval()


def count_parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def count_work(model: Model, shape: SpeechlessConfig) -> Work:
    """The work that a model does for one frame."""
    num_codebooks = shape.num_codebooks
    if isinstance(model, LlamaForCausalLM):
        layers = count_parameters(model) - count_parameters(model.model.embed_tokens)
        return Work(num_codebooks, layers)
    if isinstance(model, CsmForConditionalGeneration):
        depth = model.depth_decoder.model
        large = count_parameters(model.backbone_model, model.lm_head)
        large -= count_parameters(model.backbone_model.embed_tokens)
        small = count_parameters(depth) - count_parameters(depth.embed_tokens)
        heads = count_parameters(model.depth_decoder.codebooks_head)
    else:
        decoder = model.frame_decoder
        large = count_parameters(model.temporal, model.code0_head, decoder.project)
        large -= count_parameters(model.temporal.embed_tokens)
        small = count_parameters(decoder.transformer)
        small -= count_parameters(decoder.transformer.embed_tokens)
        heads = decoder.heads_JVW.numel()
    return Work(1, large, num_codebooks - 1, small + heads / (num_codebooks - 1))


def prefix_tokens() -> list[int]:
    """The sentence that every model is given, as Speechless's token ids."""
    return Vocabulary().encode(TEXT, DIALECT, RATE_CPS)


@torch.no_grad()
def generate_codes(
    model: Model,
    shape: SpeechlessConfig,
    batch_size: int,
    num_frames: int,
    *,
    static_cache: bool = False,
) -> Tensor:
    """Speak the same sentence several times, for a given number of frames.

    Args:
        model: from `build_model`, with the same `shape`.
        static_cache: allocate keys and values once, at full length (transformers then compiles the
            model, on CUDA); not for Speechless, which manages its own cache.

    Returns:
        The sampled codes, int64 `[B, T, K]`; for the flattened model, which may sample any token
        anywhere, tokens.
    """
    top_k = min(DEFAULT_TOP_K, shape.codebook_size // 8)
    if isinstance(model, Speechless):
        ids = [str(i) for i in range(batch_size)]
        rates: list[float | None] = [RATE_CPS] * batch_size
        spoken = generate_batch(
            model, [TEXT] * batch_size, ids, dialects=[DIALECT] * batch_size, rates_cps=rates,
            sampling=SamplingSettings(top_k=top_k, guidance=1.0), max_frames=num_frames,
        )  # fmt: skip
        return torch.stack([utterance.codes_TK for utterance in spoken])
    tokens_BS = torch.tensor([prefix_tokens()] * batch_size, device=model.device)
    settings: dict[str, Any] = {
        "do_sample": True,
        "temperature": DEFAULT_TEMPERATURE,
        "top_k": top_k,
        "cache_implementation": "static" if static_cache else None,
    }
    mask_BS = torch.ones_like(tokens_BS)
    if isinstance(model, CsmForConditionalGeneration):
        depth_settings = {f"depth_decoder_{name}": value for name, value in settings.items()}
        codes_BTK: Tensor = model.generate(
            tokens_BS, attention_mask=mask_BS, max_new_tokens=num_frames, output_audio=False,
            **settings, **depth_settings,
        )  # fmt: skip
        return codes_BTK
    num_tokens = num_frames * shape.num_codebooks
    tokens_BL: Tensor = model.generate(
        tokens_BS, attention_mask=mask_BS, max_new_tokens=num_tokens, min_new_tokens=num_tokens,
        **settings,
    )  # fmt: skip
    return tokens_BL[:, tokens_BS.shape[1] :].unflatten(1, (num_frames, shape.num_codebooks))


def _build_flattened(
    shape: SpeechlessConfig, num_layers: int, feed_forward: int
) -> PreTrainedModel:
    # Tokens numbered as Speechless embeds them, then the end of speech.
    end_of_speech = Vocabulary().size + shape.num_codebooks * shape.codebook_size
    config = LlamaConfig(
        vocab_size=end_of_speech + 1,
        hidden_size=shape.width,
        intermediate_size=feed_forward,
        num_hidden_layers=num_layers,
        num_attention_heads=shape.num_heads,
        max_position_embeddings=8192,
        pad_token_id=NOTHING,
        bos_token_id=None,
        eos_token_id=end_of_speech,
    )
    return LlamaForCausalLM(config)


def _build_csm(
    shape: SpeechlessConfig, speechless: Speechless, feed_forward: int
) -> PreTrainedModel:
    depth = speechless.frame_decoder.transformer.config
    num_codebooks, codebook_size = shape.num_codebooks, shape.codebook_size
    config = CsmConfig(
        num_codebooks=num_codebooks,
        vocab_size=codebook_size,
        text_vocab_size=Vocabulary().size,
        hidden_size=shape.width,
        intermediate_size=feed_forward,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=8192,
        # The default ids are those of the published vocabulary, and out of range for this one.
        pad_token_id=NOTHING,
        bos_token_id=None,
        audio_token_id=None,
        audio_eos_token_id=None,
        codebook_pad_token_id=0,
        # transformers 5.23 accepts `eos_token_id` and `min_new_tokens` for CSM, but ignores both:
        # speech ends at a frame whose codes, except the last, all equal this id, which is larger
        # than any code.
        codebook_eos_token_id=num_codebooks * codebook_size - 1,
        depth_decoder_config={
            "num_codebooks": num_codebooks,
            "backbone_hidden_size": shape.width,
            "vocab_size": codebook_size,
            "hidden_size": shape.depth_width,
            "intermediate_size": depth.intermediate_size,
            "num_hidden_layers": shape.depth_layers,
            "num_attention_heads": shape.depth_heads,
            "num_key_value_heads": shape.depth_heads,
            "max_position_embeddings": num_codebooks + 1,
            # With a padding token of 0, `generate` (5.23) silently masks the slot of the temporal
            # state, whose placeholder is 0, so that codes no longer depend on the state.
            "pad_token_id": None,
        },
        codec_config=TINY_CODEC,
    )
    model = CsmForConditionalGeneration(config)
    del model.codec_model
    return model


def _fit(build: Callable[[int], PreTrainedModel], num_parameters: int) -> PreTrainedModel:
    """The model whose feed-forward width gives the number of parameters closest to a given one."""
    step = FEED_FORWARD_STEP
    with torch.device("meta"):
        one, two = (count_parameters(build(width)) for width in (step, 2 * step))
    return build(step * max(1, 1 + round((num_parameters - one) / (two - one))))
