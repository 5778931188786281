"""Gemma's weights in 8 or 4 bits, by bitsandbytes: not to be confused with the quantiser of speech.

Only the decoder's linear maps are quantised. Of E4B's 14.8 GiB in bfloat16 these are 7.4; the
tables of embeddings, 6.5, stay as they are.
"""

import importlib.util
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from commands.errors import InputError

QuantizeName = Literal["none", "8bit", "4bit"]

# Towers and what leads from them into the decoder; transformers 5.23 matches these names from the
# root of the model only, and "audio_tower" alone would match nothing.
NOT_QUANTIZED = [
    "model.audio_tower", "model.vision_tower", "model.embed_audio", "model.embed_vision", "lm_head",
    "model.language_model.per_layer_model_projection",
]  # fmt: skip


def weight_quantization(name: QuantizeName, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Resolve `--quantize`.

    Args:
        name: "4bit" is NF4 with doubly quantised scales, as in QLoRA (Dettmers et al., 2023,
            arXiv:2305.14314); "8bit" is LLM.int8(); "none" leaves the weights alone.
        dtype: what matrices are multiplied in.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if name == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"--quantize {name} needs bitsandbytes: pip install bitsandbytes")
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=NOT_QUANTIZED)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=NOT_QUANTIZED,
    )
