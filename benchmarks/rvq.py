"""The quantiser against what a user would use instead: encoding speed and codebook quality.

    python -m benchmarks.rvq                                  speed, at 1024-d, 8 x 2048
    python -m benchmarks.rvq --quality                        error and codebook use, 8 x 256
    python -m benchmarks.rvq --quality --codebook-size 2048   the same at full size
    python -m benchmarks.rvq --quality --embeddings data/cv-embeddings/train --codebook-size 128

Speed is compared with `ResidualVQ` of vector-quantize-pytorch in evaluation mode, with the same
codebooks. Quality is compared with the same library's defaults and with `faiss.ResidualQuantizer`
(`pip install -e '.[bench]'`), on frames that none of them was trained on.
"""

# N frames, D embedding width, K codebooks (coarsest first), C codes of a codebook

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.codebook_quality import (
    BEAM_SIZE,
    NUM_CODEBOOKS,
    Fit,
    fit_ours,
    print_quality,
    train_faiss,
    train_library,
)
from benchmarks.synthetic_frames import DIM, FRAMES_PER_UTTERANCE, make_frames
from benchmarks.timing import take_turns
from commands.command_line import parse_config, run_command
from commands.device import pick_device
from commands.setting_types import CodebookSize, PositiveInt
from stage1_rvq.codebook_metrics import compare_frames
from stage1_rvq.codebooks import search_codes
from stage1_rvq.config import RVQConfig
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.model import SpeechRVQ

SPEED_CODEBOOK_SIZE = 2048
SPEED_ROUNDS = 5
FRAMES_PER_CODE = 20  # most training frames per code
BATCH_FRAMES = 2048  # per training step of the library
SPEED_FRAMES = (250, 2000, 8192)  # one clip of 10 s, a batch of 8 clips, a training batch
LIBRARY_BEAM_FRAMES = 250  # its beam search holds a one-hot row for every candidate
# One utterance, and so one voice, per code. Few voices share a code, so that with fewer voices than
# codes, some codes would go unused only because no voice has them.
HELD_OUT_PER_CODE = FRAMES_PER_UTTERANCE


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare the quantiser with those of vector-quantize-pytorch and faiss."""

    quality: bool = False
    """compare held-out error and codebook use instead of speed"""
    embeddings: Path | None = None
    """with --quality: folder of stage1_rvq.embed, of which every fifth utterance is held out;
    default: synthetic frames"""
    codebook_size: CodebookSize = 256
    """with --quality: codes per codebook, a power of two"""
    num_sets: PositiveInt = 5
    """with --quality: number of sets of synthetic frames to fit and measure on, one seed each"""
    steps: PositiveInt = 20
    """with --quality: training steps of the library; ours is only the initial fit, untrained"""
    device: str = "cpu"
    """auto, cpu, cuda, cuda:1, mps; faiss always runs on the CPU"""

    def __post_init__(self) -> None:
        if self.codebook_size & (self.codebook_size - 1):
            raise ValueError(f"--codebook-size must be a power of two, got {self.codebook_size}")


def main(argv: list[str] | None = None) -> None:
    """Run one of the two comparisons; prints a table."""
    config = parse_config(BenchmarkConfig, argv)
    device = pick_device(config.device)
    print(f"{device}, {torch.get_num_threads()} threads")
    if config.quality:
        compare_quality(config, device)
    else:
        compare_speed(device)


@torch.no_grad()
def compare_speed(device: torch.device) -> None:
    """Encode the same frames with the same codebooks, ours and the library's."""
    frames_ND = make_frames(max(SPEED_FRAMES), seed=1).to(device)
    rvq = SpeechRVQ(RVQConfig(DIM, NUM_CODEBOOKS, SPEED_CODEBOOK_SIZE)).eval().to(device)
    codebooks = [layer._codebook.embed[0] for layer in rvq.quantizer.layers]
    residual_ND = make_frames(SPEED_CODEBOOK_SIZE * 2, seed=2).to(device)
    for codebook_CD in codebooks:  # frames as codebooks: fitting would not affect timings
        codebook_CD.copy_(residual_ND[torch.randperm(len(residual_ND))[:SPEED_CODEBOOK_SIZE]])
        residual_ND = residual_ND - codebook_CD[search_codes(residual_ND, [codebook_CD])[:, 0]]

    def library(frames_ND: Tensor, beam_size: int | None = None) -> Tensor:
        codes_1NK: Tensor = rvq.quantizer(rvq.project_in(frames_ND)[None], beam_size=beam_size)[1]
        return codes_1NK[0]

    print(f"encoding, {DIM}-d, {NUM_CODEBOOKS} x {SPEED_CODEBOOK_SIZE}, frames a second")
    print(f"{'frames':>8}{'beam':>6}{'library':>12}{'ours':>12}{'ratio':>8}")
    for num_frames in SPEED_FRAMES:
        some_ND = frames_ND[:num_frames]
        _print_speed(num_frames, 1, partial(library, some_ND), partial(rvq.encode, some_ND), device)
    some_ND = frames_ND[:LIBRARY_BEAM_FRAMES]
    theirs = partial(library, some_ND, BEAM_SIZE)
    ours = partial(rvq.encode, some_ND, beam_size=BEAM_SIZE)
    _print_speed(LIBRARY_BEAM_FRAMES, BEAM_SIZE, theirs, ours, device)
    ours_NK, theirs_NK = rvq.encode(frames_ND), library(frames_ND)
    differs_N = (ours_NK != theirs_NK).any(dim=1)
    print(f"beam 1: frames with identical codes: {1 - differs_N.double().mean():.4%}")
    gap = largest_gap(frames_ND[differs_N], ours_NK[differs_N], theirs_NK[differs_N], codebooks)
    print(
        "at the first code that differs, squared distances differ by at most "
        f"{gap:.1e} of |residual|^2 + |code|^2 (float64; a tie: below 1e-6)"
    )
    for name, encode in (("library", theirs), ("ours", ours)):
        error = compare_frames(some_ND, rvq.decode(encode()))
        print(f"beam {BEAM_SIZE}: relative error of {name}: {error.relative_error:.4f}")


