"""Linear layers for a few rows at a time on a CPU, as in generation: their weights repacked.

    pack_linear_layers(model)

A decoding step multiplies one to some ten rows by every weight, so that reading the weights is what
takes time. oneDNN reads them faster if they lie as its kernels want them; torch packs them so in
compiled models only. `benchmarks.decoding` and `benchmarks.speech_head` measure it.
"""

# I inputs and O outputs of a layer

import torch
from torch import Tensor, nn

from gemma4.linear import runs_in_onednn


class PackedLinear(nn.Module):
    """A frozen linear layer whose weight only oneDNN can read."""

    def __init__(self, layer: nn.Linear) -> None:
        """Takes over `layer`'s weight; what held it may be thrown away."""
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        # No public function of torch 2.13 packs weights. Not a buffer: it cannot be saved or moved.
        self._packed_OI = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """`[..., I]` -> `[..., O]`, as `nn.Linear` up to rounding."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed_OI, self.bias, "none", [], "")

    def extra_repr(self) -> str:
        """As `nn.Linear`'s."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def pack_linear_layers(model: nn.Module) -> None:
    """Repack every linear layer of a model that is on the CPU, in place, where oneDNN computes in
    its precision.

    The model can then neither be trained nor saved nor moved. Left as they are: LoRA's own small
    layers, and a layer that shares its weight with an embedding.

    Args:
        model: in evaluation mode.
    """
    assert not model.training, "call .eval() before packing"
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for path, module in list(model.named_modules()):
        for name, layer in list(module.named_children()):
            # Its subclasses have weights of other kinds.
            if type(layer) is not nn.Linear or "lora_" in path or id(layer.weight) in tables:
                continue
            if layer.weight.device.type == "cpu" and runs_in_onednn(layer.weight.dtype):
                setattr(module, name, PackedLinear(layer))
