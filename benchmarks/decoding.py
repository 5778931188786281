"""A token of Gemma's decoder on a CPU: weights as torch has them, and repacked, in one run.

    python -m benchmarks.decoding --size e2b

The decoder alone, in bfloat16, with random weights and a small vocabulary: the embedding tables and
the output layer, which stay as they are, are left out. Beside both stands the ceiling: reading all
weights once, as fast as a sum reads a gigabyte.
"""

# B sequences decoded together

import statistics
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from transformers import DynamicCache, Gemma4TextModel

from benchmarks.random_decoder import build_decoder, fill
from benchmarks.timing import fastest, measure_seconds
from commands.command_line import parse_config, run_command
from commands.setting_types import PositiveInt, PositiveInts, Seed
from gemma4.packed_linear import pack_linear_layers

VOCABULARY_SIZE = 512
PROMPT_TOKENS = 16
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time a decoding step of Gemma on a CPU."""

    size: Literal["tiny", "e2b", "e4b"] = "e2b"
    """e2b takes 10 GB of memory, e4b 20"""
    batch_sizes: PositiveInts = (1, 4)
    """sequences decoded together"""
    num_tokens: PositiveInt = 12
    """tokens timed of each"""
    seed: Seed = 0
    """seed of the random weights"""


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    config = parse_config(BenchmarkConfig, argv)
    decoder, planned = build_decoder(config.size, vocabulary_size=VOCABULARY_SIZE)
    fill(decoder, planned["default"], config.seed)
    layers = [m for m in decoder.modules() if isinstance(m, torch.nn.Linear)]
    num_bytes = sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
    gigabyte = torch.ones(2**28)
    ceiling_ms = 1000 * num_bytes / 2**30 * fastest(gigabyte.sum, CPU)
    times = {"as torch has them": time_steps(decoder, config)}
    pack_linear_layers(decoder)
    times["repacked"] = time_steps(decoder, config)
    print(
        f"{config.size}, {torch.get_num_threads()} threads, linear layers of {num_bytes / 1e9:.2f} "
        f"GB; ms a token of all sequences\n{'weights':20}"
        + "".join(f"{f'batch {size}':>12}" for size in config.batch_sizes)
    )
    for name, ms in times.items():
        print(f"{name:20}" + "".join(f"{one:12.1f}" for one in ms))
    print(f"{'read once':20}{ceiling_ms:12.1f}")


@torch.inference_mode()
def time_steps(decoder: Gemma4TextModel, config: BenchmarkConfig) -> list[float]:
    """Milliseconds of a step, the median, for each batch size."""
    medians = []
    for batch_size in config.batch_sizes:
        cache = DynamicCache(config=decoder.config)
        prompt_BS = torch.full((batch_size, PROMPT_TOKENS), 7)
        decoder(input_ids=prompt_BS, past_key_values=cache, use_cache=True)
        step = partial(decoder, input_ids=prompt_BS[:, :1], past_key_values=cache, use_cache=True)
        steps = [measure_seconds(step, CPU) for _ in range(config.num_tokens + 1)]
        medians.append(1000 * statistics.median(steps[1:]))
    return medians


if __name__ == "__main__":
    run_command(main)
