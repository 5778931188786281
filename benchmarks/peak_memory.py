"""Peak memory of a function, run in a fresh process to exclude memory used before."""

import re
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.own_process import in_own_process

STATUS = Path("/proc/self/status")


def measure_peak(
    function: Callable[..., object],
    *arguments: object,
    device: torch.device,
    with_libraries: bool = False,
) -> int | None:
    """Run a function in another process, and measure its peak memory.

    Args:
        function: defined at module level, so that the other process can import it; it builds what
            it needs.
        arguments: arguments that it is called with.
        device: where it runs.
        with_libraries: whether to include the memory of the imported libraries.

    Returns:
        Bytes: of tensors on CUDA, else of the process, beyond the memory of the libraries that the
        function's module imports; None if it cannot be measured (neither CUDA nor Linux).
    """
    if device.type != "cuda" and not STATUS.exists():
        return None
    return in_own_process(_run, function, arguments, device, with_libraries)


def show_peak(num_bytes: int | None) -> str:
    """Format the result of `measure_peak` for a table."""
    return "unknown" if num_bytes is None else f"{num_bytes / 1e6:,.0f} MB"


def _run(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    device: torch.device,
    with_libraries: bool,
) -> int:
    on_cpu = device.type != "cuda"
    before = resident_bytes("VmRSS") if on_cpu and not with_libraries else 0
    function(*arguments)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not `getrusage`: its peak is inherited from the process that started this one.
    return max(0, resident_bytes("VmHWM") - before)


def resident_bytes(field: str) -> int:
    """This process's memory: "VmRSS" now, "VmHWM" at its peak; on Linux."""
    (kib,) = re.findall(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    return 1024 * int(kib)
