"""Mixed precision on the CPU, where the demo's models are trained.

with half_precision(): loss = gemma(**batch).loss
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from gemma4.float32_products import needs_float32

CPU = torch.device("cpu")


def half_precision() -> AbstractContextManager[object]:
    """bfloat16 autocast, but float32 on a CPU without instructions for bfloat16: the backward pass
    of six tiny steps of the demo's Gemma took 8.4 s there in bfloat16, and 0.6 s in float32 (one
    core of an AMD EPYC 7003, torch 2.13)."""
    return (
        nullcontext()
        if needs_float32(CPU, torch.bfloat16)
        else torch.autocast("cpu", torch.bfloat16)
    )


def describe_precision() -> str:
    """What `half_precision` gives on this machine, for the record of a run."""
    return "float32" if needs_float32(CPU, torch.bfloat16) else "float32, bfloat16 autocast"
