"""Time several functions in turns, and measure the best that the machine allows."""

# B utterances, D width

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.nn import functional as F
from tqdm import tqdm

Way = TypeVar("Way")

MATRIX_SIZE = 8192  # 256 MiB of float32: too large for any cache
MATMUL_SIZE = 2048
NUM_LINEAR = 40
CEILING_REPEATS = 6


@dataclass(frozen=True)
class Ceiling:
    """The machine's best speed in float32, for reading weights and multiplying large matrices."""

    bytes_per_s: float
    flops: float


def take_turns(
    ways: Mapping[Way, Callable[[], object]],
    rounds: int,
    device: torch.device,
    what: str,
    *,
    statistic: Callable[[Sequence[float]], float] = statistics.median,
) -> dict[Way, float]:
    """Seconds of several functions, run in turns over several rounds: of each the median, or
    another statistic. A first round is not counted."""
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    turns = [(way, function) for _ in range(rounds + 1) for way, function in ways.items()]
    for way, function in tqdm(turns, desc=what, leave=False):
        seconds[way].append(measure_seconds(function, device))
    return {way: statistic(taken[1:]) for way, taken in seconds.items()}


def measure_ceiling(device: torch.device) -> Ceiling:
    """Measure the machine's best speed, with a single large product."""
    weight = torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device)
    vector = torch.randn(1, MATRIX_SIZE, device=device)
    square = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device)
    reading_s = fastest(lambda: F.linear(vector, weight), device)
    multiplying_s = fastest(lambda: F.linear(square, square), device)
    return Ceiling(4 * weight.numel() / reading_s, 2 * MATMUL_SIZE**3 / multiplying_s)


def measure_linear(batch_size: int, device: torch.device) -> float:
    """Seconds per parameter of linear layers, with one position per utterance at a time.

    The layers have the temporal transformer's size, and are together too large for any cache.
    """
    width, wide = 768, 2048
    weights = list(torch.randn(NUM_LINEAR, wide, width, device=device))
    inputs_BD = torch.randn(batch_size, width, device=device)
    seconds = fastest(lambda: [F.linear(inputs_BD, weight) for weight in weights], device)
    return seconds / (NUM_LINEAR * wide * width)


def measure_seconds(function: Callable[[], object], device: torch.device) -> float:
    """Seconds that one call takes, until the device has done all of it."""
    _wait(device)
    started = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - started


def fastest(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several calls."""
    return min(measure_seconds(function, device) for _ in range(CEILING_REPEATS))


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
