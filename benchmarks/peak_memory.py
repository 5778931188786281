"""Peak memory of a function, run by a fresh process: its own, not that of all that came before."""

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def measure_peak(
    function: Callable[..., object],
    *arguments: object,
    device: torch.device,
    with_libraries: bool = False,
) -> int | None:
    """Run a function in another process, and say how much memory it took.

    Args:
        function: of a module, so that the other process can import it; what it needs it builds.
        arguments: sent to it.
        device: where it runs.
        with_libraries: count also what the imported libraries hold.

    Returns:
        Bytes: on CUDA of tensors, else of the process, above what the libraries imported by the
        function's module hold; None where neither is known (neither CUDA nor Linux).
    """
    if device.type != "cuda" and not STATUS.exists():
        return None
    # Forked, it would start with this process's memory and with its threads' locks as they stand.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, function, arguments, device, with_libraries).result()


def show_peak(num_bytes: int | None) -> str:
    """As a table shows what `measure_peak` found."""
    return "unknown" if num_bytes is None else f"{num_bytes / 1e6:,.0f} MB"


def _run(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    device: torch.device,
    with_libraries: bool,
) -> int:
    on_cpu = device.type != "cuda"
    before = _resident_bytes("VmRSS") if on_cpu and not with_libraries else 0
    function(*arguments)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not `getrusage`: the peak it gives is inherited from the process that started this one.
    return max(0, _resident_bytes("VmHWM") - before)


def _resident_bytes(field: str) -> int:
    (kib,) = re.findall(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    return 1024 * int(kib)