def largest_gap(
    frames_ND: Tensor, ours_NK: Tensor, theirs_NK: Tensor, codebooks: Sequence[Tensor]
) -> float:
    """How far from a tie two encodings are where they first differ, relative to the squares that
    rounding acts on; 0 if there are no frames."""
    largest = 0.0
    for x_D, ours_K, theirs_K in zip(frames_ND.double(), ours_NK, theirs_NK, strict=True):
        first = int((ours_K != theirs_K).nonzero()[0])
        for k in range(first):
            x_D = x_D - codebooks[k][ours_K[k]]
        a_D, b_D = (codebooks[first][codes[first]].double() for codes in (ours_K, theirs_K))
        gap = ((x_D - a_D).square().sum() - (x_D - b_D).square().sum()).abs()
        largest = max(largest, float(gap / (x_D.square().sum() + a_D.square().sum())))
    return largest


def compare_quality(config: BenchmarkConfig, device: torch.device) -> None:
    """Train all on the same frames, and measure all on the same held-out frames, on several
    sets in turn."""
    sets = [tuple(x.to(device) for x in pair) for pair in _split_frames(config)]
    size = config.codebook_size
    print(
        f"{len(sets)} sets of {len(sets[0][0]):,} training and {len(sets[0][1]):,} held-out "
        f"frames, {NUM_CODEBOOKS} x {size}\n"
        f"library: {config.steps} steps of {BATCH_FRAMES:,} frames"
    )
    ways: dict[str, Fit] = {
        "ours, fitted": partial(fit_ours, size, 1),
        "ours, fitted for beam search": partial(fit_ours, size, 2),
    }
    ways["library's defaults, trained"] = partial(train_library, size, config.steps, BATCH_FRAMES)
    for beam in (1, BEAM_SIZE):
        ways[f"faiss, trained at beam {beam}"] = partial(train_faiss, size, beam)
    print_quality(ways, sets)


def _split_frames(config: BenchmarkConfig) -> list[tuple[Tensor, Tensor]]:
    """Pairs of training and held-out frames; a single pair if they come from a folder."""
    wanted = FRAMES_PER_CODE * config.codebook_size
    if config.embeddings is None:
        num_held_out = HELD_OUT_PER_CODE * config.codebook_size
        return [
            (make_frames(wanted, seed=seed), make_frames(num_held_out, seed=seed + 2))
            for seed in range(1, 4 * config.num_sets, 4)
        ]
    folder = EmbeddingFolder(config.embeddings)
    parts = [
        torch.cat([folder.read(u) for i, u in enumerate(folder.utterances) if (i % 5 == 0) == held])
        for held in (False, True)
    ]
    shuffled = torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(0))
    train_ND = parts[0][shuffled[:wanted]] / folder.metric.frame_scale_D
    return [(train_ND, parts[1] / folder.metric.frame_scale_D)]


def _print_speed(
    num_frames: int,
    beam_size: int,
    library: Callable[[], Tensor],
    ours: Callable[[], Tensor],
    device: torch.device,
) -> None:
    """Frames a second in the fastest of several turns, since other load slows some of them."""
    ways = {"library": library, "ours": ours}
    seconds = take_turns(ways, SPEED_ROUNDS, device, f"{num_frames} frames", statistic=min)
    library_s, ours_s = seconds["library"], seconds["ours"]
    print(
        f"{num_frames:>8,}{beam_size:>6}{num_frames / library_s:>12,.0f}"
        f"{num_frames / ours_s:>12,.0f}{library_s / ours_s:>7.2f}x"
    )


if __name__ == "__main__":
    run_command(main)
