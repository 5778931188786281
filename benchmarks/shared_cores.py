"""Time a training step of the recogniser alone, and next to a program that keeps every core busy.

    python -m benchmarks.shared_cores

Between two parallel loops, OpenMP's threads wait for the next one. By default with torch they spin
for longer than a loop takes, which occupies a core; with `OMP_WAIT_POLICY=PASSIVE` they sleep at
once; this project lets them spin for a moment (`commands/waiting_threads.py`). All three are
measured, each in its own process, because the behaviour is fixed when torch is loaded. The step is
that of `make demo`: 16 utterances, LSTMs 128 wide. The other program multiplies matrices on all
cores, with torch's defaults.
"""

# B utterances, T frames (25 per second), U units of a text

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from commands.command_line import parse_config, run_command
from commands.setting_types import PositiveFloat, PositiveInt
from stage1_rvq.recognizer import BLANK_ID, CTCRecognizer, RecognizerConfig

ROOT = Path(__file__).resolve().parents[1]
# `make demo`: embeddings 160 wide, 128 units, 16 utterances of about 2.5 s and 25 units.
SHAPE = RecognizerConfig(dim=160, num_units=128, width=128)
NUM_UTTERANCES, NUM_FRAMES, NUM_TEXT_UNITS = 16, 64, 25
WARMUP_STEPS = 3
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
MEASURE = """
import json, sys
from benchmarks.shared_cores import measure_steps
print(json.dumps(measure_steps(seconds=float(sys.argv[1]), max_steps=int(sys.argv[2]))))
"""
# If torch is imported before any of our packages, its threads wait as the environment says.
FIRST = "import torch\n"
KEEP_BUSY = """
import os
import torch
parent, square = os.getppid(), torch.randn(1024, 1024)
print("busy", flush=True)
while os.getppid() == parent:
    square @ square
"""


@dataclass(frozen=True)
class Way:
    """A way for threads to wait.

    Attributes:
        name: label in the table.
        first: the statements that a process begins with.
        environment: environment variables that are set.
    """

    name: str
    first: str = FIRST
    environment: dict[str, str] = field(default_factory=dict)


WAYS = (
    Way("spinning, as torch by itself"),
    Way("sleeping at once", environment={"OMP_WAIT_POLICY": "PASSIVE"}),
    Way("spinning for a moment, as here", first=""),
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time a step of the recogniser on idle and on busy cores, for each way that threads can
    wait."""

    seconds: PositiveFloat = 20.0
    """longest time for each of the six measurements, in seconds"""
    max_steps: PositiveInt = 300
    """most steps in each measurement"""


def main(argv: list[str] | None = None) -> None:
    """Measure; prints a row for each way of waiting."""
    config = parse_config(BenchmarkConfig, argv)
    print(
        f"recogniser step, {NUM_UTTERANCES} x {NUM_FRAMES} frames, "
        f"{torch.get_num_threads()} threads\n"
        f"{'threads that wait':<32}{'alone':>10}{'beside another':>18}{'ratio':>9}"
    )
    for way in WAYS:
        alone_s = _measure_in_process(way, config)
        with busy_cores():
            beside_s = _measure_in_process(way, config)
        print(
            f"{way.name:<32}{1000 * alone_s:>7.1f} ms{1000 * beside_s:>15.1f} ms"
            f"{beside_s / alone_s:>8.1f}x",
            flush=True,
        )


def measure_steps(*, seconds: float, max_steps: int) -> list[float]:
    """Seconds of each step of a training, warmed up; no step begins after `seconds`."""
    torch.manual_seed(0)
    recognizer = CTCRecognizer(SHAPE).train()
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=1e-3, weight_decay=0.01)
    frames_BTD = torch.randn(NUM_UTTERANCES, NUM_FRAMES, SHAPE.dim)
    lengths_B = torch.full((NUM_UTTERANCES,), NUM_FRAMES)
    targets_BU = torch.randint(BLANK_ID + 1, SHAPE.num_units, (NUM_UTTERANCES, NUM_TEXT_UNITS))
    target_lengths_B = torch.full((NUM_UTTERANCES,), NUM_TEXT_UNITS)

    def step() -> float:
        started = time.perf_counter()
        log_probs_TBV = recognizer(frames_BTD, lengths_B).transpose(0, 1)
        loss = F.ctc_loss(log_probs_TBV, targets_BU, lengths_B, target_lengths_B, blank=BLANK_ID)
        loss.backward()
        clip_grad_norm_(recognizer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    for _ in range(WARMUP_STEPS):
        step()
    end = time.perf_counter() + seconds
    taken = [step()]
    while len(taken) < max_steps and time.perf_counter() < end:
        taken.append(step())
    return taken


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """In the meantime, another process multiplies matrices on every core."""
    with subprocess.Popen(
        [sys.executable, "-c", KEEP_BUSY], env=_own_environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"busy\n"
            yield
        finally:
            process.kill()


def _measure_in_process(way: Way, config: BenchmarkConfig) -> float:
    """Median seconds of a step, in a process of its own."""
    words = [str(config.seconds), str(config.max_steps)]
    process = subprocess.run(
        [sys.executable, "-c", way.first + MEASURE, *words],
        cwd=ROOT, env=_own_environment() | way.environment,
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return statistics.median(json.loads(process.stdout))


def _own_environment() -> dict[str, str]:
    """Our environment, as it was before this process set how its own threads wait."""
    return {name: value for name, value in os.environ.items() if name not in SETTINGS}


if __name__ == "__main__":
    run_command(main)
