"""Choice of device and precision, number of threads, and random seeds."""

import contextlib
import hashlib
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator

from commands.errors import InputError

DtypeName = Literal["auto", "float32", "bfloat16"]
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?|xpu(:\d{1,3})?")


def _refuse_other_device(name: str) -> str:
    if not DEVICE.fullmatch(name):
        raise ValueError(f"must be auto, cpu, cuda, cuda:1, mps or xpu, got {name!r}")
    return name


DeviceName = Annotated[str, AfterValidator(_refuse_other_device)]


def pick_device(name: str) -> torch.device:
    """Resolve `--device`.

    Args:
        name: "auto" (CUDA, else Apple's MPS, else CPU), or a torch device name: "cpu", "cuda:1".

    Raises:
        InputError: torch does not know it, or this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--device {name}: not available here ({reason})") from None
    return device


def pick_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """Resolve `--dtype`: "auto" is bfloat16 on CUDA and float32 elsewhere.

    Never float16: Gemma's activations overflow it.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


@contextlib.contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Make torch use `count` threads inside a `with` block or a decorated function."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 in full precision inside a `with` block, on every GPU.

    torch 2.13 computes float32 convolutions on NVIDIA's Ampere and later in TF32 by default, with
    10 instead of 23 bits of mantissa: other codes than on a CPU.
    """
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    backends = (convolutions, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def describe_machine(device: torch.device, dtype: torch.dtype | str) -> dict[str, Any]:
    """Facts about the machine on which the last bits of a result depend, for `OutputFolder.record`.

    Args:
        device: where the command computes.
        dtype: its precision, as torch names it.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    cpu = f"{_processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": str(device),
        "dtype": str(dtype),
        "cpu": f"{cpu}, ONEDNN_MAX_CPU_ISA={limit}" if limit else cpu,
        "num_threads": torch.get_num_threads(),
    }


def _processor_name() -> str:
    """The processor's name: read from a file on Linux, asked of Python elsewhere."""
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8", errors="replace").split("\n"):
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch for one training step.

    Randomness is a function of (seed, step, process), so that a resumed run draws what the
    uninterrupted one would have drawn, without any generator state in the checkpoint.
    """
    torch.manual_seed(derive_seed(seed, step, rank))


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from several numbers or names, the same on every machine and in every
    process."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
