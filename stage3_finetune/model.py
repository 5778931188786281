"""Gemma 4 that also takes speech embeddings, with or without a LoRA adapter.

model, tokenizer = load_finetuned("google/gemma-4-E4B-it", Path("runs/finetune"), ...)
"""

# B utterances, T frames (25 per second), D embedding width (1024)

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from commands.finished_folder import open_input, read_provenance
from commands.json_files import read_json, read_json_as
from commands.origins import Origin
from commands.schema import shorten
from commands.setting_types import LayerWidth, PositiveInt, Probability
from commands.sources import ADAPTER, Sources, merge
from commands.tensor_files import TensorKind, read_tensors, refuse_non_finite_weights
from data_manifests.language import FIRST_NORMALIZATION, refuse_other_language
from gemma4.base_model import gemma_sources
from gemma4.gemma import load_gemma
from gemma4.kinds import AnyGemma
from gemma4.speech_embeddings import accept_embeddings
from gemma4.speech_encoder import model_origin
from gemma4.weight_quantization import QuantizeName

# Every linear layer of the decoder's attention and MLP. The vision and audio towers are left out:
# their linear layers are of a class that peft 0.21 cannot wrap.
LORA_TARGETS = (
    r".*language_model\.layers\.\d+\."
    r"(self_attn\.(q_proj|k_proj|v_proj|o_proj)|mlp\.(gate_proj|up_proj|down_proj))"
)
# The two files of an adapter, as peft names them.
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_TENSORS = "adapter_model.safetensors"
# Adapter settings that record where it came from and do not affect what it does.
NOT_COMPARED = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping")
# In `config.json` of a merged checkpoint: the target it was trained with ("chain" or "direct").
TARGET_KEY = "speech_answer_target"
# And the number of calls of functions in the dialogues it was trained on.
CALLS_KEY = "num_trained_calls"


def lora_config(
    rank: int, alpha: int, dropout: float, *, train_embed_audio: bool = False
) -> LoraConfig:
    """LoRA on the decoder's attention and MLP; with `train_embed_audio`, the linear map that
    projects speech into the decoder (`embed_audio`) is also trained in full."""
    return LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=LORA_TARGETS,
        modules_to_save=["embed_audio"] if train_embed_audio else None, task_type="CAUSAL_LM",
    )  # fmt: skip


def load_finetuned(
    gemma: str,
    finetune: Path | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: QuantizeName = "none",
) -> tuple[AnyGemma, PreTrainedTokenizerBase]:
    """Load Gemma for answering: the base model, or base and adapter.

    Args:
        gemma: hub name or folder of the base model.
        finetune: folder written by `python -m stage3_finetune.train`; None for the base model
            alone.
        device: where the model runs.
        dtype: precision of its weights.
        quantize: precision of the base model's decoder.

    Returns:
        The model, frozen, in evaluation mode, taking the frames of its `encoder_of`; and its
        tokenizer.

    Raises:
        InputError: either cannot be loaded, the adapter belongs to another model or is incomplete,
            or its weights are not finite.
    """
    if finetune is not None:
        open_input(finetune, made_by="stage3_finetune.train", flag="--finetune")
    base, tokenizer = load_gemma(gemma, device=device, dtype=dtype, quantize=quantize)
    model = accept_embeddings(base)
    if finetune is not None:
        model = add_adapter(model, finetune, gemma=gemma)
    return model.eval().requires_grad_(False), tokenizer


def finetuned_origins(
    gemma: str,
    model: AnyGemma | PeftModel,
    finetune: Path | None,
    *,
    flag: str = "--finetune",
) -> dict[str, Origin]:
    """What a Gemma and its adapter belong to, for `refuse_mixture`.

    Args:
        gemma: hub name or folder of the base model.
        model: with or without adapters.
        finetune: folder written by `python -m stage3_finetune.train`; None without an adapter.
        flag: the flag that named it.
    """
    origins = {f"--gemma {gemma}": model_origin(base_of(model))}
    if finetune is not None:
        origins[f"{flag} {finetune}"] = read_provenance(finetune).origin
    return origins


