"""The quantiser on its own: speech embeddings of Gemma 4's audio tower <-> semantic codes.

    from rvq_wrapper import load_rvq

    rvq = load_rvq(".")                              # the folder of this file
    decoded, indices, _ = rvq(frames)                # frames: [B, T, D], 25 per second
    decoded = rvq.decode(indices)                    # indices: [B, Q, T], coarsest codebook first

This file belongs to the weights beside it and needs torch and vector-quantize-pytorch only. It is
for coding and decoding; `stage1_rvq` of the project spoken_twi trains.
"""

# B utterances, T frames (25 per second), D embedding width, Q codebooks (coarsest first)

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ


class RVQWrapper(nn.Module):
    """Linear map, residual vector quantiser, linear map; computes in float32.

    Args:
        rvq_dim: width of the embeddings.
        rvq_num_quantizers: codebooks.
        rvq_codebook_size: codes per codebook.
    """

    def __init__(self, rvq_dim: int, rvq_num_quantizers: int, rvq_codebook_size: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(rvq_dim, rvq_dim)
        self.project_out = nn.Linear(rvq_dim, rvq_dim)
        self.quantizer = ResidualVQ(
            dim=rvq_dim,
            num_quantizers=rvq_num_quantizers,
            codebook_size=rvq_codebook_size,
            quantize_dropout=True,  # lets the first codebooks alone be decoded
        )

    @torch.no_grad()
    def forward(self, frames_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn embeddings, taken before Gemma's `output_proj`, into codes.

        Returns:
            the decoded embeddings `[B, T, D]`; the codes, int64 `[B, Q, T]`; and each codebook's
            mean squared error `[Q]`.

        Raises:
            RuntimeError: the module is in training mode, where coding would change the codebooks.
        """
        if self.training:
            raise RuntimeError("call .eval() first: in training mode, coding changes the codebooks")
        residual_BTD = self.project_in(frames_BTD.float())
        codes, errors = [], []
        for layer in self.quantizer.layers:
            codebook_CD = layer.codebook
            # |x - c|^2 without |x|^2, which is the same for all codes.
            norm_C = torch.linalg.vector_norm(codebook_CD, dim=1).square()
            codes.append((norm_C - 2 * residual_BTD @ codebook_CD.T).argmin(dim=-1))
            residual_BTD = residual_BTD - codebook_CD[codes[-1]]
            errors.append(residual_BTD.square().mean())
        indices_BQT = torch.stack(codes, dim=1)
        return self.decode(indices_BQT), indices_BQT, torch.stack(errors)

    @torch.no_grad()
    def decode(self, indices_BQT: Tensor) -> Tensor:
        """Turn codes, of all codebooks or of the first ones, back into embeddings `[B, T, D]`."""
        return self.project_out(self.quantizer.get_output_from_indices(indices_BQT.mT))


def load_rvq(folder: str | Path, weights: str = "rvq_best.pt") -> RVQWrapper:
    """Load `config_stage1.json` and the named weights of a folder, on the CPU."""
    config = json.loads((Path(folder) / "config_stage1.json").read_text(encoding="utf-8"))
    rvq = RVQWrapper(config["rvq_dim"], config["rvq_num_quantizers"], config["rvq_codebook_size"])
    checkpoint = torch.load(Path(folder) / weights, map_location="cpu", weights_only=True)
    rvq.load_state_dict(checkpoint["rvq"])
    return rvq.eval()
