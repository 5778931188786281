"""The kinds of Gemma 4 that hear: with an audio tower (E2B, E4B), and without encoders (12B).

    kind = kind_of(config)
    model = kind.model._from_config(config, attn_implementation=kind.attention)

The kind without encoders takes the waveform itself: 640 samples are a frame, which one linear map
puts among the embeddings of the text (`patches.py`).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from transformers import (
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
)

AnyGemma: TypeAlias = Gemma4ForConditionalGeneration | Gemma4UnifiedForConditionalGeneration
AnyGemmaConfig: TypeAlias = Gemma4Config | Gemma4UnifiedConfig
TOWER, PATCHES = "gemma4", "gemma4_unified"  # as transformers names them
WITHOUT_TOWER = {
    PATCHES: (
        "the Gemma 4 without encoders (12B): it has no audio tower, whose embeddings this works "
        "with; name E2B or E4B, or fine-tune the 12B on recorded or synthesised questions "
        "(stage3_finetune.train --recordings)"
    )
}


@dataclass(frozen=True)
class Kind:
    """Classes of transformers for one kind of Gemma 4.

    Attributes:
        attention: implementation of attention, by part where the parts need different ones.
    """

    config: Any
    model: Any
    attention: str | dict[str, str]


# transformers 5.23 refuses the plain string "sdpa" for any Gemma 4 with an audio tower.
ATTENTION = {"text_config": "sdpa", "vision_config": "sdpa", "audio_config": "eager"}
KINDS = {
    TOWER: Kind(Gemma4Config, Gemma4ForConditionalGeneration, ATTENTION),
    PATCHES: Kind(Gemma4UnifiedConfig, Gemma4UnifiedForConditionalGeneration, "sdpa"),
}


def kind_of(config: AnyGemmaConfig) -> Kind:
    """The kind of a configuration or of a model's."""
    return KINDS[config.model_type]


def has_tower(config: AnyGemmaConfig) -> bool:
    """Whether it hears with an audio tower, and not patches of the waveform."""
    return config.model_type == TOWER
