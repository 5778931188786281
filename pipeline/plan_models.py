"""The models that a recipe's settings describe, with random weights: on the meta device to count
them, on a device to time them. No checkpoint is read, only a `config.json` that is there.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Gemma4AudioConfig,
    Gemma4AudioModel,
    Gemma4TextConfig,
    Gemma4TextModel,
    MimiConfig,
    MimiModel,
)

from commands.errors import InputError
from commands.json_files import read_json
from gemma4.kinds import AnyGemmaConfig, kind_of
from gemma4.memory_plan import load_gemma_config
from gemma4.true_shapes import e2b_config, e4b_config, unified_12b_config
from pipeline import flops
from speech_head.build import AnyHead
from speech_head.config import SpeechHeadConfig
from speech_head.model import SpeechHead
from speech_head.parallel import ParallelHead, ParallelHeadConfig
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.recognizer import CTCRecognizer, RecognizerConfig
from stage2_speechless.config import SpeechlessConfig, default_num_heads
from stage2_speechless.model import Speechless

META = torch.device("meta")
MIMI = "kyutai/mimi"
PUBLISHED: dict[str, Callable[[], AnyGemmaConfig]] = {
    "e2b": e2b_config, "e4b": e4b_config, "12b": unified_12b_config,
}  # fmt: skip

Settings = Mapping[str, Any]


@functools.cache
def find_gemma_config(name: str) -> AnyGemmaConfig:
    """The configuration of a Gemma 4, which is not downloaded.

    Args:
        name: a folder or a `config.json`, or a name with E2B, E4B or 12B in it.

    Raises:
        InputError: neither.
    """
    path = Path(name)
    if path.exists():
        return load_gemma_config(str(path.parent if path.name == "config.json" else path))
    for size, config in PUBLISHED.items():
        if size in name.lower():
            return config()
    raise InputError(
        f"--gemma {name}: neither a folder that is here, nor E2B, E4B or 12B; nothing is downloaded"
    )


@functools.cache
def find_mimi_config(name: str) -> MimiConfig:
    """The configuration of a local Mimi, or of the published one.

    Raises:
        InputError: neither.
    """
    path = Path(name) / "config.json"
    if path.is_file():
        return MimiConfig(**read_json(path))
    if name == MIMI:
        return MimiConfig()
    raise InputError(f"--mimi {name}: neither a folder that is here, nor {MIMI}")


@dataclass(frozen=True)
class GemmaCounts:
    """Weights of a Gemma 4: of the decoder's matrices that every position passes, and of all its
    parts, audio and vision included; tied ones once."""

    matrices: int
    parameters: int


@functools.cache
def count_gemma(name: str) -> GemmaCounts:
    """Count the weights of a Gemma 4, which is not loaded; InputError as `find_gemma_config`."""
    config = find_gemma_config(name)
    kind = kind_of(config)
    with META:
        model = kind.model._from_config(config, attn_implementation=kind.attention)
    return GemmaCounts(flops.matrices_of(model.model.language_model), count_parameters(model))


def build_tower(config: Gemma4AudioConfig, num_layers: int | None = None) -> Gemma4AudioModel:
    """The audio tower, or its first layers."""
    layers = config.num_hidden_layers if num_layers is None else num_layers
    shape = Gemma4AudioConfig(**{**config.to_dict(), "num_hidden_layers": layers})
    return Gemma4AudioModel._from_config(shape, attn_implementation="eager").eval()


def build_decoder(config: Gemma4TextConfig) -> Gemma4TextModel:
    """Gemma's decoder, without the head."""
    return Gemma4TextModel._from_config(config, attn_implementation="sdpa").eval()


def first_layers(config: Gemma4TextConfig, num_layers: int) -> Gemma4TextConfig:
    """A decoder of the first layers and a vocabulary of a few words: each layer takes as long as in
    the whole one."""
    settings = config.to_dict()
    for derived in ("per_layer_config", "kv_sharing_modes"):
        settings.pop(derived, None)
    return Gemma4TextConfig(
        **{
            **settings,
            "num_hidden_layers": num_layers,
            "layer_types": ["sliding_attention"] * (num_layers - 1) + ["full_attention"],
            "num_kv_shared_layers": 0,
            "vocab_size": 512,
            "vocab_size_per_layer_input": 512,
        }
    )


def build_mimi(config: MimiConfig) -> MimiModel:
    """The codec."""
    return MimiModel(config).eval()


def rvq_config(settings: Settings, dim: int) -> RVQConfig:
    """Shape of the quantiser that `[stage1_rvq.train]` asks for."""
    return RVQConfig(
        dim=dim,
        num_codebooks=settings["num_codebooks"],
        codebook_size=settings["codebook_size"],
        min_code_usage=settings["min_code_usage"],
    )


def build_rvq(config: RVQConfig) -> SpeechRVQ:
    """The quantiser."""
    return SpeechRVQ(config)


def build_recognizer(settings: Settings, dim: int) -> CTCRecognizer:
    """The recogniser that `[stage1_rvq.train_recognizer]` asks for."""
    return CTCRecognizer(
        RecognizerConfig(dim, settings["num_units"], settings["width"], settings["num_layers"])
    )


def build_speechless(settings: Settings, rvq: RVQConfig) -> Speechless:
    """The model that `[stage2_speechless.train]` asks for. One that starts from a language model
    has its shape, which is not read: it counts as the reference size."""
    width = settings["width"] or SpeechlessConfig.width
    return Speechless(
        SpeechlessConfig(
            num_codebooks=rvq.num_codebooks,
            codebook_size=rvq.codebook_size,
            width=width,
            num_layers=settings["num_layers"] or SpeechlessConfig.num_layers,
            num_heads=settings["num_heads"] or default_num_heads(width),
            depth_width=settings["depth_width"],
            depth_layers=settings["depth_layers"],
            depth_heads=settings["depth_heads"] or default_num_heads(settings["depth_width"]),
            dropout=settings["dropout"],
        )
    )


def build_head(
    settings: Settings, states: Settings, text: Gemma4TextConfig, codec: MimiConfig
) -> AnyHead:
    """The head that `[speech_head.train]` asks for, for the states that `[speech_head.states]`
    writes."""
    given = {
        name: settings[name]
        for name in ("width", "num_layers", "num_heads")
        if settings[name] is not None
    }
    common: dict[str, Any] = {
        "state_width": text.hidden_size,
        "layers": list(range(-num_state_layers(states), 0)),
        "num_codebooks": states["num_codebooks"],
        "codebook_size": codec.codebook_size,
    }
    if settings["architecture"] == "parallel":
        return ParallelHead(ParallelHeadConfig(**common, **given))
    depth = {name: settings[name] for name in ("depth_width", "depth_layers", "depth_heads")}
    # How many speakers there are is not known yet; what reads their voices is small.
    common["voice_width"] = settings["voice_width"] or 0
    return SpeechHead(SpeechHeadConfig(**common, **given, **depth, reads=settings["reads"]))


def num_state_layers(states: Settings) -> int:
    """Layers of Gemma whose states the head reads."""
    if not states["states"]:
        return 0
    return 6 if states["layers"] == "last_six" else 1


def count_parameters(module: nn.Module) -> int:
    """All weights; tied ones once."""
    return sum(p.numel() for p in module.parameters())
