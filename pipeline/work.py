"""What a step of the plan consists of: parts that are timed, and bytes.

A part names a probe, which runs a little of the same work on a device; the time of the whole is in
proportion to its operations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.plan_sizes import Memory


@dataclass(frozen=True)
class Timed:
    """Operations that a probe computed, and the seconds that it took."""

    flops: float
    seconds: float


# Runs a little of the work on a device, about as much as it can do in a second, which is told in
# operations.
Probe = Callable[[torch.device, float], Timed]


@dataclass(frozen=True)
class Part:
    """Work of one kind.

    Attributes:
        name: what is timed; parts of one name are timed once, in the shape of the first.
        flops: operations in all.
        probe: times a little of it.
        launches: layers that run one after another, in all: a fast device may wait for their
            launches.
        dtype: precision of its products, by which a device that is not here is judged.
        assumed: operations a second where nothing is timed, for work of the CPU; None for work of
            the device.
    """

    name: str
    flops: float
    probe: Probe
    launches: float = 0.0
    dtype: torch.dtype = torch.float32
    assumed: float | None = None


@dataclass(frozen=True)
class Work:
    """A step of the plan, before anything is timed.

    Attributes:
        command: its dotted name.
        amount: what it works on, in words.
        parts: what the device computes.
        audio_s: seconds of recordings that CPU cores decode.
        decoders: threads or processes that decode.
        memory: at the peak of one process.
        disk: bytes that it writes.
        num_shards: how many parts `--part` can make of it; 1 if it is not divided.
        faults: why it cannot run at all.
    """

    command: str
    amount: str
    parts: tuple[Part, ...]
    memory: Memory
    disk: int
    audio_s: float = 0.0
    decoders: int = 1
    num_shards: int = 1
    faults: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """Operations in all."""
        return sum(part.flops for part in self.parts)
