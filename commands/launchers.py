"""Join the other processes of `accelerate launch` or torchrun, in the ways that are supported.

    accelerator = join_processes(device, dtype)

What the processes then do together is in `processes.py`.
"""

import datetime
import os
from typing import TYPE_CHECKING

import torch

from commands.device import accelerate_uses
from commands.errors import InputError
from commands.resumed_settings import num_processes

if TYPE_CHECKING:
    from accelerate import Accelerator

# The first process measures and saves alone. The defaults (10 minutes for NCCL, 30 for gloo) are
# less than that takes on a large dev set.
PATIENCE = datetime.timedelta(hours=12)
# What a launcher's configuration file sets, and why only some of it can be used.
DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
MEGATRON = "ACCELERATE_USE_MEGATRON_LM"
FSDP = "ACCELERATE_USE_FSDP"


def join_processes(device: torch.device, dtype: torch.dtype = torch.float32) -> "Accelerator":
    """accelerate as a training uses it; joins the other processes of a launcher, if there are any.

    Args:
        device: from `pick_device`.
        dtype: bfloat16 trains in mixed precision.

    Raises:
        InputError: the launcher was told to shard the model, or to use another engine.
    """
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    refuse_engines()
    if is_on(FSDP):
        raise InputError(
            "FSDP shards the model of stage3_finetune.train alone: the others fit on one GPU; "
            "start this command without FSDP in accelerate's configuration"
        )
    with accelerate_uses(device):
        return Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if dtype == torch.bfloat16 else "no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )


def join_group(device: torch.device) -> None:
    """Join the other processes of a launcher, where accelerate is set up later, as trl does it."""
    from accelerate import PartialState

    refuse_engines()
    if num_processes() > 1:
        with accelerate_uses(device):
            PartialState(cpu=device.type == "cpu", timeout=PATIENCE)


def refuse_engines() -> None:
    """Raise InputError if accelerate's configuration asks for another engine than torch."""
    if is_on(DEEPSPEED):
        # trl 1.16 with LoRA and ZeRO-3; see `_training_arguments` of stage 3.
        raise InputError(
            "DeepSpeed: not supported: trl would turn on reentrant checkpointing, whose gradients "
            "are wrong on Gemma 4; use DDP, or FSDP for stage3_finetune.train"
        )
    if is_on(MEGATRON):
        raise InputError("Megatron-LM: not supported: use DDP, or FSDP for stage3_finetune.train")


def is_on(variable: str) -> bool:
    """Whether a variable that accelerate's launcher sets is true."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
