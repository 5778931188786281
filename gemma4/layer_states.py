"""Which decoder layers' states are read, and how to get them out of transformers.

The last layer's states are those after Gemma's final norm, which transformers puts in place of the
layer's own output.
"""

# B utterances, P prompt tokens, S answer tokens, L layers, D width of Gemma

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from gemma4.kinds import AnyGemma

# Indices into transformers' `hidden_states`, from the end: -1 is the last layer; the first entry
# holds the embeddings.
LAYERS = [-6, -5, -4, -3, -2, -1]
LayersName = Literal["last_six", "two_thirds"]


def pick_layers(name: LayersName, gemma: AnyGemma) -> list[int]:
    """The last six layers, or the one at two thirds of the decoder's depth; indices as `LAYERS`."""
    if name == "last_six":
        return LAYERS
    num_layers = gemma.config.text_config.num_hidden_layers
    return [round(2 / 3 * num_layers) - num_layers - 1]


def embed_tokens(gemma: AnyGemma, ids_S: Tensor) -> Tensor:
    """Rows `[S, D]` of Gemma's embedding table, on its device."""
    return gemma.get_input_embeddings()(ids_S.to(gemma.device))


def layers_to_request(layers: Sequence[int]) -> list[int]:
    """Layers to request from transformers: at least one, or it would return no hidden states."""
    return list(layers) or LAYERS[-1:]


def stack_layers(hidden_states: Sequence[Any], layers: Sequence[int]) -> Tensor:
    """Stack the kept layers to `[B, P, L, D]`; transformers leaves None for the others."""
    stacked = torch.stack([hidden_states[layer] for layer in layers_to_request(layers)], dim=2)
    return stacked[:, :, : len(layers)]


def describe_mix(layer_logits_L: Tensor, layers: Sequence[int]) -> dict[str, float]:
    """Weight of each layer in a mix of states, by name, for the training log.

    Args:
        layer_logits_L: float, whose softmax are the weights.
        layers: indices as `LAYERS`.
    """
    shares_L = layer_logits_L.detach().softmax(dim=0).tolist()
    return {f"layer_{layer}": share for layer, share in zip(layers, shares_L, strict=True)}
