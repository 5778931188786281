"""How well the demo's Mimi keeps speech that it never heard: synthetic Twi, two monotone voices.

    python -m demo.mimi.evaluate --mimi runs/train-mimi/model

Prints a table; `--out` writes it as JSON too. Intelligibility is STOI (Taal et al. 2011), 0 to 1,
compared with the original sample by sample in time.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from commands.atomic_write import write_json
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.new_paths import refuse_unwritable
from commands.setting_types import ModelName, PositiveInt, Seed
from demo.mimi.losses import SAMPLE_RATE_HZ, log, mel_filters
from demo.mimi.speech import Clip, held_out_texts, speak_texts
from speech_head.mimi import Mimi, MimiStreamDecoder, load_mimi

# F Mimi frames (12.5 per second), K codebooks, N samples (24,000 per second), W windows of 64 ms

WINDOW, NUM_BANDS = 1024, 96  # of the log-mel distance
PITCH_PERIOD = 240  # samples: 10 ms is a period of 100 Hz, and two of 200 Hz
PERIODICITY_WINDOW = 1536  # samples
VOICED = 0.7  # correlation of neighbouring periods, above which the original is voiced
STREAM_CHUNKS = (1, 2, 5, 1, 3)  # frames given to the stream decoder at a time, over and over


@dataclass(frozen=True, kw_only=True)
class EvaluateMimiConfig:
    """Measure the demo's Mimi on held-out sentences."""

    mimi: ModelName
    """folder written by demo.mimi.train (its model/) or by save_pretrained"""
    split: Literal["dev", "test"] = "test"
    """whose questions and answers are spoken"""
    num_utterances: PositiveInt = 200
    """at most so many"""
    num_streamed: PositiveInt = 10
    """of them are decoded as a stream too"""
    seed: Seed = 1
    """of takes and silences"""
    out: Path | None = None
    """JSON file for the figures"""


@dataclass(frozen=True)
class CodecFigures:
    """What the codec does to some utterances.

    `periodicity` is the mean correlation of voiced speech with itself 10 ms earlier, after and
    before the codec; `used_K` how many codes of each codebook occur, `perplexity_K` how many they
    would be if they occurred equally often.
    """

    num_utterances: int
    duration_s: float
    num_frames: int
    stoi: float
    stoi_min: float
    log_mel_l1: float
    periodicity: float
    periodicity_original: float
    used_K: list[int]
    perplexity_K: list[float]

    def summary(self) -> dict[str, float]:
        """The figures that are one number."""
        return {name: value for name, value in asdict(self).items() if not isinstance(value, list)}


def main(argv: list[str] | None = None) -> None:
    """Measure; prints the table."""
    config = parse_config(EvaluateMimiConfig, argv)
    import_stoi()  # missing, it is missed before anything is spoken
    if config.out is not None:
        refuse_unwritable(config.out, flag="--out", may_exist=True)
    mimi = load_mimi(config.mimi)
    clips = speak_texts(held_out_texts(config.split, config.num_utterances), config.seed)
    figures = measure_codec(mimi, clips)
    difference = streaming_difference(mimi, clips[: config.num_streamed])
    print(format_figures(figures, difference))
    if config.out is not None:
        write_json(
            config.out,
            {"split": config.split, **asdict(figures), "max_stream_difference": difference},
        )
        print(config.out)


