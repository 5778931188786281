"""config.json as Google publishes it, which other programs than transformers read too.

transformers 5.15 and later write the width of the full-attention layers' heads layer by layer, as
`per_layer_config`. The published files have `global_head_dim`, which older transformers, vLLM for
them and the converter of llama.cpp before its pull request 26882 (August 2026) look for.
"""

from pathlib import Path

from commands.atomic_write import write_json
from commands.json_files import read_json


def write_as_published(folder: Path) -> None:
    """Rewrite a folder's config.json, as transformers has saved it, with `global_head_dim`.

    What it means stays the same. If layers differ in anything else, it is left as it is.

    Args:
        folder: of a whole checkpoint of Gemma 4.
    """
    path = folder / "config.json"
    config = read_json(path)
    text = config["text_config"]
    of_layers = text.get("per_layer_config") or {}
    full = [str(i) for i, kind in enumerate(text["layer_types"]) if kind == "full_attention"]
    width = of_layers.get(full[0], {}).get("head_dim") if full else None
    if width and of_layers == {layer: {"head_dim": width} for layer in full}:
        del text["per_layer_config"]
        text["global_head_dim"] = width
        config["text_config"] = dict(sorted(text.items()))
        write_json(path, config)
