"""Choice of device and precision, number of threads, and random seeds.

device = pick_device(config.device)        # one device, whatever is visible
accelerator = join_processes(device)       # launchers.py
"""

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator

from commands.errors import InputError
from commands.seeds import derive_seed

DtypeName = Literal["auto", "float32", "bfloat16"]
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?|xpu(:\d{1,3})?")


def _refuse_other_device(name: str) -> str:
    if not DEVICE.fullmatch(name):
        raise ValueError(f"must be auto, cpu, cuda, cuda:1, mps or xpu, got {name!r}")
    return name


DeviceName = Annotated[str, AfterValidator(_refuse_other_device)]


def pick_device(name: str) -> torch.device:
    """Resolve `--device` to the one device of this process, and make it torch's current one.

    A process uses one GPU, however many are visible: number 0, or the one that is named. Processes
    that torchrun or `accelerate launch` started take the GPU of their own number (`LOCAL_RANK`),
    so this must be called before anything is loaded.

    Args:
        name: "auto" (CUDA, else Apple's MPS, else CPU), or a torch device name: "cpu", "cuda:1".

    Returns:
        The device; a GPU always with its index.

    Raises:
        InputError: torch does not know it, this machine does not have it, or not one for each of
            several processes.
    """
    if name == "auto":
        device = _best_device()
    else:
        try:
            device = torch.device(name)
            refuse_absent(device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"--device {name}: not available here ({reason})") from None
    if "LOCAL_RANK" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        device = _own_device(name, device)
    if device.type not in ("cuda", "xpu"):
        return device
    device = torch.device(device.type, device.index or 0)
    # Triton's kernels, NCCL and a plain "cuda" take the current one.
    torch.get_device_module(device).set_device(device)
    return device


def refuse_absent(device: torch.device) -> None:
    """Raise whatever torch raises for a device that is not there."""
    torch.empty(0, device=device)


def _best_device() -> torch.device:
    """What "auto" is on this machine."""
    # Set by `accelerate launch --cpu`.
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"):
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _own_device(name: str, device: torch.device) -> torch.device:
    """The device of a process that a launcher started, perhaps among several."""
    if device.index is not None:
        raise InputError(
            f"--device {name} under torchrun or accelerate launch: each process takes the GPU of "
            "its own number; leave it out, and choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    if device.type == "cpu":
        return device
    if device.type == "mps":
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return device
        raise InputError(
            f"--device {name}: several processes cannot work together on MPS; start one, or name "
            "--device cpu"
        )
    number = int(os.environ.get("LOCAL_RANK", "0"))
    num_visible = torch.get_device_module(device).device_count()
    # Not the remainder, as accelerate would take: its DistributedDataParallel takes the number.
    if number >= num_visible:
        raise InputError(
            f"--device {name}: process {number} of this machine sees {num_visible} GPU(s); start "
            "one process for each, or set LOCAL_RANK=0 where each sees its own alone"
        )
    return torch.device(device.type, number)


@contextlib.contextmanager
def accelerate_uses(device: torch.device) -> Iterator[None]:
    """Make accelerate take this device where it is set up inside a `with` block.

    accelerate 1.x has no argument for it: it would take GPU 0, or that of `LOCAL_RANK`.
    """
    variable = "ACCELERATE_TORCH_DEVICE"
    before = os.environ.get(variable)
    os.environ[variable] = str(device)
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


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

    Randomness is a function of seed and step, so that a resumed run draws what the uninterrupted
    one would have drawn, without any generator state in the checkpoint.

    Args:
        rank: number of the process, for what each is to draw for itself: dropout inside layers.
    """
    torch.manual_seed(derive_seed(seed, step, rank))
