"""How well the demo's Mimi preserves unseen speech: synthetic Twi in two monotone voices.

    python -m demo.mimi.evaluate --mimi runs/train-mimi/model

Prints a table; `--out` also writes it as JSON. Intelligibility is STOI (Taal et al. 2011), 0 to 1,
against the time-aligned original.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from commands.atomic_write import write_json
from commands.command_line import parse_config, run_command
from commands.new_paths import refuse_unwritable
from commands.setting_types import ModelName, PositiveInt, Seed
from demo.mimi.metrics import CodecFigures, import_stoi, measure_codec, waveform_of
from demo.mimi.speech import Clip, held_out_texts, speak_texts
from speech_head.mimi import Mimi, load_mimi
from speech_head.mimi_stream import MimiStreamDecoder

# F Mimi frames (12.5 per second), K codebooks, N samples (24,000 per second), W windows of 64 ms

STREAM_CHUNKS = (1, 2, 5, 1, 3)  # frames per call of the stream decoder, repeated


@dataclass(frozen=True, kw_only=True)
class EvaluateMimiConfig:
    """Measure the demo's Mimi on held-out sentences."""

    mimi: ModelName
    """folder written by demo.mimi.train (its model/) or by save_pretrained"""
    split: Literal["dev", "test"] = "test"
    """split whose questions and answers are spoken"""
    num_utterances: PositiveInt = 200
    """most utterances to measure"""
    num_streamed: PositiveInt = 10
    """number of those utterances that are also decoded as a stream"""
    seed: Seed = 1
    """seed for takes and silences"""
    out: Path | None = None
    """JSON file for the figures"""


def main(argv: list[str] | None = None) -> None:
    """Measure; prints the table."""
    config = parse_config(EvaluateMimiConfig, argv)
    import_stoi()  # fail before anything is spoken if it is not installed
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


def streaming_difference(mimi: Mimi, clips: Sequence[Clip]) -> float:
    """The largest difference of any sample between decoding in chunks and decoding at once."""
    largest = 0.0
    for codes_FK in mimi.encode([waveform_of(clip) for clip in clips]):
        stream = MimiStreamDecoder(mimi)
        parts, frame, turn = [], 0, 0
        while frame < len(codes_FK):
            size = STREAM_CHUNKS[turn % len(STREAM_CHUNKS)]
            parts.append(stream.decode(codes_FK[frame : frame + size]))
            frame, turn = frame + size, turn + 1
        difference_N = torch.cat(parts) - mimi.decode(codes_FK)
        largest = max(largest, difference_N.abs().max().item())
    return largest


def format_figures(figures: CodecFigures, stream_difference: float) -> str:
    """Format the figures as a table."""
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


if __name__ == "__main__":
    run_command(main)
