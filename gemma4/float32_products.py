"""Matrix products of bfloat16 weights on a CPU that has no instructions for bfloat16.

    compute_in_float32(model)  # where `needs_float32(device, dtype)`

On such a CPU torch 2.13 multiplies bfloat16 matrices element by element: a layer of Gemma 4 E2B
over 300 positions takes 1,036 ms, in float32 160 (two cores of an AMD EPYC with AVX2). So each
product is computed in float32, from a copy of the weight that lives as long as the product: 380 ms,
and no more memory than bfloat16 needs.
"""

# N positions

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_POSITIONS = 32  # below, copying the weight takes longer than the product


def needs_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine multiplies such matrices without instructions for them."""
    return (
        device.type == "cpu"
        and dtype == torch.bfloat16
        and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def compute_in_float32(model: nn.Module) -> None:
    """Compute the products of a model's frozen linear layers in float32 from now on; in place."""
    for module in model.modules():
        if type(module) is nn.Linear:  # no layer of a quantised model, nor of an adapter
            module.__class__ = _Linear


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        is_short = input.numel() // self.in_features < MIN_POSITIONS
        # A weight's own gradient is not computed here.
        if is_short or input.dtype != torch.bfloat16 or self.weight.requires_grad:
            return super().forward(input)
        output: Tensor = _Product.apply(input, self.weight)  # type: ignore[no-untyped-call]
        return output if self.bias is None else output + self.bias


class _Product(torch.autograd.Function):
    """x @ weight.T, and its gradient for x; autograd would keep the copy of the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x.float(), weight.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        [weight] = ctx.saved_tensors
        return (grad.float() @ weight.float()).to(grad.dtype), None