def base_of(model: AnyGemma | PeftModel) -> AnyGemma:
    """The Gemma inside, if there are adapters around it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def merge_adapter(model: AnyGemma | PeftModel) -> AnyGemma | PeftModel:
    """Put the adapter of a model into its weights, in place: it then decodes faster.

    Args:
        model: from `load_finetuned`.

    Returns:
        The Gemma inside, if its decoder is in float32. Otherwise the model as it is: less precise
        weights would round much of so small a difference away.
    """
    if not isinstance(model, PeftModel):
        return model
    decoder = base_of(model).model.language_model
    if any(weight.dtype != torch.float32 for weight in decoder.parameters()):
        return model
    return model.merge_and_unload()


def finetuned_sources(gemma: str, finetune: Path | None) -> Sources:
    """What a Gemma and its adapter were made from; arguments as of `finetuned_origins`."""
    adapter = read_provenance(finetune).made_from(ADAPTER) if finetune else ()
    return merge(gemma_sources(gemma), adapter)


def add_adapter(
    model: AnyGemma | PeftModel,
    finetune: Path,
    *,
    gemma: str,
    name: str = "default",
) -> PeftModel:
    """Put a trained adapter on a model, in place, and switch to it; the base is not copied.

    Args:
        model: the base model, or one that has other adapters already.
        finetune: folder written by `python -m stage3_finetune.train`.
        gemma: hub name or folder of the base model, for the message.
        name: name of the adapter among those of the model.

    Returns:
        The model with this adapter active, frozen, in evaluation mode.

    Raises:
        InputError: the adapter belongs to another model, was made for another language, is
            incomplete, or is not finite.
    """
    made_for = read_provenance(finetune).normalization or FIRST_NORMALIZATION
    refuse_other_language(made_for, what=f"--finetune {finetune}")
    adapter = finetune / "adapter"
    config = read_adapter_config(adapter)
    if isinstance(model, PeftModel):
        model.add_adapter(name, config)
        model.set_adapter(name)
    else:
        model = get_peft_model(model, config, adapter_name=name)
    try:
        tensors = read_adapter_tensors(adapter, model, name)
    except InputError as error:
        raise InputError(
            f"--finetune {finetune} does not fit --gemma {gemma}, or is damaged: {error}"
        ) from None
    set_peft_model_state_dict(model, tensors, adapter_name=name)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class AdapterShape:
    """The entries of `adapter_config.json` that a run can set; the rest are always the same."""

    r: LayerWidth
    lora_alpha: PositiveInt
    lora_dropout: Probability
    modules_to_save: list[str] | None


def read_adapter_config(adapter: Path) -> LoraConfig:
    """Read an adapter's settings.

    Raises:
        InputError: they cannot be read, or differ from what `lora_config` makes: peft would accept
            them, and the adapter would not be the one that was trained.
    """
    path = adapter / ADAPTER_CONFIG
    shape = read_json_as(path, AdapterShape, ignore_unknown=True)
    config = lora_config(
        shape.r,
        shape.lora_alpha,
        shape.lora_dropout,
        train_embed_audio=shape.modules_to_save is not None,
    )
    found, expected = read_json(path), config.to_dict()
    for name in sorted((found.keys() & expected.keys()) - set(NOT_COMPARED)):
        if found[name] != expected[name]:
            raise InputError(
                f"{path}: {name!r} must be {expected[name]!r}, got {shorten(found[name])}"
            )
    return config


def read_adapter_tensors(
    adapter: Path, model: PeftModel, name: str = "default"
) -> dict[str, Tensor]:
    """Read an adapter's tensors, which must be exactly those of the model's adapter, and finite.

    peft 0.21 only warns of missing tensors, and the base model would answer.
    """
    path = adapter / ADAPTER_TENSORS
    own = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    kinds = {name: TensorKind(None, tuple(value.shape)) for name, value in own.items()}
    tensors = read_tensors(path, kinds)
    refuse_non_finite_weights(tensors.items(), where=str(path))
    return tensors
