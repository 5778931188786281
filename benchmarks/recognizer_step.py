"""A training step of the recogniser on a CPU: its LSTM over padded sequences and over packed ones.

    python -m benchmarks.recognizer_step --width 512

Utterances that differ by a few frames, as those of a batch do, and of mixed lengths; all ways see
about as many frames, and take turns. Beside them stands the ceiling: the step's matrix products at
the speed of one large product.
"""

# B utterances, T frames (25 per second), D embedding width, W width of a layer's output

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.timing import measure_ceiling, take_turns
from commands.command_line import parse_config, run_command
from commands.setting_types import LayerWidth, NumLayers, PositiveInt, Seed
from pipeline import flops
from stage1_rvq.padded_lstm import run_lstm, run_packed

EMBEDDING_WIDTH = 1024
SPREAD = 2  # frames by which utterances of similar length are shorter or longer than their mean
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time a training step of the recogniser's layers on a CPU."""

    width: LayerWidth = 128
    """width of each LSTM direction: 128 is the demo's, 512 full size"""
    num_layers: NumLayers = 2
    """LSTM layers"""
    batch_size: PositiveInt = 32
    """utterances"""
    num_frames: PositiveInt = 60
    """their mean length; the longest of mixed ones has 1.5 times as many frames"""
    rounds: PositiveInt = 5
    """steps timed of each way"""
    seed: Seed = 0
    """seed of the random weights and frames"""


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    config = parse_config(BenchmarkConfig, argv)
    torch.manual_seed(config.seed)
    differ_B = torch.arange(config.batch_size) % (2 * SPREAD + 1) - SPREAD
    similar_B = (config.num_frames + differ_B).clamp(min=1)
    num_frames = int(similar_B.sum())
    mixed_B = (config.num_frames * torch.linspace(0.5, 1.5, config.batch_size)).ceil().long()
    linear = nn.Linear(EMBEDDING_WIDTH, config.width)
    lstm = nn.LSTM(
        config.width, config.width, config.num_layers, batch_first=True, bidirectional=True
    )
    ways = {
        (of_lengths, name): _step(linear, lstm, lengths_B, run)
        for of_lengths, lengths_B in {"similar": similar_B, "mixed": mixed_B}.items()
        for name, run in {"padded": run_lstm, "packed": run_packed}.items()
    }
    seconds = take_turns(ways, config.rounds, CPU, "step", statistic=statistics.median)
    matrices = flops.matrices_of(linear) + flops.matrices_of(lstm)
    counted = flops.TRAINING * 2 * matrices * num_frames
    ceiling_s = counted / measure_ceiling(CPU).flops
    print(
        f"{config.batch_size} utterances, {num_frames} frames, {config.num_layers} layers "
        f"of 2 x {config.width}, {torch.get_num_threads()} threads; ms a step\n"
        f"{'lengths':10}{'padded':>10}{'packed':>10}{'ratio':>10}"
    )
    for of_lengths in ("similar", "mixed"):
        padded_s, packed_s = seconds[of_lengths, "padded"], seconds[of_lengths, "packed"]
        ratio = packed_s / padded_s
        print(f"{of_lengths:10}{1000 * padded_s:10.1f}{1000 * packed_s:10.1f}{ratio:10.2f}")
    print(f"{'ceiling':10}{1000 * ceiling_s:10.1f}")


def _step(
    linear: nn.Linear,
    lstm: nn.LSTM,
    lengths_B: Tensor,
    run: Callable[[nn.LSTM, Tensor, Tensor], Tensor],
) -> Callable[[], None]:
    frames_BTD = torch.randn(len(lengths_B), int(lengths_B.max()), EMBEDDING_WIDTH)

    def step() -> None:
        run(lstm, linear(frames_BTD), lengths_B).square().mean().backward()

    return step


if __name__ == "__main__":
    run_command(main)
