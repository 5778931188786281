"""Sample from given uniform numbers, so that an utterance's draws do not depend on others.

An utterance's numbers come from its id and the seed. So it gets the same codes alone or in any
batch, on any machine, apart from rounding of the logits themselves.
"""

# N rows, V codes, T frames, K codebooks

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from commands.errors import InputError
from commands.seeds import derive_seed
from commands.setting_types import NonNegativeFloat, NonNegativeInt

# Speechless's defaults. Fine codebooks carry the room and the voice, which the text does not
# decide: sampled from all codes at temperature 1 they would be noise, and chosen greedily every
# sentence would sound alike.
# A demo model of 3,000 steps, WER on dev: 0.36 at temperature 1, 0.30 at 0.8, 0.24 at 0.6, 0.22 at
# 0.4, 0.20 at 0. One of 7,000 steps: 0.119 at 0.5, 0.118 at 0.3, 0.105 at 0.1.
DEFAULT_TEMPERATURE = 0.5
DEFAULT_TOP_K = 100
# A demo model of 1,300 steps, WER on dev: 0.546 at 1, 0.469 at 1.5, 0.396 at 2, 0.481 at 3; without
# text dropout 0.464.
DEFAULT_GUIDANCE = 2.0


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How codes are drawn."""

    temperature: NonNegativeFloat = DEFAULT_TEMPERATURE
    """sampling temperature; 0 takes the most probable code"""
    top_k: NonNegativeInt = DEFAULT_TOP_K
    """draw from the k most probable codes; 0 draws from all"""
    guidance: NonNegativeFloat | None = None
    """above 1 keeps closer to the text, for twice the computation; if not given, 2 for a model that
    was also trained without texts, as all are now, and 1 for others"""

    def guidance_of(self, text_dropout: float) -> float:
        """The guidance for a model that was trained with so much text dropout.

        Raises:
            InputError: it is set, but the model was trained without.
        """
        if self.guidance is None:
            return DEFAULT_GUIDANCE if text_dropout else 1.0
        if self.guidance != 1 and not text_dropout:
            raise InputError(
                "--guidance needs a model that was also trained without texts; this one is older"
            )
        return self.guidance


DEFAULT_SAMPLING = SamplingSettings()


def utterance_uniforms(seed: int, id_: str, num_frames: int, num_codebooks: int) -> Tensor:
    """Random numbers of an utterance: float32 `[num_frames, num_codebooks]` in [0, 1), on the
    CPU."""
    generator = torch.Generator().manual_seed(derive_seed(seed, id_))
    return torch.rand(num_frames, num_codebooks, generator=generator)


def draw_one(choices: Sequence[float], seed: int, id_: str) -> float:
    """Draw one of several values for an utterance."""
    return choices[derive_seed(seed, id_, "choice") % len(choices)]


def sample_codes(
    logits_NV: Tensor, uniforms_N: Tensor, *, temperature: float, top_k: int
) -> Tensor:
    """Draw one code a row by inverting the cumulative distribution at the row's uniform number.

    Codes keep their order (they are not sorted by probability), so that rounding differences in the
    logits change a code only if the number falls on the very edge between two.

    Args:
        logits_NV: any float type; computed in float32.
        uniforms_N: float32 in [0, 1).
        temperature: divides the logits; 0 takes the most probable code.
        top_k: draw from the k most probable codes; 0 draws from all.

    Returns:
        int64 `[N]`.
    """
    logits_NV = logits_NV.float()
    if temperature == 0:
        return logits_NV.argmax(dim=-1)
    if 0 < top_k < logits_NV.shape[-1]:
        kept_NV = logits_NV.topk(top_k, dim=-1).values
        logits_NV = logits_NV.masked_fill(logits_NV < kept_NV[:, -1:], -torch.inf)
    cumulative_NV = (logits_NV / temperature).softmax(dim=-1).cumsum(dim=-1)
    total_N1 = cumulative_NV[:, -1:]
    # Rounding may lift the threshold to the total itself, beyond the last possible code.
    below_total_N1 = torch.nextafter(total_N1, torch.zeros_like(total_N1))
    threshold_N1 = torch.minimum(uniforms_N[:, None] * total_N1, below_total_N1)
    return (cumulative_NV > threshold_N1).int().argmax(dim=-1)  # the first code that exceeds it


def refuse_bad_sampling(temperature: float, top_k: int) -> None:
    """Raise InputError for impossible sampling settings."""
    if temperature < 0:
        raise InputError(f"--temperature must not be negative, got {temperature}")
    if top_k < 0:
        raise InputError(f"--top-k must not be negative (0 draws from all codes), got {top_k}")
