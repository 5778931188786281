"""How near two speech embeddings are to each other.

    metric = FrameMetric(encoder.frame_scale_D, encoder.output_proj_PD)
    map_DD = metric.map_DD  # codebooks are fitted, and codes chosen, by |map (x - y)|

Embeddings x leave the tower's last norm, whose weight w is anything but even in published Gemma 4
(E2B: mean 3.6, deviation 5.6, some of its elements near 0), and enter the decoder through
`output_proj`, a map W with singular values from 0.23 to 2.2. So there are three spaces to compare
them in, and the nearest code depends on the space:

    normalized  x / w    every dimension counts alike, those that w mutes, too
    raw         x        that of the published quantiser's card
    projected   W x      what the decoder gets

Codebooks are fitted half way between the last two: a direction whose gain through W is g counts
with the square root of g. The error of W x is then as small as if they were fitted for it alone,
and that of x, from which recognisers read, grows less. Errors are reported in all three
(`docs/results.md` has the figures, `benchmarks.frame_metric` prints them).
"""

# D embedding width, P width of the tower's output

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

SPACES = ["projected", "raw", "normalized"]
MIN_GAIN = 1e-3  # of the largest gain: the map has an inverse, whatever W mutes


@dataclass(frozen=True)
class FrameMetric:
    """What distances between frames are measured with.

    Attributes:
        frame_scale_D: weight of the tower's last norm, w.
        output_proj_PD: weight of the tower's `output_proj`, W; None compares x / w.
        exponent: of the gain of a direction through W: 0 compares x, 1 compares W x.
    """

    frame_scale_D: Tensor
    output_proj_PD: Tensor | None = None
    exponent: float = 0.5

    @property
    def spaces(self) -> list[str]:
        """Names of the spaces that are known, as above; the one that counts most comes first."""
        return ["normalized", "raw"] if self.output_proj_PD is None else SPACES

    def into_space(self, frames_ND: Tensor, space: str) -> Tensor:
        """Embeddings in one of these spaces; float32."""
        if space == "raw":
            return frames_ND.float()
        if space == "normalized":
            return frames_ND.float() / self.frame_scale_D.to(frames_ND.device)
        assert self.output_proj_PD is not None
        return F.linear(frames_ND.float(), self.output_proj_PD.to(frames_ND.device))

    @cached_property
    def map_DD(self) -> Tensor:
        """The map from embeddings x to the metric's own space, symmetric, float64.

        It is scaled so that frames have about unit RMS there, too: they would have exactly if the
        elements of x / w were independent of each other.
        """
        scale_D = self.frame_scale_D.double()
        if self.output_proj_PD is None:
            return torch.diag(1 / scale_D)
        proj_PD = self.output_proj_PD.double()
        # On the CPU: torch 2.13 has no eigendecomposition on MPS.
        power_D, directions_DD = torch.linalg.eigh((proj_PD.T @ proj_PD).cpu())
        gain_D = power_D.clamp(min=MIN_GAIN**2 * float(power_D.max())).sqrt()
        map_DD = (directions_DD * gain_D**self.exponent) @ directions_DD.T
        return map_DD * len(scale_D) ** 0.5 / torch.linalg.matrix_norm(map_DD * scale_D.cpu())
