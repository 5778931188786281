"""How much memory there is, and whether stage 3 would fit into it."""

import psutil
import torch

from commands.errors import InputError
from gemma4.memory_plan import GIB, MemoryPlan, load_gemma_config, plan_memory
from gemma4.weight_quantization import QuantizeName
from pipeline.preflight_checks import Check
from stage3_finetune.training_settings import TrainConfig

# Positions of a row: about as many as half a minute of speech with its answer.
FINETUNE_TOKENS = 600


def memory_check(gemma: str, device: torch.device, dtype: torch.dtype) -> Check:
    """Whether a fine-tuning run of stage 3 with its defaults would fit."""

    def needed(quantize: QuantizeName) -> MemoryPlan:
        return plan_memory(
            load_gemma_config(gemma),
            adapter=TrainConfig.lora.adapter(),
            device=device, dtype=dtype,
            batch_size=TrainConfig.batch_size, num_tokens=FINETUNE_TOKENS,
            gradient_checkpointing=True, quantize=quantize,
        )  # fmt: skip

    def fits() -> str:
        plan, there = needed("none"), memory_there(device) / GIB
        if plan.total / GIB > there:
            raise InputError(
                f"{plan.total / GIB:.1f} GiB needed, {there:.1f} there "
                f"({needed('4bit').total / GIB:.1f} with --quantize 4bit)"
            )
        host = host_memory_there() / GIB
        if plan.host / GIB > host:
            raise InputError(f"{plan.host / GIB:.1f} GiB of the host needed, {host:.1f} there")
        return (
            f"{plan.total / GIB:.1f} GiB needed, {there:.1f} there; of the host "
            f"{plan.host / GIB:.1f}, {host:.1f} there"
        )

    remedy = "stage3_finetune.train --quantize 4bit, --batch-size 1, or a smaller Gemma (E2B)"
    return Check("memory to fine-tune, with the defaults", fits, remedy)


def memory_there(device: torch.device) -> int:
    """Total memory of a device in bytes, in use or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def host_memory_there() -> int:
    """Bytes of this machine's memory that a process could have in place of this one."""
    return psutil.virtual_memory().available + psutil.Process().memory_info().rss
