"""Mean and standard deviation of each dimension of Gemma's states, by which a head reads them.

    statistics = measure_states(StatesFolder(Path("data/states/train")))

Much of a state is the same for every token, and dimensions differ in size, so at unit RMS over all
of them what tells tokens apart can be a small part of the head's input. `python -m
benchmarks.layer_sizes` measures what that costs.
"""

# S answer tokens, N tokens of all utterances, L Gemma layers, D width of Gemma

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from speech_head.data import StatesFolder

# About 10,000 tokens or more: the error of a standard deviation is then about 1 %.
NUM_MEASURED = 512
UTTERANCES_AT_ONCE = 8
# States are stored in bfloat16, which keeps 8 bits: what varies by less is rounding.
ROUNDING = 2.0**-8


@dataclass(frozen=True)
class StateStatistics:
    """Mean and standard deviation over tokens, each float32 `[L, D]`, of states that have unit
    RMS."""

    mean_LD: Tensor
    std_LD: Tensor


def measure_states(states: StatesFolder) -> StateStatistics:
    """Measure up to `NUM_MEASURED` utterances of a folder, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randperm(len(states.utterances), generator=generator)[:NUM_MEASURED]
    chosen = [states.utterances[i] for i in picks.sort().values.tolist()]
    return compute_statistics(
        example.states_SLD
        for first in range(0, len(chosen), UTTERANCES_AT_ONCE)
        for example in states.read_all(chosen[first : first + UTTERANCES_AT_ONCE])
    )


def compute_statistics(utterances: Iterable[Tensor]) -> StateStatistics:
    """Statistics of the states `[S, L, D]` of some utterances.

    A standard deviation is at least what bfloat16 rounds away, so that dividing by it does not
    magnify rounding.
    """
    num_tokens, sum_LD, squares_LD = 0, torch.zeros(()), torch.zeros(())
    for states_SLD in utterances:
        unit_SLD = F.rms_norm(states_SLD.float(), states_SLD.shape[-1:]).double()
        num_tokens += len(unit_SLD)
        sum_LD = sum_LD + unit_SLD.sum(dim=0)
        squares_LD = squares_LD + unit_SLD.square().sum(dim=0)
    mean_LD, power_LD = sum_LD / num_tokens, squares_LD / num_tokens
    std_LD = (power_LD - mean_LD.square()).clamp(min=0).sqrt()
    floor_LD = (ROUNDING * power_LD.sqrt()).clamp(min=1e-6)
    return StateStatistics(mean_LD.float(), torch.maximum(std_LD, floor_LD).float())
