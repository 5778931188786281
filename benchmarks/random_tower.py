"""Gemma 4's audio encoder at full size with random weights: as large and as slow as the real
one."""

from pathlib import Path

import torch
from transformers import Gemma4AudioConfig, Gemma4AudioFeatureExtractor, Gemma4AudioModel

# Real checkpoints have finite clip bounds, which must be applied; this one clips a few values.
CLIP_BOUND = 4.0


def random_tower(device: torch.device, dtype: torch.dtype = torch.float32) -> Gemma4AudioModel:
    """The tower of E2B and E4B, 304.8 M parameters, frozen; the same at every call."""
    torch.manual_seed(0)
    tower = Gemma4AudioModel._from_config(Gemma4AudioConfig(), dtype=dtype)
    tower.eval().requires_grad_(False)
    for name, buffer in tower.named_buffers():
        if name.endswith(("_min", "_max")):
            buffer.fill_(CLIP_BOUND if name.endswith("_max") else -CLIP_BOUND)
    return tower.to(device)


def save_random_encoder(folder: Path) -> None:
    """Write the tower like an extracted encoder, as a folder that `--gemma` accepts."""
    random_tower(torch.device("cpu")).save_pretrained(folder)
    Gemma4AudioFeatureExtractor().save_pretrained(folder)