def measure_codec(mimi: Mimi, clips: Sequence[Clip]) -> CodecFigures:
    """Encode and decode every clip and compare it with itself."""
    stoi = import_stoi()
    stois, distances, kept, periodic = [], [], [], []
    codes = []
    for clip in clips:
        x_N = _waveform(clip)
        codes_FK = mimi.encode([x_N])[0]
        decoded_N = mimi.decode(codes_FK, num_samples=len(x_N))
        codes.append(codes_FK)
        stois.append(stoi(x_N.numpy(), decoded_N.numpy(), SAMPLE_RATE_HZ))
        distances.append((_log_mel(decoded_N) - _log_mel(x_N)).abs().mean().item())
        original_W, decoded_W = _periodicity(x_N), _periodicity(decoded_N)
        kept.append(decoded_W[original_W > VOICED])
        periodic.append(original_W[original_W > VOICED])
    codes_FK = torch.cat(codes)
    counts_KS = torch.stack(
        [torch.bincount(codes_F, minlength=mimi.codebook_size) for codes_F in codes_FK.T]
    )
    shares_KS = counts_KS / len(codes_FK)
    perplexity_K = (-torch.xlogy(shares_KS, shares_KS).sum(dim=1)).exp()
    return CodecFigures(
        num_utterances=len(clips),
        duration_s=sum(len(clip.samples_N) for clip in clips) / SAMPLE_RATE_HZ,
        num_frames=len(codes_FK),
        stoi=float(np.mean(stois)),
        stoi_min=float(np.min(stois)),
        log_mel_l1=float(np.mean(distances)),
        periodicity=torch.cat(kept).mean().item(),
        periodicity_original=torch.cat(periodic).mean().item(),
        used_K=(counts_KS > 0).sum(dim=1).tolist(),
        perplexity_K=[round(p, 1) for p in perplexity_K.tolist()],
    )


def import_stoi() -> Callable[[np.ndarray, np.ndarray, int], float]:
    """pystoi's `stoi`; nothing else here needs the package.

    Raises:
        InputError: it is not installed.
    """
    try:
        from pystoi import stoi
    except ImportError:
        raise InputError("STOI is measured by pystoi: pip install pystoi") from None
    measure: Callable[[np.ndarray, np.ndarray, int], float] = stoi
    return measure


def streaming_difference(mimi: Mimi, clips: Sequence[Clip]) -> float:
    """The largest difference of any sample between decoding in chunks and decoding at once."""
    largest = 0.0
    for codes_FK in mimi.encode([_waveform(clip) for clip in clips]):
        stream = MimiStreamDecoder(mimi)
        parts, frame, turn = [], 0, 0
        while frame < len(codes_FK):
            size = STREAM_CHUNKS[turn % len(STREAM_CHUNKS)]
            parts.append(stream.decode(codes_FK[None, frame : frame + size])[0])
            frame, turn = frame + size, turn + 1
        difference_N = torch.cat(parts) - mimi.decode(codes_FK)
        largest = max(largest, difference_N.abs().max().item())
    return largest


def format_figures(figures: CodecFigures, stream_difference: float) -> str:
    """The table that is printed."""
    lines = [
        f"utterances            {figures.num_utterances} ({figures.duration_s:.0f} s,"
        f" {figures.num_frames} frames)",
        f"STOI                  {figures.stoi:.3f} (lowest {figures.stoi_min:.3f})",
        f"log-mel L1            {figures.log_mel_l1:.3f}",
        f"periodicity           {figures.periodicity:.3f}"
        f" (original {figures.periodicity_original:.3f})",
        f"stream - offline      {stream_difference:.1e}",
        "codebook              " + "".join(f"{k:6d}" for k in range(len(figures.used_K))),
        "codes used            " + "".join(f"{n:6d}" for n in figures.used_K),
        "perplexity            " + "".join(f"{p:6.0f}" for p in figures.perplexity_K),
    ]
    return "\n".join(lines)


def _waveform(clip: Clip) -> Tensor:
    return torch.from_numpy(clip.samples_N.astype(np.float32) / 32768)


def _log_mel(x_N: Tensor) -> Tensor:
    """Log-mel spectrum, natural logarithm, of full scale."""
    window_N = torch.hann_window(WINDOW)
    spectrum = torch.stft(x_N, WINDOW, WINDOW // 4, window=window_N, return_complex=True).abs()
    return log(mel_filters(WINDOW, NUM_BANDS) @ spectrum / (WINDOW / 4))


def _periodicity(x_N: Tensor) -> Tensor:
    """Of windows of 64 ms the correlation with what was heard 10 ms before; 0 in silence."""
    now_WN = x_N[PITCH_PERIOD:].unfold(0, PERIODICITY_WINDOW, PERIODICITY_WINDOW // 4)
    before_WN = x_N[:-PITCH_PERIOD].unfold(0, PERIODICITY_WINDOW, PERIODICITY_WINDOW // 4)
    is_heard_W = now_WN.square().mean(dim=1) > 1e-4
    return functional.cosine_similarity(now_WN, before_WN) * is_heard_W


if __name__ == "__main__":
    run_command(main)
