"""A tiny Speechless, and utterances for it."""

import torch

from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.data import TrainingUtterance
from stage2_speechless.model import Speechless

TINY = SpeechlessConfig(
    num_codebooks=3, codebook_size=12, width=32, num_layers=2, num_heads=2, depth_width=16,
    depth_layers=2, depth_heads=2, dropout=0.0, rates_cps=(8.0, 12.0, 16.0),
)  # fmt: skip
TEXTS = ["me din de ama", "kofi", "yɛfrɛ me akosua na mewɔ kumasi", "maakye"]


def sharp_speechless() -> Speechless:
    """Random weights, sharp enough that what is drawn depends on the states."""
    torch.manual_seed(0)
    model = Speechless(TINY).eval()
    with torch.no_grad():
        model.code0_head.weight.mul_(20)
        model.frame_decoder.heads_JVW.mul_(20)
    return model


def utterances() -> list[TrainingUtterance]:
    generator = torch.Generator().manual_seed(1)
    result = []
    for i, text in enumerate(TEXTS):
        codes_TK = torch.randint(12, (5 + 4 * i, 3), generator=generator)
        rate_cps = len(text) * 25 / len(codes_TK)
        result.append(TrainingUtterance(f"u{i}", text, "asante", rate_cps, codes_TK))
    return result
