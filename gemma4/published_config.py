"""config.json as Google publishes it, which other programs than transformers read too.

transformers 5.15 and later write the width of the full-attention layers' heads, and of 12B how many
there are for keys, layer by layer, as `per_layer_config`. The published files have
`global_head_dim` and `num_global_key_value_heads`, which older transformers, vLLM for them and the
converter of llama.cpp before its pull request 26882 (August 2026) look for.
"""

from pathlib import Path

from commands.atomic_write import write_json
from commands.json_files import read_json

# What is given layer by layer -> the name of what is published for all full-attention layers.
PUBLISHED_NAMES = {
    "head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"
}  # fmt: skip


def write_as_published(folder: Path) -> None:
    """Rewrite a folder's config.json, as transformers has saved it, with `global_head_dim`, and of
    12B with `num_global_key_value_heads`.

    What it means stays the same. If layers differ in anything else, it is left as it is.

    Args:
        folder: of a whole checkpoint of Gemma 4.
    """
    path = folder / "config.json"
    config = read_json(path)
    text = config["text_config"]
    of_layers = text.get("per_layer_config") or {}
    full = [str(i) for i, kind in enumerate(text["layer_types"]) if kind == "full_attention"]
    of_full = of_layers.get(full[0], {}) if full else {}
    is_known = "head_dim" in of_full and of_full.keys() <= PUBLISHED_NAMES.keys()
    if is_known and of_layers == dict.fromkeys(full, of_full):
        del text["per_layer_config"]
        text.update({PUBLISHED_NAMES[name]: value for name, value in of_full.items()})
        config["text_config"] = dict(sorted(text.items()))
        write_json(path, config)
