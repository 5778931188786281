"""Tokenizing speech at full size: ours against the published model card's snippet, in one run.

    python -m benchmarks.tokenize --manifest data/cv/train.jsonl

The tower has the real shape (304.8 M parameters) and random weights, which do not affect timings.
The snippet takes one clip at a time, with a forward hook, and ends with codes in memory; ours is
what `tokenize_corpus` runs (on a CPU with `--fast-cpu`), from the same files to Parquet. They take
turns, so that other load on the machine affects all alike, and the best turn of each is reported.
Nothing is compiled: the first clip is as fast as the last. The machine's matrix-multiply ceiling is
also measured, and the memory that `tokenize_corpus` takes without `--fast-cpu`, in its own process.
At last each part is measured by itself: decoding, log-mel features, tower, quantiser and writing;
and the tower on all of the clips as one recording that arrives piece by piece.
"""

# N frames, D embedding width, K codebooks (coarsest first), C codes of a codebook

import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, takewhile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import Gemma4AudioFeatureExtractor, Gemma4AudioModel

from benchmarks.peak_memory import measure_peak, show_peak
from benchmarks.random_tower import random_tower
from benchmarks.timing import MATMUL_SIZE, fastest, measure_seconds
from benchmarks.tokenizing_parts import format_parts, measure_parts, time_stream
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, pick_device
from commands.setting_types import NumWorkers, PositiveFloat, PositiveInt, StorePath
from commands.shard import Shard
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, read_audio, write_wav
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio
from gemma4.gemma import FRAME_RATE_HZ, AudioEncoder
from gemma4.linear import linear
from stage1_rvq.codes import CODES_NAME, read_codes
from stage1_rvq.config import RVQConfig
from stage1_rvq.corpus_encoder import utterance_shards
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.utterance_codes import tokenize_shard

DTYPES = (torch.float32, torch.bfloat16)
CODEBOOK_CLIPS = 16
CLIP_S = 10.0  # of noise
NUM_TURNS = 2  # of each way
STREAM_STEPS_S = (0.48, 4.0, 12.0)  # the first as hands free takes them


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time tokenizing at full size against the published snippet."""

    manifest: StorePath | None = None
    """manifest of real recordings; default: clips of noise"""
    seconds: PositiveFloat = 120.0
    """seconds of speech to tokenize, from the first utterances of the manifest"""
    batch_size: PositiveInt = 8
    """clips per forward pass in ours"""
    num_workers: NumWorkers = 2
    """threads that decode audio in advance in ours"""
    memory: bool = True
    """also measure peak memory (on Linux, or on CUDA)"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""


def main(argv: list[str] | None = None) -> None:
    """Run the comparison; prints a table."""
    config = parse_config(BenchmarkConfig, argv)
    device = pick_device(config.device)
    extractor = Gemma4AudioFeatureExtractor()
    tower = random_tower(device)
    towers = {torch.float32: tower, torch.bfloat16: deepcopy(tower).to(torch.bfloat16)}
    encoders = {
        dtype: AudioEncoder(towers[dtype], extractor, fast_cpu=device.type == "cpu")
        for dtype in DTYPES
    }
    ceilings = {dtype: _matmul_flops(linear, device, dtype) for dtype in DTYPES}
    with tempfile.TemporaryDirectory() as folder:
        clips = _choose_clips(config) if config.manifest else _write_noise(Path(folder), config)
        speech_s = sum(clip.duration_s for clip in clips)
        rvq = _random_rvq(encoders[torch.float32], clips[:CODEBOOK_CLIPS]).to(device)
        peaks = {}
        if config.memory:  # before the rest is run, which would share the machine's memory
            for dtype in DTYPES:
                arguments = (config, clips, dtype, folder)
                peaks[dtype] = measure_peak(_tokenize_alone, *arguments, device=device)

        def run_snippet(dtype: torch.dtype) -> None:
            _snippet(clips, towers[dtype], extractor, rvq)

        def run_ours(dtype: torch.dtype) -> None:
            outs[dtype] = _tokenize(config, clips, encoders[dtype], rvq, folder)

        outs: dict[torch.dtype, Path] = {}
        ways = {"card's snippet": run_snippet, "tokenize_corpus": run_ours}
        seconds = {(name, dtype): float("inf") for name in ways for dtype in DTYPES}
        for _ in range(NUM_TURNS):
            for name, dtype in seconds:
                taken = measure_seconds(partial(ways[name], dtype), device)
                seconds[name, dtype] = min(seconds[name, dtype], taken)
        parts = {
            dtype: measure_parts(clips, encoders[dtype], rvq, config.batch_size, Path(folder))
            for dtype in DTYPES
        }
        joined_N = np.concatenate([read_utterance_audio(c, GEMMA_SAMPLE_RATE_HZ) for c in clips])
        streams = {
            (dtype, step_s): time_stream(encoders[dtype], joined_N, step_s)
            for dtype in DTYPES
            for step_s in STREAM_STEPS_S
        }
        agreement_K = _code_agreement(outs[torch.float32], outs[torch.bfloat16])

    source = str(config.manifest) if config.manifest else "noise"
    print(
        f"{speech_s:.0f} s of speech in {len(clips)} clips ({source}), {device}, "
        f"{torch.get_num_threads()} threads, best of {NUM_TURNS}"
    )
    snippet_s = seconds["card's snippet", torch.float32]
    for (name, dtype), taken in seconds.items():
        print(
            f"{name:<16}{_show(dtype):<10}{speech_s / taken:>7.1f} x real time"
            f"{snippet_s / taken:>7.2f} x the float32 snippet"
        )
    for dtype, num_bytes in peaks.items():
        print(f"peak memory of tokenize_corpus, {_show(dtype)}: {show_peak(num_bytes)}")
    flops_per_s = 2 * sum(p.numel() for p in tower.parameters()) * FRAME_RATE_HZ
    for dtype, flops in ceilings.items():
        print(
            f"matrix multiply {_show(dtype):<10}{flops / flops_per_s:>7.1f} x real time at most "
            f"({flops / 1e9:.0f} GFLOP/s; torch's own {_show(dtype)} product "
            f"{_matmul_flops(torch.matmul, device, dtype) / 1e9:.0f})"
        )
    for dtype, taken_by_part in parts.items():
        print(f"{_show(dtype)}: {format_parts(taken_by_part, speech_s)}")
    for (dtype, step_s), taken in streams.items():
        print(
            f"{_show(dtype)}: the tower on one recording as it arrives, {step_s:g} s at a time: "
            f"{speech_s / taken:.1f} x real time"
        )
    shown = " ".join(f"{100 * share:.1f}" for share in agreement_K.tolist())
    print(f"codes that agree between float32 and bfloat16, % by codebook: {shown}")
    print("(random weights: whether other codes read as well, stage1_rvq.compare_codes tells)")


