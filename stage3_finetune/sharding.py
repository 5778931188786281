"""Fine-tuning with Gemma's weights shared out over processes: FSDP2, by accelerate's configuration.

    accelerate launch --config_file stage3_finetune/fsdp.yaml -m stage3_finetune.train ...

A checkpoint has the same files with and without it, so a run may be resumed either way: adapter and
optimizer are put together again before they are saved (`whole`), and shared out after they are
loaded (`share_out`).
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from commands.errors import InputError
from commands.launchers import FSDP, is_on
from gemma4.weight_quantization import QuantizeName

# Variable of the launcher -> its name in accelerate's configuration, and why it must be false.
UNUSABLE = {
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "fsdp_activation_checkpointing",
        "it would draw other dropout when it recomputes; --gradient-checkpointing does it right",
    ),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": (
        "fsdp_cpu_ram_efficient_loading",
        "every process reads and checks the whole of --gemma first",
    ),
    "FSDP_OFFLOAD_PARAMS": (
        "fsdp_offload_params",
        "weights are kept on the device that computes with them",
    ),
}


def refuse_unusable_sharding(quantize: QuantizeName, *, train_embed_audio: bool) -> None:
    """Raise InputError if accelerate's configuration asks for FSDP in a way that cannot work.

    Args:
        quantize: precision of the base model's decoder.
        train_embed_audio: whether that linear map is trained in full.
    """
    if not is_on(FSDP):
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise InputError(
            "FSDP of version 1 cannot shard LoRA beside frozen weights: set fsdp_version: 2 in "
            "accelerate's configuration, as stage3_finetune/fsdp.yaml does"
        )
    if quantize != "none":
        raise InputError(
            f"--quantize {quantize} and FSDP do not go together: quantised weights cannot be "
            "sharded; leave one of them out"
        )
    if train_embed_audio:
        raise InputError(
            "--train-embed-audio and FSDP do not go together: where no row of a process has "
            "speech, the others would wait for its gradient"
        )
    for variable, (name, reason) in UNUSABLE.items():
        if is_on(variable):
            raise InputError(f"{name} in accelerate's configuration must be false: {reason}")


def shard_on_cpus(accelerator: Accelerator) -> None:
    """Make accelerate shard on CPUs too, where it is to shard at all.

    accelerate 1.15 knows FSDP on GPUs alone, and would silently fall back to copies of the model.
    """
    if is_on(FSDP) and accelerator.distributed_type == DistributedType.MULTI_CPU:
        plugin = FullyShardedDataParallelPlugin()
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        accelerator.state.__dict__.update(distributed_type=DistributedType.FSDP, fsdp_plugin=plugin)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, with their parts from all processes; all must call it."""
    return {name: _whole(tensor) for name, tensor in tensors.items()}


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """What is trained of a model, by name, as `whole` gives it."""
    return whole({name: p.detach() for name, p in model.named_parameters() if p.requires_grad})


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state as one that is not sharded would have it; all processes must call
    it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert any(isinstance(p, DTensor) for p in parameters), "FSDP was asked for, and did nothing"
    state = optimizer.state_dict()
    return {**state, "state": {number: whole(part) for number, part in state["state"].items()}}


def share_out(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with every tensor sharded as its parameter is.

    Args:
        state: as `whole_state` gives it, the same in every process.
        optimizer: the optimizer that will load it.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shared = {
        number: {name: _share_out(tensor, parameters[number]) for name, tensor in part.items()}
        for number, part in state["state"].items()
    }
    return {**state, "state": shared}


def _whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def _share_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor  # such as the number of steps
    mesh = parameter.device_mesh
    return distribute_tensor(tensor.to(mesh.device_type), mesh, parameter.placements)
