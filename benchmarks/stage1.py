"""All of stage 1 at full size: the memory and time that each of its commands takes.

    python -m benchmarks.stage1 --data data/cv

Every command runs as a user would run it, in its own process, on all recordings of a corpus. The
audio encoder has Gemma 4's shape (304.8 M parameters) and random weights, and is loaded from a
folder like a downloaded one; the quantiser has 8 codebooks of 2048 codes, or of fewer if there is
too little speech. With random weights, codes and error rates are meaningless; memory and time are
realistic, except that the two trainings take only a few steps.
"""

import importlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.peak_memory import measure_peak, show_peak
from benchmarks.random_tower import save_random_encoder
from commands.command_line import parse_config, run_command
from commands.device import pick_device
from commands.errors import InputError
from commands.setting_types import ModelName, PositiveInt
from data_manifests.manifest import SPLITS, read_manifest
from gemma4.gemma import FRAME_RATE_HZ
from stage1_rvq.model import MIN_FRAMES_PER_CODE

MAX_CODEBOOK_SIZE = 2048


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Run all of stage 1 at full size; print the memory and time of each command."""

    data: Path
    """folder of data_manifests.build: train.jsonl, dev.jsonl, test.jsonl"""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """precisions of the tower to measure"""
    gemma: ModelName | None = None
    """hub name or folder of an audio encoder; default: a full-size one with random weights"""
    steps: PositiveInt = 20
    """training steps of the recogniser and of the quantiser"""
    batch_size: PositiveInt = 8
    """utterances per forward pass of the tower"""
    device: str = "cpu"
    """auto, cpu, cuda, cuda:1, mps, xpu"""


def main(argv: list[str] | None = None) -> None:
    """Run every command; prints a row for each."""
    config = parse_config(BenchmarkConfig, argv)
    device = pick_device(config.device)
    durations = {
        split: [row.duration_s for row in read_manifest(config.data / f"{split}.jsonl")]
        for split in SPLITS
    }
    hours = sum(map(sum, durations.values())) / 3600
    num_frames = int(sum(durations["train"]) * FRAME_RATE_HZ)
    codebook_size = MAX_CODEBOOK_SIZE
    while codebook_size * MIN_FRAMES_PER_CODE > num_frames:
        codebook_size //= 2
    if codebook_size < 2:
        raise InputError(f"--data {config.data}: too little speech in train.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        encoder = config.gemma or f"{folder}/encoder"
        if not config.gemma:
            save_random_encoder(Path(encoder))
        print(
            f"{sum(map(len, durations.values()))} recordings, {60 * hours:.1f} min; "
            f"{config.gemma or 'random tower of the true shape'}; 8 x {codebook_size} codes; "
            f"{device}, {torch.get_num_threads()} threads\n"
            "peak: of the command's whole process; on CUDA, of tensors"
        )
        for dtype in config.dtypes:
            print(f"{dtype:<44}{'seconds':>9}{'peak':>12}")
            whole_s = 0.0
            peaks: list[int] = []
            out = Path(folder) / dtype
            for module, words in _commands(config, encoder, out, dtype, codebook_size):
                started = time.perf_counter()
                peak = measure_peak(_run_command, module, words, device=device, with_libraries=True)
                seconds = time.perf_counter() - started
                whole_s, peaks = whole_s + seconds, [*peaks, peak or 0]
                name = f"{module} {words[-1].removeprefix(f'{out}/')}"
                print(f"  {name:<42}{seconds:>9.0f}{show_peak(peak):>12}", flush=True)
            print(f"  {'all of it':<42}{whole_s:>9.0f}{show_peak(max(peaks) or None):>12}")


def _commands(
    config: BenchmarkConfig, encoder: str, out: Path, dtype: str, codebook_size: int
) -> Iterator[tuple[str, list[str]]]:
    """The commands of the stage in order: module, arguments."""

    def command(name: str, result: str, *words: object) -> tuple[str, list[str]]:
        common = ("--device", config.device, "--out", out / result)
        return f"stage1_rvq.{name}", [str(word) for word in (*words, *common)]

    tower = ("--gemma", encoder, "--dtype", dtype, "--batch-size", config.batch_size)
    for split in SPLITS:
        manifest = config.data / f"{split}.jsonl"
        yield command("embed", f"embeddings/{split}", "--manifest", manifest, *tower)
    embeddings = (
        *("--embeddings", out / "embeddings/train"),
        *("--dev-embeddings", out / "embeddings/dev"),
    )
    steps = ("--steps", config.steps, "--save-every", config.steps)
    yield command("train_recognizer", "recognizer", *embeddings, *steps)
    recognizer, rvq = ("--recognizer", out / "recognizer"), ("--rvq", out / "rvq")
    size = ("--codebook-size", codebook_size)
    yield command("train", "rvq", *embeddings, *recognizer, *size, *steps)
    test = ("--embeddings", out / "embeddings/test")
    yield command("evaluate", "rvq-test", *rvq, *recognizer, *test)
    for split in SPLITS:
        manifest = config.data / f"{split}.jsonl"
        yield command("tokenize_corpus", f"codes/{split}", "--manifest", manifest, *tower, *rvq)


def _run_command(module: str, words: list[str]) -> None:
    outer, sys.argv = sys.argv, [module, *words]  # for its provenance
    try:
        with redirect_stdout(io.StringIO()):
            importlib.import_module(module).main(words)
    finally:
        sys.argv = outer


if __name__ == "__main__":
    run_command(main)
