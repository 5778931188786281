"""Gemma 4's decoder alone, at any size, with random weights and a small vocabulary.

    decoder, planned = build_decoder("e2b", vocabulary_size=512)    # 4 GB
    fill(decoder, planned["matched"], seed=0)

Rows of the embedding tables are drawn alike, so that a few stand for all.
"""

from dataclasses import replace
from typing import Literal

import torch
from transformers import Gemma4TextModel
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextScaledWordEmbedding

from gemma4.matched_gemma import PlannedTensor, draw_into, planned_tensors
from gemma4.true_shapes import e2b_config, e4b_config, tiny_config

Weights = Literal["default", "figures", "matched"]
SHAPES = {"tiny": tiny_config, "e2b": e2b_config, "e4b": e4b_config}
PREFIX = "model.language_model."


def build_decoder(
    size: str, *, vocabulary_size: int
) -> tuple[Gemma4TextModel, dict[Weights, dict[str, PlannedTensor] | None]]:
    """A decoder with a small vocabulary, bfloat16, and what its weights are drawn from."""
    shape = SHAPES[size]()
    planned: dict[Weights, dict[str, PlannedTensor] | None] = {"default": None}
    for weights in ("figures", "matched"):
        plan = planned_tensors(shape, common_part=weights == "matched")
        planned[weights] = {name.removeprefix(PREFIX): part for name, part in plan.items()}
    text = shape.text_config
    text.vocab_size = text.vocab_size_per_layer_input = vocabulary_size
    decoder = Gemma4TextModel._from_config(
        text, dtype=torch.bfloat16, attn_implementation="sdpa"
    ).eval()
    for module in decoder.modules():
        if isinstance(module, Gemma4TextScaledWordEmbedding):
            # Rounded to bfloat16 when it was built; would differ by 0.1 % from float64's.
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
    return decoder, planned


def fill(decoder: Gemma4TextModel, planned: dict[str, PlannedTensor] | None, seed: int) -> None:
    """Draw all weights anew, bfloat16."""
    state = decoder.state_dict()
    if planned is None:
        generator = torch.Generator().manual_seed(seed)
        std = decoder.config.initializer_range
        for name, tensor in state.items():
            if "norm" in name or "layer_scalar" in name:
                tensor.fill_(1)
            else:
                tensor.normal_(0, std, generator=generator)
        return
    of_shape = {
        name: replace(
            planned[name], statistics=replace(planned[name].statistics, shape=tuple(tensor.shape))
        )
        for name, tensor in state.items()
    }
    draw_into(state, of_shape, seed)
