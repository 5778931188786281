"""Tensors that a checkpoint's decoder never uses: keys and values of layers that share others'.

The last `num_kv_shared_layers` layers of Gemma 4 E2B and E4B take keys and values from earlier
layers. The published checkpoints hold weights for their own all the same; transformers 5.23 neither
loads nor saves them. vLLM before its pull request 54917 (September 2026) refuses a checkpoint
without them: "weights were not initialized from checkpoint".
"""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from transformers import Gemma4Config
from transformers.utils import cached_file

from commands.json_files import read_json
from commands.pretrained import one_line_errors

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_unused_tensors(name: str, config: Gemma4Config) -> dict[str, Tensor]:
    """Read the unused tensors of a checkpoint.

    Args:
        name: hub name or folder.
        config: its configuration.

    Returns:
        Tensors by name, on the CPU, as they are stored; none where the checkpoint has none, as one
        that transformers wrote.

    Raises:
        InputError: a file cannot be read.
    """
    wanted = unused_tensor_names(config)
    tensors: dict[str, Tensor] = {}
    with one_line_errors("--gemma", name):
        for file, names in _files_of(name, wanted).items():
            with safe_open(file, "pt") as opened:
                present = set(opened.keys())
                tensors |= {name: opened.get_tensor(name) for name in names if name in present}
    return tensors


def unused_tensor_names(config: Gemma4Config) -> list[str]:
    """Names of the tensors that the published checkpoint of this configuration holds in vain."""
    text = config.text_config
    num_layers, num_shared = text.num_hidden_layers, text.num_kv_shared_layers
    return [
        f"model.language_model.layers.{layer}.self_attn.{part}.weight"
        for layer in range(num_layers - num_shared, num_layers)
        for part in ("k_norm", "k_proj", "v_proj")
    ]


def _files_of(name: str, wanted: list[str]) -> dict[Path, list[str]]:
    """The files in which tensors may be."""
    index = cached_file(name, INDEX, _raise_exceptions_for_missing_entries=False)
    if index is None:
        whole = cached_file(name, WEIGHTS, _raise_exceptions_for_missing_entries=False)
        return {} if whole is None else {Path(whole): wanted}
    places: dict[str, str] = read_json(Path(index))["weight_map"]
    names_of: dict[str, list[str]] = {}
    for tensor in wanted:
        if tensor in places:
            names_of.setdefault(places[tensor], []).append(tensor)
    return {Path(str(cached_file(name, file))): names for file, names in names_of.items()}
