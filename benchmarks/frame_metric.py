"""In which space codebooks should be fitted: what each loses, and whether its codes can be read.

    python -m gemma4.draw_checkpoint --parts audio --dtype float32 --out runs/tower
    python -m stage1_rvq.embed --manifest data/cv/train.jsonl --gemma runs/tower/model \
        --out runs/tower-embeddings/train
    python -m stage1_rvq.embed --manifest data/cv/test.jsonl --gemma runs/tower/model \
        --out runs/tower-embeddings/test
    python -m benchmarks.frame_metric --embeddings runs/tower-embeddings/train \
        --held-out runs/tower-embeddings/test --codebook-size 128

Prints, for each space of `stage1_rvq/frame_metric.py`, the held-out relative error in all of them,
and with a recogniser the error rates of its transcripts: the mean over seeds of k-means. Codebooks
are fitted, not trained.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from commands.command_line import parse_config, run_command
from commands.device import DeviceName, pick_device
from commands.setting_types import CodebookSize, PositiveInt
from data_manifests.error_rates import compute_error_rates
from stage1_rvq.codebook_metrics import measure_reconstruction
from stage1_rvq.config import RVQConfig
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import MIN_FRAMES_PER_CODE, SpeechRVQ
from stage1_rvq.recognizer import CTCRecognizer, load_recognizer


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Fit codebooks in each of four spaces, and measure them on held-out embeddings."""

    embeddings: Path
    """folder of stage1_rvq.embed to fit codebooks to"""
    held_out: Path
    """folder of stage1_rvq.embed to measure them on"""
    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer: adds the error rates of its transcripts"""
    codebook_size: CodebookSize = 256
    """codes per codebook"""
    num_seeds: PositiveInt = 1
    """number of times that codebooks are fitted"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""


def main(argv: list[str] | None = None) -> None:
    """Print a row for each space."""
    config = parse_config(BenchmarkConfig, argv)
    device = pick_device(config.device)
    embeddings = EmbeddingFolder(config.embeddings)
    held_out = EmbeddingFolder(config.held_out, flag="--held-out")
    recognizer = None
    if config.recognizer:
        recognizer = load_recognizer(config.recognizer, device=device)
    scale_D, proj_PD = embeddings.metric.frame_scale_D, embeddings.metric.output_proj_PD
    metrics = {"x / w": FrameMetric(scale_D)}
    if proj_PD is not None:
        metrics |= {
            f"gain^{exponent:g}": FrameMetric(scale_D, proj_PD, exponent)
            for exponent in (0.0, 0.5, 1.0)
        }
    for row, (name, metric) in enumerate(metrics.items()):
        rows = []
        for seed in range(config.num_seeds):
            rvq = fit(config.codebook_size, metric, embeddings, seed, device)
            rows.append(measure(rvq, held_out, recognizer))
        if row == 0:
            print(f"{'fitted in':<12}" + "".join(f"{title:>18}" for title in rows[0]))
        means = [sum(numbers[title] for numbers in rows) / len(rows) for title in rows[0]]
        print(f"{name:<12}" + "".join(f"{mean:>18.4f}" for mean in means), flush=True)


def fit(
    codebook_size: int,
    metric: FrameMetric,
    embeddings: EmbeddingFolder,
    seed: int,
    device: torch.device,
) -> SpeechRVQ:
    """Fit codebooks in a metric's space, as `stage1_rvq.train` does before its first step."""
    rvq = SpeechRVQ(RVQConfig(dim=embeddings.dim, codebook_size=codebook_size)).to(device)
    sample_ND = embeddings.sample(4 * MIN_FRAMES_PER_CODE * codebook_size, seed)
    rvq.init_codebooks(sample_ND.to(device), metric, seed=seed)
    return rvq.eval()


def measure(
    rvq: SpeechRVQ, held_out: EmbeddingFolder, recognizer: CTCRecognizer | None
) -> dict[str, float]:
    """Relative error in every space, and the recogniser's error rates; by their titles."""
    device = rvq.frame_scale_D.device
    frames = [held_out.read(u) for u in held_out.utterances]
    decoded = [rvq.decode(rvq.encode(frames_TD.to(device))).cpu() for frames_TD in frames]
    parts = measure_reconstruction(torch.cat(frames), torch.cat(decoded), held_out.metric)
    numbers = {f"error {space}": part.relative_error for space, part in parts.items()}
    if recognizer:
        texts = [u.text for u in held_out.utterances]
        rates = compute_error_rates(texts, recognizer.transcribe(decoded))
        numbers |= {"WER": rates.wer, "CER": rates.cer}
    return numbers


if __name__ == "__main__":
    run_command(main)
