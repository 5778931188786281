"""Fit residual codebooks to a sample of frames, and find a frame's codes.

Each codebook is fitted to the residuals of the ones before it. Speech embeddings vary in a thousand
directions, few of which matter, so plain k-means spends codes on single outlier frames, and its
centroids are noisy because they have few members. Two remedies:

- k-means begins in the few main directions and then adds more (progressive dimensions, as in
  faiss's `ResidualQuantizer`; Douze et al., "The Faiss library", arXiv:2401.08281).
- a centroid is not the mean of its cluster but its posterior mean: in a direction where clusters
  differ by no more than chance, centroids do not differ (empirical Bayes; Efron and Morris,
  "Stein's estimation rule and its competitors", JASA 1973).
"""

# N frames, D embedding width, K codebooks (coarsest first), C codes of a codebook,
# P main directions in use, S candidates a search keeps

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gemma4.linear import linear

FIRST_DIRECTIONS = 4  # each round uses 4 times as many, until all are used
ITERATIONS_PER_ROUND = 20
CHUNK_ROWS = 1024  # rows of distances to all codes of a codebook computed at once


@torch.no_grad()
def fit_codebooks(
    frames_ND: Tensor,
    num_codebooks: int,
    codebook_size: int,
    generator: torch.Generator,
    *,
    beam_size: int = 1,
) -> list[Tensor]:
    """Fit residual codebooks, coarsest first.

    Args:
        frames_ND: float32, sampled from the whole corpus; N is more than codebook_size.
        num_codebooks: K.
        codebook_size: C.
        generator: generator on the CPU, so that every device starts from the same frames.
        beam_size: candidates whose residuals the next codebook is fitted to; above 1 lowers the
            error of a beam search, but also the share of codes that a greedy search uses.

    Returns:
        K codebooks, each float32 `[C, D]`.
    """
    codebooks: list[Tensor] = []
    residual_ND = frames_ND
    for _ in range(num_codebooks):
        codebooks.append(_fit_codebook(residual_ND, codebook_size, generator))
        residual_ND = _search(frames_ND, codebooks, beam_size)[1].flatten(0, 1)
    return codebooks


@torch.no_grad()
def search_codes(frames_ND: Tensor, codebooks: Sequence[Tensor], *, beam_size: int = 1) -> Tensor:
    """Find the codes whose sum is nearest to each frame, codebook by codebook.

    Faster than the library's own search (see `benchmarks.rvq`), which builds one-hot matrices. The
    library's beam search ranks candidates by the sum of the errors after each codebook, this one by
    the remaining error.

    Args:
        frames_ND: float32.
        codebooks: coarsest first, each float32 `[C, D]`.
        beam_size: candidates kept after each codebook; 1 takes the nearest code each time.

    Returns:
        codes_NK: int64.
    """
    return _search(frames_ND, codebooks, beam_size)[0][:, 0]


