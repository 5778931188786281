"""Speechless against a flattened transformer and CSM of equal size: speed and memory, in one run.

    python -m benchmarks.speechless
    python -m benchmarks.speechless --batch-sizes 1 --num-frames 20 --no-training --no-memory

`equal_size.py` describes the three models. Generation is measured in frames per second, summed over
the utterances of a batch; the other two run with both caches that transformers offers. Training is
one plain step (forward, backward, AdamW) of Speechless and of the flattened model on the same
utterances; transformers' `Trainer` would run the same step and add only its bookkeeping. The
default step of `stage2_speechless.train` is also measured: codebooks 1 to 7 on half of the frames,
and Muon.

All take turns, so that other load on the machine affects all alike; medians are reported. Next to
each measurement is the speed that linear layers alone would allow ("at most"), from the number of
parameters that a frame multiplies by and this machine's time per parameter at that batch size.
Reading the text, attention, keys and values, sampling and Python make it slower; small-step weights
that stay in a cache, and so need not be read, make it faster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.equal_size import (
    SHAPES,
    Model,
    Work,
    build_model,
    count_parameters,
    count_work,
    generate_codes,
    prefix_tokens,
)
from benchmarks.peak_memory import measure_peak, show_peak
from benchmarks.timing import Ceiling, measure_ceiling, measure_linear, take_turns
from benchmarks.training_step import TrainingStep, make_utterances
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, pick_device
from commands.setting_types import PositiveInt, PositiveInts
from stage2_speechless.muon import OptimizerName

MODELS = ("Speechless", "flattened", "CSM")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare Speechless with a flattened transformer and with CSM, at equal size."""

    size: Literal["reference", "small"] = "reference"
    """reference: 107 M parameters, 8 x 2048 codes; small: only to check that it runs"""
    batch_sizes: PositiveInts = (1, 8, 64)
    """utterances generated together"""
    num_frames: PositiveInt = 50
    """frames per generated utterance, 25 per second"""
    rounds: PositiveInt = 3
    """number of timed runs of each, after a warm-up"""
    training_utterances: PositiveInt = 8
    """utterances per training step; at reference size, the flattened model takes about 750 MB for
    each"""
    training_frames: PositiveInt = 100
    """frames per training utterance"""
    memory: bool = True
    """also measure peak memory, each in its own process (on Linux, or on CUDA)"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""


@dataclass(frozen=True)
class System:
    """A way to generate: a model and a cache. Small enough to be sent to another process."""

    model: str
    static_cache: bool | None = None

    def __str__(self) -> str:
        if self.static_cache is None:
            return self.model
        return f"{self.model}, {'static' if self.static_cache else 'dynamic'} cache"


SYSTEMS = [
    System("Speechless"),
    *(System(model, is_static) for model in MODELS[1:] for is_static in (False, True)),
]


@dataclass(frozen=True)
class Training:
    """A way to train: a model, the share of frames on which codebooks 1 to K-1 are trained, and an
    optimizer."""

    model: str
    depth_fraction: float = 1.0
    optimizer: OptimizerName = "adamw"


TRAINING_WAYS = {
    "Speechless, all codes": Training("Speechless"),
    "Speechless, as trained": Training("Speechless", 0.5, "muon"),
    "flattened": Training("flattened"),
}


def main(argv: list[str] | None = None) -> None:
    """Run the comparison; prints tables."""
    config = parse_config(BenchmarkConfig, argv)
    device = pick_device(config.device)
    ceiling = measure_ceiling(device)
    print(
        f"{device}, {torch.get_num_threads()} threads, float32, median of {config.rounds}\n"
        f"this machine reads {ceiling.bytes_per_s / 1e9:.1f} GB/s (matrix times vector) and "
        f"multiplies large matrices at {ceiling.flops / 1e9:.0f} GFLOP/s"
    )
    compare_generation(config, device, ceiling)
    compare_training(config, device)


def compare_generation(config: BenchmarkConfig, device: torch.device, ceiling: Ceiling) -> None:
    """Frames per second and memory of each way to generate."""
    shape = SHAPES[config.size]()
    models = {name: build_model(name, shape).to(device) for name in MODELS}
    work = {name: count_work(model, shape) for name, model in models.items()}
    print(
        f"\n{'':<14}{'parameters':>12}    {'steps a second of speech':<30}"
        f"{'parameters a frame':>18}"
    )
    for name, model in models.items():
        steps = _show(work[name], shape.frame_rate_hz)
        print(
            f"{name:<14}{count_parameters(model) / 1e6:>10.2f} M    {steps:<30}"
            f"{work[name].parameters_per_frame / 1e6:>16.1f} M"
        )
    flattened, ours = (work[name].parameters_per_frame for name in ("flattened", "Speechless"))
    print(f"flattened / Speechless, parameters a frame: {flattened / ours:.1f}")
    print(f"\n{config.num_frames} frames of each utterance, after {len(prefix_tokens())} positions")
    for batch_size in config.batch_sizes:
        ways = {
            system: _generation(models[system.model], system, config, batch_size)
            for system in SYSTEMS
        }
        seconds = take_turns(ways, config.rounds, device, f"batch {batch_size}")
        baseline_s = min(s for system, s in seconds.items() if system.model == "flattened")
        per_parameter_s = measure_linear(batch_size, device)
        bytes_per_s, flops = 4 / per_parameter_s, 2 * batch_size / per_parameter_s
        print(
            f"\nbatch {batch_size}: linear layers read {bytes_per_s / 1e9:.1f} GB/s "
            f"({bytes_per_s / ceiling.bytes_per_s:.0%} of the machine's best), "
            f"{flops / 1e9:.0f} GFLOP/s ({flops / ceiling.flops:.0%})\n"
            f"{'':<26}{'frames/s':>10}{'real time':>12}{'vs flattened':>14}{'at most':>10}"
            f"{'peak memory':>14}"
        )
        for system, taken_s in seconds.items():
            frames_per_s = batch_size * config.num_frames / taken_s
            at_most = batch_size / (per_parameter_s * work[system.model].parameters_per_frame)
            peak = _peak(config, device, _generate_alone, system, batch_size)
            print(
                f"{system!s:<26}{frames_per_s:>10.1f}{frames_per_s / shape.frame_rate_hz:>10.2f} x"
                f"{baseline_s / taken_s:>12.2f} x{at_most:>10.1f}{peak:>14}",
                flush=True,
            )


def compare_training(config: BenchmarkConfig, device: torch.device) -> None:
    """Frames per second and memory of one training step."""
    # Before anything is built here: two processes with one such step each may not fit into memory.
    peaks = {
        way: _peak(config, device, _train_alone, training)
        for way, training in TRAINING_WAYS.items()
    }
    ways = {way: _training(config, each, device) for way, each in TRAINING_WAYS.items()}
    seconds = take_turns(ways, config.rounds, device, "training")
    num_utterances, num_frames = config.training_utterances, config.training_frames
    print(
        f"\ntraining on {num_utterances} utterances of {num_frames} frames\n"
        f"{'':<26}{'frames/s':>10}{'codes/s':>12}{'vs flattened':>14}{'peak memory':>14}"
    )
    for way, taken_s in seconds.items():
        frames_per_s = num_utterances * num_frames / taken_s
        print(
            f"{way:<26}{frames_per_s:>10.1f}"
            f"{frames_per_s * SHAPES[config.size]().num_codebooks:>12.0f}"
            f"{seconds['flattened'] / taken_s:>12.2f} x{peaks[way]:>14}"
        )


def _generation(
    model: Model, system: System, config: BenchmarkConfig, batch_size: int
) -> Callable[[], None]:
    shape = SHAPES[config.size]()

    def generate() -> None:
        codes_BTK = generate_codes(
            model, shape, batch_size, config.num_frames, static_cache=bool(system.static_cache)
        )
        assert codes_BTK.shape == (batch_size, config.num_frames, shape.num_codebooks)

    return generate


def _training(
    config: BenchmarkConfig, training: Training, device: torch.device
) -> Callable[[], float]:
    shape = SHAPES[config.size]()
    utterances = make_utterances(shape, config.training_utterances, config.training_frames)
    model = build_model(training.model, shape).to(device)
    step = TrainingStep(model, shape, utterances, training.optimizer)
    return lambda: step(training.depth_fraction)


def _generate_alone(config: BenchmarkConfig, system: System, batch_size: int) -> None:
    model = build_model(system.model, SHAPES[config.size]()).to(pick_device(config.device))
    _generation(model, system, config, batch_size)()


def _train_alone(config: BenchmarkConfig, training: Training) -> None:
    step = _training(config, training, pick_device(config.device))
    for _ in range(2):  # the optimizer's state exists from the second step on
        step()


def _peak(
    config: BenchmarkConfig, device: torch.device, function: Callable[..., None], *arguments: object
) -> str:
    if not config.memory:
        return "-"
    return show_peak(measure_peak(function, config, *arguments, device=device))


def _show(work: Work, frame_rate_hz: float) -> str:
    steps = [(work.large_steps, work.large_parameters), (work.small_steps, work.small_parameters)]
    return " + ".join(
        f"{count * frame_rate_hz:.0f} x {parameters / 1e6:.2f} M"
        for count, parameters in steps
        if count
    )


if __name__ == "__main__":
    run_command(main)
