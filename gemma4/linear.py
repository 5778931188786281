"""Matrix products at full CPU speed, in float32 and bfloat16."""

import torch
from torch import Tensor
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, clip: tuple[float, float] | None = None) -> Tensor:
    """`x @ weight.T`, optionally clipped; for inference (no gradient flows through it).

    On a CPU it runs in oneDNN. torch 2.13 sends float32 to MKL instead, which leaves AVX-512 unused
    on AMD processors: 107 instead of 245 GFLOP/s a core (Zen 5).

    Args:
        x: float32 or bfloat16, `[..., in]`.
        weight: same dtype, `[out, in]`.
        clip: lower and upper bound of the result.

    Returns:
        `[..., out]` in the same dtype.
    """
    if x.device.type != "cpu" or not runs_in_onednn(x.dtype):
        y = F.linear(x, weight)
        return y if clip is None else y.clamp_(*clip)
    # No public function of torch 2.13 runs float32 in oneDNN; oneDNN calls a clip "hardtanh".
    activation, bounds = ("none", []) if clip is None else ("hardtanh", list(clip))
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, activation, bounds, "")


def runs_in_onednn(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
