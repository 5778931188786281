"""Estimate how much memory a fine-tuning run needs, before anything is loaded.

    plan = plan_memory(config, adapter=lora_config(16, 16, 0.0), device=device,
                       dtype=torch.bfloat16, batch_size=2, num_tokens=600,
                       gradient_checkpointing=True)
    print(plan.as_table())

The model is built on the meta device, where tensors have shapes but no content: weights are those
that peft leaves frozen or adds; activations are what the decoder's own forward pass keeps for the
backward pass. So the configuration of any Gemma 4 checkpoint is enough. `train` also measures the
peak, and records both.
"""

# B rows, S text positions, L decoder layers, D decoder width

import copy
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig

from commands.pretrained import one_line_errors
from gemma4.kinds import KINDS, AnyGemmaConfig, kind_of
from gemma4.weight_quantization import NOT_QUANTIZED, QuantizeName

GIB = 2**30
FLOAT32_BYTES = 4
# Bytes per weight, with its share of the scales: at 8 bits one float32 per row, which is
# negligible; at 4 bits one scale per block of 64, itself stored in 8 bits.
QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 1 / 64}
# trl's fused head computes logits in tiles of so many positions and so many tokens (trl 1.16:
# TOKEN_CHUNK_SIZE in kernels/chunked_logprob.py, _CHUNKED_LOGPROB_CHUNK_SIZE in trainer/utils.py).
# On GPUs, only labelled positions have logits, and their gradients overwrite them.
TILE_POSITIONS, TILE_TOKENS = 4096, 32768
# On the CPU, torch's own operations keep so many copies of a tile in float32 at a time (counted
# in the backward pass: 9.6 in float32, 8.6 in bfloat16).
TILE_COPIES_ON_CPU = 9.6
# So many tensors of a checkpoint are on their way to a GPU at a time (transformers 5.23:
# GLOBAL_WORKERS in core_model_loading.py); one where they are quantised.
LOADED_AT_A_TIME = 4
LIBRARIES = GIB // 2  # measured with torch for CPUs; what CUDA takes of the host is not counted


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of one process, in bytes: on its device, and of the host.

    Attributes:
        weights: frozen weights, in the run's precision, or quantised.
        adapter: LoRA's weights, float32.
        gradients: the adapter's gradients, float32.
        optimizer: AdamW's two moments of the adapter, float32.
        activations: activations kept for the backward pass of the longest batch.
        logits: logits of the part of a batch that is computed at once, and their gradients.
        host: memory of the host at its peak: all of it where the device has no memory of its own;
            else what is on its way to the device while the model is loaded. Batches are made in
            the same process, and are small.
        num_trained: how many weights LoRA adds.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    host: int
    num_trained: int

    @property
    def total(self) -> int:
        """Sum of all parts on the device."""
        return (
            self.weights + self.adapter + self.gradients + self.optimizer + self.activations
            + self.logits
        )  # fmt: skip

    def as_table(self) -> str:
        """The plan as a readable table, in GiB: parts and sum of the device, and the host."""
        parts = ("weights", "adapter", "gradients", "optimizer", "activations", "logits")
        names = (*parts, "total", "host")
        lines = [f"  {name:<12}{getattr(self, name) / GIB:8.2f} GiB" for name in names]
        return "\n".join(["memory planned:", *lines])


