"""Tokenizing speech at true size: ours against the published model card's snippet, in one run.

    python -m benchmarks.tokenize --seconds 60

The tower has the real shape (304.8 M parameters) and random weights, which changes no timing. The
snippet is the card's way: one clip at a time, float32, a forward hook. Both start from files and
end with codes in memory; the machine's matrix-multiply ceiling is measured beside them.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Gemma4AudioConfig, Gemma4AudioFeatureExtractor, Gemma4AudioModel

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, read_audio, write_wav
from data_manifests.config import parse_config, run_command
from data_manifests.manifest import Utterance
from stage1_rvq.corpus_encoder import encode_utterances
from stage1_rvq.device import DtypeName, pick_device, pick_dtype
from stage1_rvq.gemma import AudioEncoder
from stage1_rvq.model import RVQConfig, SpeechRVQ

MATMUL_SIZE = 2048
MATMUL_REPEATS = 10


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time tokenizing at true size beside the published snippet."""

    seconds: float = 60.0
    """speech to tokenize, made of noise"""
    clip_s: float = 10.0
    """length of each clip"""
    batch_size: int = 8
    """clips per forward pass, ours"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: DtypeName = "bfloat16"
    """precision of our tower; the snippet runs in float32"""


def main(argv: list[str] | None = None) -> None:
    """Run the comparison; prints a table."""
    config = parse_config(BenchmarkConfig, argv)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    torch.manual_seed(0)
    tower = Gemma4AudioModel._from_config(Gemma4AudioConfig()).eval().to(device)
    extractor = Gemma4AudioFeatureExtractor()
    rvq = SpeechRVQ(RVQConfig()).eval().to(device)
    with tempfile.TemporaryDirectory() as folder:
        clips = _write_clips(Path(folder), config)
        speech_s = sum(clip.duration_s for clip in clips)
        flops = {d: _matmul_flops(device, d) for d in dict.fromkeys((torch.float32, dtype))}
        snippet_s = _time(lambda: _snippet(clips, tower, extractor, rvq, device))
        encoder = AudioEncoder(tower.to(dtype), extractor)
        ours_s = _time(lambda: _ours(clips, encoder, rvq, device, config.batch_size))
    print(f"{speech_s:.0f} s of speech, {device}, {torch.get_num_threads()} threads")
    for name, kind, seconds in (
        ("card's snippet", torch.float32, snippet_s),
        ("tokenize_corpus", dtype, ours_s),
    ):
        shown = str(kind).removeprefix("torch.")
        print(f"{name:<16}{shown:<10}{speech_s / seconds:>8.1f} x real time")
    print(f"ours / snippet: {snippet_s / ours_s:.2f} x")
    for kind, value in flops.items():
        print(f"matrix multiply, {str(kind).removeprefix('torch.')}: {value / 1e9:.0f} GFLOP/s")


def _write_clips(folder: Path, config: BenchmarkConfig) -> list[Utterance]:
    generator = np.random.default_rng(0)
    clips = []
    for i in range(max(1, round(config.seconds / config.clip_s))):
        path = folder / f"{i}.wav"
        samples = 0.1 * generator.standard_normal(int(config.clip_s * GEMMA_SAMPLE_RATE_HZ))
        write_wav(path, samples.astype(np.float32), GEMMA_SAMPLE_RATE_HZ)
        clips.append(
            Utterance(
                id=str(i),
                audio=str(path),
                text="x",
                duration_s=config.clip_s,
                speaker="noise",
                dialect="unknown",
                corpus="benchmark",
                split="test",
                license="none",
            )
        )
    return clips


@torch.no_grad()
def _snippet(
    clips: list[Utterance],
    tower: Gemma4AudioModel,
    extractor: Gemma4AudioFeatureExtractor,
    rvq: SpeechRVQ,
    device: torch.device,
) -> None:
    """One clip at a time, as the published card shows."""
    caught: list[torch.Tensor] = []
    hook = tower.output_proj.register_forward_hook(lambda _, args, out: caught.append(args[0]))
    for clip in clips:
        samples = read_audio(Path(clip.audio), GEMMA_SAMPLE_RATE_HZ)
        features = extractor([samples], sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt").to(
            device
        )
        tower(features["input_features"], features["input_features_mask"])
        rvq.encode(caught.pop().float())
    hook.remove()


def _ours(
    clips: list[Utterance],
    encoder: AudioEncoder,
    rvq: SpeechRVQ,
    device: torch.device,
    batch_size: int,
) -> None:
    for _, frames in encode_utterances(clips, encoder, batch_size=batch_size, num_workers=2):
        assert isinstance(frames, torch.Tensor)
        rvq.encode(frames.to(device))


def _matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    a = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device, dtype=dtype)
    _ = a @ a

    def multiply() -> None:
        for _ in range(MATMUL_REPEATS):
            _ = a @ a

    return MATMUL_REPEATS * 2 * MATMUL_SIZE**3 / _time(multiply)


def _time(function: Callable[[], None]) -> float:
    started = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    run_command(main)
