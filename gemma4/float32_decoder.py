"""Compute Gemma's decoder in float32 although its weights are in bfloat16, without room for both.

    with decoder_in_float32(model):
        answers = answer_states(model, texts)

bfloat16 keeps 8 bits, and 35 layers make of its rounding a difference of 5 % between two ways to
compute the same states (`python -m benchmarks.rounding`); a fault could hide in that. In float32 it
is 1e-5. Only one layer's weights are widened at a time.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Gemma4TextModel, Gemma4UnifiedTextModel

from commands.device import full_float32
from gemma4.kinds import AnyGemma


@contextlib.contextmanager
def decoder_in_float32(model: AnyGemma) -> Iterator[None]:
    """Inside a `with` block, the decoder's layers compute in float32; weights stay as they are.

    Embeddings are looked up, and logits computed, in the model's own precision: neither differs
    between two ways to compute the same tokens.

    Args:
        model: in any precision, with or without an adapter, not quantised.
    """
    kinds = (Gemma4TextModel, Gemma4UnifiedTextModel)
    [decoder] = [part for part in model.modules() if isinstance(part, kinds)]
    narrow: dict[Tensor, Tensor] = {}  # a tensor that is widened now: its content before

    def widen(module: nn.Module, _: Any) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                narrow[tensor] = tensor.data
                tensor.data = tensor.data.float()

    def put_back(*_: Any) -> None:
        for tensor, content in narrow.items():
            tensor.data = content
        narrow.clear()

    def as_float32(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.float()

    def as_weights(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        assert isinstance(head.weight, Tensor)
        return (inputs[0].to(head.weight.dtype),)

    others = [part for part in decoder.children() if part is not decoder.layers]
    hooks = [model.get_output_embeddings().register_forward_pre_hook(as_weights)]
    for part in (*decoder.layers, *others):
        if isinstance(part, nn.Embedding):
            hooks.append(part.register_forward_hook(as_float32))
        else:
            hooks += [part.register_forward_pre_hook(widen), part.register_forward_hook(put_back)]
    try:
        with full_float32():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        put_back()
