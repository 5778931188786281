"""How fast this device works: measured in about a minute, or assumed from its peak.

rates = calibrate(works, torch.device("cpu"), Path("runs"))
rates.seconds_of(work, rates.device)
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, decode_audio, resample
from pipeline.probes import seconds_of, time_product
from pipeline.work import Part, Timed, Work

CPU = torch.device("cpu")
BUDGET_S = 0.8  # of a call of a probe
# Where nothing is measured. A launch of a transformer's layer: about 20 kernels, which PyTorch
# starts one after another.
LAUNCH_S = 4e-4
AUDIO_X, DISK_BYTES_PER_S = 300.0, 2e8
START_S = 8.0  # a command imports its libraries, and loads models (on a laptop)
DISK_PROBE_BYTES = 2**26
CLIP_S, CLIP_RATE_HZ = 10, 24_000


@dataclass(frozen=True)
class Rates:
    """Speed of a device and of its host.

    Attributes:
        device: where models run.
        flops_per_s: of each part that was timed, by its name; empty if nothing was.
        default_flops_per_s, float32_flops_per_s: of every other part, in bfloat16 and in float32.
        audio_x: seconds of recordings that a core decodes and resamples in a second.
        disk_bytes_per_s: how fast files are written.
        took_s: seconds that the measurement took; 0 if there was none.
    """

    device: torch.device
    flops_per_s: dict[str, float]
    default_flops_per_s: float
    float32_flops_per_s: float
    audio_x: float
    disk_bytes_per_s: float
    took_s: float

    @property
    def is_measured(self) -> bool:
        """Whether they were measured on this machine."""
        return bool(self.took_s)

    def seconds_of_part(self, part: Part) -> float:
        """Time of a part on one device."""
        if part.name in self.flops_per_s:
            return part.flops / self.flops_per_s[part.name]
        if part.assumed:
            return part.flops / part.assumed
        is_float32 = part.dtype == torch.float32
        rate = self.float32_flops_per_s if is_float32 else self.default_flops_per_s
        return max(part.flops / rate, part.launches * LAUNCH_S)

    def seconds_of(self, work: Work) -> float:
        """Time of a step on one device: start, the models, recordings, and files.

        Threads decode beside a GPU; beside models on a CPU they take its time.
        """
        computing = sum(map(self.seconds_of_part, work.parts))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        if self.device.type == "cpu" and work.parts:
            computing += work.audio_s / self.audio_x / min(torch.get_num_threads(), cores)
        else:
            decoders = min(work.decoders, cores) if self.is_measured else work.decoders
            decoding = work.audio_s / self.audio_x / decoders
            computing = max(computing, decoding)
        return START_S + computing + work.disk / self.disk_bytes_per_s


def assume(device: torch.device, tflops: float, tflops_float32: float, utilization: float) -> Rates:
    """Rates of a device that is not here.

    Args:
        device: its kind.
        tflops, tflops_float32: its peaks, for dense products in bfloat16 and in float32.
        utilization: the share of the peak that models reach.
    """
    lower, full = (1e12 * peak * utilization for peak in (tflops, tflops_float32))
    return Rates(device, {}, lower, full, AUDIO_X, DISK_BYTES_PER_S, 0.0)


def calibrate(works: Sequence[Work], device: torch.device, folder: Path) -> Rates:
    """Time a little of every part on a device, of audio decoding, and of writing.

    Args:
        works: steps whose parts are timed; parts of one name once.
        device: where models run.
        folder: where files would be written; or the nearest folder above it that is there.
    """
    started = time.monotonic()
    product = time_product(device, torch.float32)
    peak = product.flops / product.seconds
    parts: dict[str, Part] = {}
    for work in works:
        for part in work.parts:
            parts.setdefault(part.name, part)
    rates: dict[str, float] = {}
    for number, (name, part) in enumerate(parts.items(), start=1):
        show = f"measuring {number}/{len(parts)}: {name}"
        print(f"\r{show:<78.78}", end="", file=sys.stderr, flush=True)
        with torch.random.fork_rng():
            timed: Timed = part.probe(device, BUDGET_S * peak)
        rates[name] = timed.flops / timed.seconds
    print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)
    audio_x, disk = measure_audio(), measure_disk(folder)
    return Rates(device, rates, peak, peak, audio_x, disk, time.monotonic() - started)


def measure_audio() -> float:
    """Seconds of a FLAC recording that one core decodes and resamples in a second."""
    noise_N = 0.1 * np.random.default_rng(0).standard_normal(CLIP_S * CLIP_RATE_HZ)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.flac"
        soundfile.write(path, noise_N, CLIP_RATE_HZ)

        def decode() -> None:
            clip = decode_audio(path)
            resample(clip.samples, clip.sample_rate_hz, GEMMA_SAMPLE_RATE_HZ)

        decode()  # libraries are loaded by the first call
        return CLIP_S / seconds_of(decode, CPU)


def measure_disk(folder: Path) -> float:
    """Bytes a second written into a folder, until they are on the disk."""
    content = os.urandom(DISK_PROBE_BYTES // 8)
    with tempfile.TemporaryFile(dir=existing_folder(folder)) as file:
        started = time.perf_counter()
        for _ in range(8):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return DISK_PROBE_BYTES / (time.perf_counter() - started)


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
