"""Metrics for how well a quantiser uses its codebooks, and how much it loses."""

# N frames, D embedding width, K codebooks

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stage1_rvq.frame_metric import FrameMetric


@dataclass(frozen=True)
class CodebookUsage:
    """Per codebook, coarsest first, over one fixed set of frames.

    Attributes:
        used_fraction: codes that occur at least once / codebook size.
        perplexity: exp of the entropy (in nats) of the code distribution; at most the number of
            codes used.
        normalized_entropy: entropy / log(codebook size), in [0, 1].
    """

    used_fraction: list[float]
    perplexity: list[float]
    normalized_entropy: list[float]


@dataclass(frozen=True)
class Reconstruction:
    """What quantisation loses, in one of the spaces of `frame_metric.py`.

    Attributes:
        relative_error: |x - x'|^2 / |x - mean(x)|^2, summed over frames; 0 is perfect, 1 is no
            better than the mean.
        cosine: mean cosine of x and x'.
        cosine_centered: the same after subtracting the mean frame from both, since a shared mean
            alone makes raw cosines high.
        mse: mean squared difference per dimension.
    """

    relative_error: float
    cosine: float
    cosine_centered: float
    mse: float


@dataclass(frozen=True)
class ReadRates:
    """Error rates of the CTC recogniser's transcripts, as fractions, and the ends of the 95 %
    bootstrap interval of the WER."""

    wer: float
    cer: float
    wer_low: float
    wer_high: float


@dataclass(frozen=True, kw_only=True)
class QuantizerMetrics(CodebookUsage):
    """All stage-1 numbers on one held-out folder, as in the `metrics.json` of `evaluate`.

    Attributes:
        num_utterances: number of utterances measured on.
        num_frames: their frames.
        codebook_size: codes per codebook.
        enough_frames_for_usage: whether there are 20 frames per code; with fewer, the usage is a
            lower bound.
        reconstruction: by the number of coarsest codebooks that are decoded, and by the space.
        continuous: the recogniser on embeddings that were not quantised; None without a recogniser.
        quantized: the recogniser on decoded codes, by the number of codebooks.
        unit_edit_distance: by signal-to-noise ratio (see `noise_robustness.py`); None if not
            measured.
    """

    num_utterances: int
    num_frames: int
    codebook_size: int
    enough_frames_for_usage: bool
    reconstruction: dict[str, dict[str, Reconstruction]]
    continuous: ReadRates | None = None
    quantized: dict[str, ReadRates] | None = None
    unit_edit_distance: dict[str, list[float]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `metrics.json`, without what was not measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def measure_usage(codes_NK: Tensor, codebook_size: int) -> CodebookUsage:
    """Count codes: int64 `[N, K]`, with N at least 20 x codebook_size for meaningful figures."""
    used, perplexity, entropy = [], [], []
    for codes_N in codes_NK.T:
        counts = torch.bincount(codes_N, minlength=codebook_size).double()
        probabilities = counts[counts > 0] / counts.sum()
        nats = float(-(probabilities * probabilities.log()).sum())
        num_used = int((counts > 0).sum())
        assert math.exp(nats) <= num_used * (1 + 1e-9), "perplexity above the number of codes used"
        used.append(num_used / codebook_size)
        perplexity.append(math.exp(nats))
        entropy.append(nats / math.log(codebook_size))
    return CodebookUsage(used, perplexity, entropy)


@torch.no_grad()
def measure_reconstruction(
    frames_ND: Tensor, decoded_ND: Tensor, metric: FrameMetric
) -> dict[str, Reconstruction]:
    """Compare embeddings with their reconstruction, in every space that is known."""
    return {
        space: compare_frames(
            metric.into_space(frames_ND, space), metric.into_space(decoded_ND, space)
        )
        for space in metric.spaces
    }


@torch.no_grad()
def compare_frames(frames_ND: Tensor, decoded_ND: Tensor) -> Reconstruction:
    """Compare frames with their reconstruction, in the space that both are in."""
    x_ND, y_ND = frames_ND.cpu().double(), decoded_ND.cpu().double()  # no float64 on MPS
    mean_D = x_ND.mean(dim=0)
    return Reconstruction(
        relative_error=float((x_ND - y_ND).square().sum() / (x_ND - mean_D).square().sum()),
        cosine=float(F.cosine_similarity(x_ND, y_ND, dim=-1).mean()),
        cosine_centered=float(F.cosine_similarity(x_ND - mean_D, y_ND - mean_D, dim=-1).mean()),
        mse=float((x_ND - y_ND).square().mean()),
    )


def codebook_prefixes(num_codebooks: int) -> list[int]:
    """1, 2, 4, 8, ... and all: the number of coarsest codebooks in each row of the tables."""
    powers = [2**i for i in range(num_codebooks.bit_length()) if 2**i < num_codebooks]
    return [*powers, num_codebooks]
