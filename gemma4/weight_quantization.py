"""Gemma's weights in 8 or 4 bits, with bitsandbytes; not related to the speech quantiser.

Only the decoder's linear layers are quantised. They take 7.4 of E4B's 14.8 GiB in bfloat16; the
embedding tables, 6.5 GiB, are not quantised.
"""

import importlib.util
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from commands.errors import InputError

QuantizeName = Literal["none", "8bit", "4bit"]

# The towers and their projections into the decoder. transformers 5.23 matches these names only from
# the root of the model, so "audio_tower" alone would match nothing.
NOT_QUANTIZED = [
    "model.audio_tower", "model.vision_tower", "model.embed_audio", "model.embed_vision", "lm_head",
    "model.language_model.per_layer_model_projection",
]  # fmt: skip


def weight_quantization(name: QuantizeName, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Resolve `--quantize`.

    Args:
        name: "4bit" is NF4 with doubly quantised scales, as in QLoRA (Dettmers et al., 2023,
            arXiv:2305.14314); "8bit" is LLM.int8(); "none" does not quantise.
        dtype: dtype of the matrix products.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    if name == "none":
        return None
    refuse_missing_bitsandbytes(f"--quantize {name}")
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=NOT_QUANTIZED)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=NOT_QUANTIZED,
    )


def refuse_missing_bitsandbytes(wanted_by: str) -> None:
    """Raise InputError if bitsandbytes is not installed; the message begins with the flag."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"{wanted_by} needs bitsandbytes: pip install bitsandbytes")