def _search(
    frames_ND: Tensor, codebooks: Sequence[Tensor], beam_size: int
) -> tuple[Tensor, Tensor]:
    """Codes `[N, S, K]` and residuals `[N, S, D]` of the final candidates, best first."""
    norms = [torch.linalg.vector_norm(c_CD, dim=1).square() for c_CD in codebooks]
    search = _beam if beam_size > 1 else _nearest
    chunks = frames_ND.split(max(1, CHUNK_ROWS // beam_size))
    codes, residuals = zip(*(search(x, codebooks, norms, beam_size) for x in chunks), strict=True)
    return torch.cat(codes), torch.cat(residuals)


def _nearest(
    frames_ND: Tensor, codebooks: Sequence[Tensor], norms: Sequence[Tensor], _: int
) -> tuple[Tensor, Tensor]:
    codes = []
    for codebook_CD, norm_C in zip(codebooks, norms, strict=True):
        # |x - c|^2 without |x|^2, which is the same for all codes.
        distance_NC = norm_C - 2 * linear(frames_ND, codebook_CD)
        codes.append(distance_NC.argmin(dim=1))
        frames_ND = frames_ND - codebook_CD[codes[-1]]
    return torch.stack(codes, dim=1)[:, None], frames_ND[:, None]


def _beam(
    frames_ND: Tensor, codebooks: Sequence[Tensor], norms: Sequence[Tensor], beam_size: int
) -> tuple[Tensor, Tensor]:
    residual_NSD = frames_ND[:, None]
    error_NS = frames_ND.square().sum(dim=1, keepdim=True)
    codes_NSk = torch.empty(*error_NS.shape, 0, dtype=torch.long, device=frames_ND.device)
    for codebook_CD, norm_C in zip(codebooks, norms, strict=True):
        change_RC = torch.addmm(norm_C, residual_NSD.flatten(0, 1), codebook_CD.T, alpha=-2)
        error_NSC = error_NS[:, :, None] + change_RC.view(*error_NS.shape, len(codebook_CD))
        num_kept = min(beam_size, error_NSC.shape[1] * len(codebook_CD))
        error_NS, picks_NS = error_NSC.flatten(1).topk(num_kept, dim=1, largest=False)
        parent_NS1 = picks_NS[:, :, None] // len(codebook_CD)
        code_NS = picks_NS % len(codebook_CD)
        parent_NSD = parent_NS1.expand(-1, -1, frames_ND.shape[1])
        residual_NSD = residual_NSD.gather(1, parent_NSD) - codebook_CD[code_NS]
        parent_codes_NSk = codes_NSk.gather(1, parent_NS1.expand(-1, -1, codes_NSk.shape[2]))
        codes_NSk = torch.cat([parent_codes_NSk, code_NS[:, :, None]], dim=2)
    return codes_NSk, residual_NSD


def _fit_codebook(frames_ND: Tensor, codebook_size: int, generator: torch.Generator) -> Tensor:
    mean_D = frames_ND.mean(dim=0)
    centred_ND = frames_ND - mean_D
    covariance_DD = centred_ND.T @ centred_ND / len(frames_ND)
    # On the CPU: torch 2.13 has no eigendecomposition on MPS.
    directions_DD = torch.linalg.eigh(covariance_DD.cpu()).eigenvectors.flip(-1)
    rotated_ND = centred_ND @ directions_DD.to(frames_ND.device)
    picks_C = torch.randperm(len(frames_ND), generator=generator)[:codebook_size]
    num_directions = min(FIRST_DIRECTIONS, rotated_ND.shape[1])
    codebook_CP = rotated_ND[picks_C.to(frames_ND.device), :num_directions]
    while True:
        rotated_NP = rotated_ND[:, :num_directions].contiguous()
        for _ in range(ITERATIONS_PER_ROUND):
            codebook_CP = _move_centroids(rotated_NP, codebook_CP, generator)
        if num_directions == rotated_ND.shape[1]:
            return codebook_CP @ directions_DD.T.to(frames_ND.device) + mean_D
        before, num_directions = num_directions, min(4 * num_directions, rotated_ND.shape[1])
        codebook_CP = F.pad(codebook_CP, (0, num_directions - before))


def _move_centroids(frames_NP: Tensor, codebook_CP: Tensor, generator: torch.Generator) -> Tensor:
    """One iteration of k-means: from the nearest centroids to the posterior means of the
    clusters."""
    num_codes = len(codebook_CP)
    codes_N = search_codes(frames_NP, [codebook_CP])[:, 0]
    count_C = torch.bincount(codes_N, minlength=num_codes).to(frames_NP.dtype)
    sum_CP = torch.zeros_like(codebook_CP).index_add_(0, codes_N, frames_NP)
    total_P = frames_NP.square().sum(dim=0)
    explained_P = (sum_CP.square() / count_C.clamp(min=1)[:, None]).sum(dim=0)
    within_P = (total_P - explained_P) / (len(frames_NP) - (count_C > 0).sum())
    between_P = (total_P / len(frames_NP) - within_P).clamp(min=0)
    # The clamp avoids 0 / 0 in a direction without variance.
    weight_CP = count_C[:, None] * between_P + within_P.clamp(min=1e-12)
    codebook_CP = sum_CP * between_P / weight_CP
    # An empty cluster takes over part of a large one: its centroid becomes a shifted copy.
    empty_E = (count_C == 0).nonzero()[:, 0]
    aside_EP = torch.randn(len(empty_E), len(total_P), generator=generator).to(frames_NP.device)
    largest_E = count_C.topk(len(empty_E)).indices
    codebook_CP[empty_E] = codebook_CP[largest_E] + 0.01 * within_P.clamp(min=0).sqrt() * aside_EP
    return codebook_CP
