"""Start Speechless from a small language model (`--init-from`) instead of from random weights.

    base = load_base_model("HuggingFaceTB/SmolLM2-135M")
    model = Speechless(SpeechlessConfig(**temporal_shape(base)))
    copy_layers(base, model)

The layers and the last norm of a `LlamaForCausalLM` become those of the temporal transformer, which
is of the same class and takes its shape. Its vocabulary is not used: Speechless reads characters
and codes, whose embeddings start random. The trained model does not need the one it started from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from commands.errors import InputError
from commands.json_files import read_json
from commands.pretrained import one_line_errors, refuse_missing_tensors, refuse_other_size
from commands.tensor_files import refuse_non_finite_weights
from stage2_speechless.model import Speechless

# All settings except width, layers and heads that determine what a Llama's layers compute.
LAYER_SETTINGS = (
    "intermediate_size", "num_key_value_heads", "head_dim", "hidden_act", "attention_bias",
    "mlp_bias", "rms_norm_eps", "rope_parameters", "max_position_embeddings",
)  # fmt: skip
# The other types in transformers 5.23, "dynamic" and "longrope", depend on the longest sequence of
# the batch: an utterance would get different codes alone and in a batch.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class BaseModel:
    """A language model to start from.

    Attributes:
        llama: its transformer, float32, on the CPU.
        revision: commit it was downloaded at; None for a local folder.
    """

    llama: LlamaModel
    revision: str | None


def load_base_model(name: str) -> BaseModel:
    """Load a Llama language model.

    Args:
        name: local folder, or hub name, which is downloaded.

    Raises:
        InputError: not found, of another kind, tensors are missing, or rotary positions that depend
            on the batch.
    """
    with one_line_errors("--init-from", name):
        kind, revision = _read_kind(name)
        if kind == "llama":
            config = LlamaConfig.from_pretrained(name, revision=revision or "main")
            refuse_other_size(name, config, LlamaForCausalLM)
            model, report = LlamaForCausalLM.from_pretrained(
                name, dtype=torch.float32, revision=revision or "main", trust_remote_code=False,
                use_safetensors=True, output_loading_info=True,
            )  # fmt: skip
    if kind != "llama":
        found = f"is of kind {kind!r}" if kind else "is not a transformers model"
        raise InputError(
            f"--init-from {name} {found}: only 'llama' (LlamaForCausalLM) is supported"
        )
    # The vocabulary's tensors are not used, so they need not exist.
    refuse_missing_tensors("--init-from", name, report, used=".layers.")
    rope_type = model.config.rope_parameters["rope_type"]
    if rope_type not in ROPE_TYPES:
        raise InputError(
            f"--init-from {name} has rotary positions of type {rope_type!r}; supported: "
            f"{', '.join(ROPE_TYPES)}"
        )
    refuse_non_finite_weights(model.model, where=f"--init-from {name}")
    return BaseModel(model.model, revision)


def temporal_shape(base: BaseModel) -> dict[str, Any]:
    """The fields of `SpeechlessConfig` that make the temporal transformer what `base` is."""
    config = base.llama.config
    return {
        "width": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "llama": {name: config.to_dict()[name] for name in LAYER_SETTINGS},
    }


def copy_layers(base: BaseModel, model: Speechless) -> None:
    """Copy layers and last norm into a Speechless of the same `temporal_shape`, in place."""
    model.temporal.layers.load_state_dict(base.llama.layers.state_dict())
    model.temporal.norm.load_state_dict(base.llama.norm.state_dict())


def _read_kind(name: str) -> tuple[str | None, str | None]:
    """A model's type as transformers names it, None if it is not one of its own, and the model's
    commit on the hub."""
    if Path(name).is_dir():
        return read_json(Path(name) / "config.json").get("model_type"), None
    path = Path(hf_hub_download(name, "config.json"))
    # The hub's cache is laid out as snapshots/COMMIT/config.json.
    return read_json(path).get("model_type"), path.parent.name