def _tokenize(
    config: BenchmarkConfig, clips: list[Utterance], encoder: AudioEncoder, rvq: SpeechRVQ,
    folder: str,
) -> Path:  # fmt: skip
    out = Path(tempfile.mkdtemp(dir=folder))
    for number, items in utterance_shards(clips).items():
        shard = Shard(number, out / CODES_NAME.format(number), items, tqdm(disable=True))
        tokenize_shard(
            shard, encoder, rvq, beam_size=1, batch_size=config.batch_size,
            num_workers=config.num_workers, skip_bad_audio=False,
        )  # fmt: skip
    return out


def _tokenize_alone(
    config: BenchmarkConfig, clips: list[Utterance], dtype: torch.dtype, folder: str
) -> None:
    """Tokenize as a user's process would: one model, one precision, transformers' forward pass."""
    device = pick_device(config.device)
    with torch.device(device):
        rvq = SpeechRVQ(RVQConfig()).eval()
    tower = random_tower(device, dtype)
    _tokenize(config, clips, AudioEncoder(tower, Gemma4AudioFeatureExtractor()), rvq, folder)


@torch.no_grad()
def _random_rvq(encoder: AudioEncoder, clips: list[Utterance]) -> SpeechRVQ:
    """Codebooks sampled from a Gaussian with the mean and covariance of the residual to code."""
    waveforms = [read_utterance_audio(clip, GEMMA_SAMPLE_RATE_HZ) for clip in clips]
    rvq = SpeechRVQ(RVQConfig()).eval()
    residual_ND = torch.cat(encoder.encode(waveforms)) / encoder.frame_scale_D
    rvq.frame_scale_D.copy_(encoder.frame_scale_D)
    for layer in rvq.quantizer.layers:
        mean_D = residual_ND.mean(dim=0)
        mix_CN = torch.randn(rvq.config.codebook_size, len(residual_ND)) / len(residual_ND) ** 0.5
        codebook_CD = mean_D + mix_CN @ (residual_ND - mean_D)
        layer._codebook.embed.copy_(codebook_CD[None])
        residual_ND = residual_ND - codebook_CD[torch.cdist(residual_ND, codebook_CD).argmin(-1)]
    return rvq


def _choose_clips(config: BenchmarkConfig) -> list[Utterance]:
    assert config.manifest is not None
    clips = list(read_manifest(config.manifest))
    ends_s = accumulate(clip.duration_s for clip in clips)
    return clips[: max(1, len(list(takewhile(lambda end_s: end_s <= config.seconds, ends_s))))]


def _write_noise(folder: Path, config: BenchmarkConfig) -> list[Utterance]:
    generator = np.random.default_rng(0)
    clips = []
    for i in range(max(1, round(config.seconds / CLIP_S))):
        path = folder / f"{i}.wav"
        samples = 0.1 * generator.standard_normal(int(CLIP_S * GEMMA_SAMPLE_RATE_HZ))
        write_wav(path, samples.astype(np.float32), GEMMA_SAMPLE_RATE_HZ)
        clip = Utterance(
            id=str(i), audio=str(path), text="x", duration_s=CLIP_S, speaker="noise",
            dialect="unknown", corpus="benchmark", split="test", license="none",
        )  # fmt: skip
        clips.append(clip)
    return clips


@torch.no_grad()
def _snippet(
    clips: list[Utterance],
    tower: Gemma4AudioModel,
    extractor: Gemma4AudioFeatureExtractor,
    rvq: SpeechRVQ,
) -> None:
    """Tokenize one clip at a time, as the published card shows (it loads the tower in bfloat16)."""
    weight = tower.output_proj.weight
    caught: list[Tensor] = []
    hook = tower.output_proj.register_forward_hook(lambda _, args, out: caught.append(args[0]))
    for clip in clips:
        samples = read_audio(Path(clip.audio), GEMMA_SAMPLE_RATE_HZ)
        features = extractor([samples], sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt")
        tower(features["input_features"].to(weight.device, weight.dtype))
        rvq.quantizer(caught.pop().float())
    hook.remove()


def _code_agreement(folder: Path, other: Path) -> Tensor:
    """Share of frames with the same code, by codebook: `[K]`."""
    codes_NK, other_NK = (torch.cat([u.codes_TK for u in read_codes(f)]) for f in (folder, other))
    return (codes_NK == other_NK).float().mean(dim=0)


def _matmul_flops(
    multiply: Callable[[Tensor, Tensor], Tensor], device: torch.device, dtype: torch.dtype
) -> float:
    square = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device, dtype=dtype)
    return 2 * MATMUL_SIZE**3 / fastest(lambda: multiply(square, square), device)


def _show(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    run_command(main)