def load_gemma_config(name: str) -> AnyGemmaConfig:
    """Read a checkpoint's configuration, without its weights.

    Raises:
        InputError: the checkpoint is not found, or is not a Gemma 4.
    """
    with one_line_errors("--gemma", name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type not in KINDS:
            raise ValueError(f"is a {config.model_type}, not a full Gemma 4 that hears")
        return config


def plan_memory(
    config: AnyGemmaConfig,
    *,
    adapter: LoraConfig,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    num_tokens: int,
    gradient_checkpointing: bool,
    quantize: QuantizeName = "none",
) -> MemoryPlan:
    """Count the memory that a run of `stage3_finetune.train` will take.

    Args:
        config: configuration of the base model.
        adapter: what is trained, and beside it nothing.
        device: where it will run; it need not be there.
        dtype: precision of the frozen weights.
        batch_size: rows per forward pass, B.
        num_tokens: positions of the longest row, S, including slots for speech.
        gradient_checkpointing: whether each layer keeps only its input and recomputes the rest in
            the backward pass.
        quantize: precision of the decoder's linear layers.
    """
    counts = _count(config, adapter, dtype, batch_size, num_tokens)
    frozen = float(counts.frozen)
    if quantize != "none":
        frozen -= counts.quantizable * (dtype.itemsize - QUANTIZED_BYTES[quantize])
    kept = counts.kept
    if gradient_checkpointing:
        num_layers = config.text_config.num_hidden_layers
        states = batch_size * num_tokens * config.text_config.hidden_size * dtype.itemsize
        kept = num_layers * states + kept // num_layers
    num_trained = counts.trained
    plan = MemoryPlan(
        weights=round(frozen),
        adapter=FLOAT32_BYTES * num_trained,
        gradients=FLOAT32_BYTES * num_trained,
        optimizer=2 * FLOAT32_BYTES * num_trained,
        activations=kept,
        logits=plan_logits(batch_size * num_tokens, config.text_config.vocab_size, device, dtype),
        host=LIBRARIES,
        num_trained=num_trained,
    )
    if device.type in ("cpu", "mps"):
        return replace(plan, host=LIBRARIES + plan.total)
    loading = sum(counts.largest[: 1 if quantize != "none" else LOADED_AT_A_TIME])
    return replace(plan, host=LIBRARIES + loading)


def plan_logits(
    num_positions: int, vocab_size: int, device: torch.device, dtype: torch.dtype
) -> int:
    """Bytes of the logits that trl has at a time, if every position has a label."""
    tile = min(num_positions, TILE_POSITIONS) * min(vocab_size, TILE_TOKENS)
    if device.type in ("cuda", "xpu"):
        return tile * dtype.itemsize
    return round(tile * TILE_COPIES_ON_CPU * FLOAT32_BYTES)


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes: of its tensors on CUDA, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True)
class _Counts:
    """What a plan is made of.

    Attributes:
        frozen: bytes of the weights that are not trained; tied ones count once.
        quantizable: how many of these weights quantisation would store in fewer bits.
        trained: how many weights the adapter adds.
        largest: bytes of the base model's tensors, in falling order.
        kept: bytes that the decoder keeps for its backward pass, each layer in full.
    """

    frozen: int
    quantizable: int
    trained: int
    largest: tuple[int, ...]
    kept: int


_counts: dict[tuple[object, ...], _Counts] = {}


def _count(
    config: AnyGemmaConfig,
    adapter: LoraConfig,
    dtype: torch.dtype,
    batch_size: int,
    num_tokens: int,
) -> _Counts:
    """Build a model with its adapter on the meta device, and count; what was counted before is
    remembered, as it takes a second or two."""
    key = (
        config.to_json_string(use_diff=False), repr(adapter), dtype, batch_size, num_tokens
    )  # fmt: skip
    if key in _counts:
        return _counts[key]
    with torch.device("meta"):
        kind = kind_of(config)
        base = kind.model._from_config(config, dtype=dtype, attn_implementation=kind.attention)
    sizes = sorted((p.numel() * dtype.itemsize for p in base.parameters()), reverse=True)
    adapter = copy.copy(adapter)
    adapter.init_lora_weights = False  # no content to initialise: half the time of a plan
    model = get_peft_model(base, adapter)
    quantizable = {
        id(module.weight): module.weight.numel()
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear)
        and not any(name.startswith(kept) for kept in NOT_QUANTIZED)
        and not module.weight.requires_grad
    }
    parameters = list(model.parameters())
    _counts[key] = _Counts(
        frozen=sum(p.numel() * p.element_size() for p in parameters if not p.requires_grad),
        quantizable=sum(quantizable.get(id(p), 0) for p in parameters if not p.requires_grad),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        largest=tuple(sizes),
        kept=_kept_by_forward(base.model.language_model, batch_size, num_tokens),
    )
    return _counts[key]


def _kept_by_forward(decoder: Any, batch_size: int, num_tokens: int) -> int:
    """Bytes that a decoder on the meta device keeps for its backward pass, without weights."""
    ids_BS = torch.zeros(batch_size, num_tokens, dtype=torch.long, device="meta")
    # Pass masks: transformers would read the ids to make them, and meta tensors have no content.
    mask_B1SS = torch.ones(batch_size, 1, num_tokens, num_tokens, dtype=torch.bool, device="meta")
    masks = dict.fromkeys(set(decoder.config.layer_types), mask_B1SS)
    decoder.train()
    return bytes_kept(
        decoder, lambda: decoder(input_ids=ids_BS, attention_mask=masks, use_cache=False)
    )


def bytes_kept(module: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that a forward pass keeps for the backward pass, without the module's weights.

    Args:
        module: on any device; on the meta device nothing is computed.
        forward: runs it.
    """
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # or a later storage could reuse its number
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        forward()
    return sum(kept.values())
