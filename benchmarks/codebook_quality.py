"""How well codebooks quantise frames that they were not fitted to: ours, the library's, faiss's."""

# N frames, D embedding width, K codebooks (coarsest first), C codes of a codebook

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from commands.device import seed_step
from commands.errors import InputError
from stage1_rvq.codebook_metrics import compare_frames, measure_usage
from stage1_rvq.codebooks import search_codes
from stage1_rvq.config import RVQConfig
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ

Fit: TypeAlias = Callable[[Tensor], Sequence[Tensor]]  # training frames -> codebooks

NUM_CODEBOOKS = 8
BEAM_SIZE = 5


@dataclass(frozen=True)
class Quality:
    """Quality of one set of codebooks on one set of held-out frames.

    Attributes:
        errors: |x - x'|^2 / |x - mean|^2, at beam 1 and at beam 5.
        used: codes that occur / codes, at beam 1, for the codebook where it is lowest.
        entropy: entropy / log(codes), likewise.
        fewest: training frames of the code that has the fewest, over all codebooks, at beam 1.
        seconds: time to fit.
    """

    errors: tuple[float, float]
    used: float
    entropy: float
    fewest: int
    seconds: float


def print_quality(ways: Mapping[str, Fit], sets: Sequence[tuple[Tensor, ...]]) -> None:
    """Fit in several ways, on each of several pairs of training and held-out frames, and print a
    row for each way."""
    print(
        "error: |x - x'|^2 / |x - mean|^2 over held-out frames, at beam 1 and 5\n"
        "used, entropy: codes that occur / codes, entropy / log(codes), of held-out frames at "
        "beam 1, of the codebook where it is lowest\n"
        "fewest: training frames of the code that has fewest, over all codebooks\n"
        "means over the sets; in brackets the worst set"
    )
    print(
        f"{'':<30}{'beam 1':>16}{f'beam {BEAM_SIZE}':>16}{'used':>16}{'entropy':>16}{'fewest':>12}"
        f"{'seconds':>8}"
    )
    for name, fit in ways.items():
        results = [measure_quality(fit, *pair) for pair in sets]
        errors = [
            _mean_and_worst([result.errors[i] for result in results], max, ".4f") for i in (0, 1)
        ]
        used = _mean_and_worst([result.used for result in results], min, ".1%")
        entropy = _mean_and_worst([result.entropy for result in results], min, ".3f")
        fewest = _mean_and_worst([result.fewest for result in results], min, ".0f")
        seconds = sum(result.seconds for result in results) / len(results)
        print(
            f"{name:<30}{errors[0]:>16}{errors[1]:>16}{used:>16}{entropy:>16}{fewest:>12}"
            f"{seconds:>8.0f}",
            flush=True,
        )


def measure_quality(fit: Fit, train_ND: Tensor, held_out_ND: Tensor) -> Quality:
    """Fit codebooks to some frames and measure them on others."""
    started = time.perf_counter()
    codebooks = [codebook_CD.to(train_ND.device) for codebook_CD in fit(train_ND)]
    seconds = time.perf_counter() - started
    errors = []
    for beam_size in (BEAM_SIZE, 1):
        codes_NK = search_codes(held_out_ND, codebooks, beam_size=beam_size)
        decoded_ND = torch.zeros_like(held_out_ND)
        for codebook_CD, codes_N in zip(codebooks, codes_NK.T, strict=True):
            decoded_ND += codebook_CD[codes_N]
        errors.append(compare_frames(held_out_ND, decoded_ND).relative_error)
    size = len(codebooks[0])
    usage = measure_usage(codes_NK.cpu(), size)
    counts = [codes_N.bincount(minlength=size) for codes_N in search_codes(train_ND, codebooks).T]
    return Quality(
        errors=(errors[1], errors[0]), used=min(usage.used_fraction),
        entropy=min(usage.normalized_entropy), fewest=int(torch.stack(counts).min()),
        seconds=seconds,
    )  # fmt: skip


def _mean_and_worst(
    values: Sequence[float], worst: Callable[[Sequence[float]], float], form: str
) -> str:
    mean = sum(values) / len(values)
    return f"{mean:{form}}" + (f" ({worst(values):{form}})" if len(values) > 1 else "")


def fit_ours(codebook_size: int, beam_size: int, train_ND: Tensor) -> list[Tensor]:
    """The initial fit of our quantiser, without training."""
    rvq = SpeechRVQ(RVQConfig(train_ND.shape[1], NUM_CODEBOOKS, codebook_size)).to(train_ND.device)
    rvq.init_codebooks(train_ND, FrameMetric(torch.ones(train_ND.shape[1])), beam_size=beam_size)
    return [layer._codebook.embed[0] for layer in rvq.quantizer.layers]


def train_library(
    codebook_size: int, steps: int, batch_frames: int, train_ND: Tensor
) -> list[Tensor]:
    """vector-quantize-pytorch with its defaults."""
    seed_step(0, 0)
    rvq = ResidualVQ(
        dim=train_ND.shape[1], num_quantizers=NUM_CODEBOOKS, codebook_size=codebook_size
    ).to(train_ND.device)
    for _ in range(steps):
        rvq(train_ND[torch.randperm(len(train_ND))[:batch_frames]][None])
    return [layer._codebook.embed[0] for layer in rvq.layers]


def train_faiss(codebook_size: int, beam_size: int, train_ND: Tensor) -> list[Tensor]:
    """faiss; InputError if it is not installed, or there are too few frames for it."""
    try:
        import faiss
    except ImportError:
        raise InputError("--quality needs faiss: pip install -e '.[bench]'") from None
    width = train_ND.shape[1]
    if len(train_ND) < width:
        raise InputError(f"faiss needs {width} training frames or more, there are {len(train_ND)}")
    faiss.omp_set_num_threads(torch.get_num_threads())
    quantizer = faiss.ResidualQuantizer(width, NUM_CODEBOOKS, codebook_size.bit_length() - 1)
    quantizer.max_beam_size = beam_size
    quantizer.train(train_ND.cpu().numpy())
    flat = torch.from_numpy(faiss.vector_to_array(quantizer.codebooks))
    return list(flat.view(NUM_CODEBOOKS, codebook_size, width))
