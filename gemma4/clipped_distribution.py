"""A distribution with a given mean, deviation and range: normal and clipped, or log-normal.

curve = fit_curve(statistics)
weights = curve(torch.randn(100))
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from gemma4.published_statistics import TensorStatistics

# Up to so many elements, quantiles of the distribution are dealt out instead of drawn one by one:
# mean and deviation of a norm's few weights are then right, not only expected to be.
DEALT_ELEMENTS = 8192
# Fitting a distribution: error at which it ends, in deviations, and the most steps it may take.
TOLERANCE, MAX_STEPS = 1e-4, 3000
# Of a tensor's deviation, squared, at most so much comes from its smallest and largest element.
MAX_EXTREME_SHARE = 0.7


@dataclass(frozen=True)
class Curve:
    """What turns standard normal numbers into weights; `skew` is 0 for a normal distribution."""

    location: float
    scale: float
    skew: float
    lower: float
    upper: float

    def __call__(self, z: Tensor) -> Tensor:
        bare = torch.exp(self.skew * z) if self.skew else z
        return (self.location + self.scale * bare).clamp(self.lower, self.upper)


@cache
def fit_curve(statistics: TensorStatistics) -> Curve:
    """Fit a distribution to a tensor's figures, apart from its extremes.

    Norm weights such as those of `input_layernorm` (mean 9.6, deviation 57, from -2.6 to 800) are
    no clipped normal ones: most would lie at the lower end. They are log-normal above zero (or
    above the lower end, where that is positive): with 1,536 of them, mean and deviation above make
    one expect a largest of 730.
    """
    num_elements = math.prod(statistics.shape)
    extremes = extreme_elements(statistics)
    num_rest = num_elements - len(extremes)
    mean = (num_elements * statistics.mean - extremes.sum().item()) / num_rest
    power = statistics.std**2 + statistics.mean**2
    power = (num_elements * power - extremes.square().sum().item()) / num_rest
    std = math.sqrt(power - mean**2)
    floor = max(statistics.min, 0.0)
    to_floor, to_upper = mean - floor, statistics.max - mean
    is_skewed = 0 < to_floor < 2 * std and to_upper > max(4 * std, 2.5 * (mean - statistics.min))
    z = normal_quantiles(min(num_rest, DEALT_ELEMENTS))
    curve = Curve(mean, std, 0.0, statistics.min, statistics.max)
    if is_skewed:
        return _fit_log_normal(replace(curve, location=floor), z, mean, std)
    return _fit_normal(curve, z, mean, std)


def _fit_normal(curve: Curve, z: Tensor, mean: float, std: float) -> Curve:
    for _ in range(MAX_STEPS):
        found_mean, found_std = _moments(curve(z))
        error = max(abs(found_mean - mean), abs(found_std - std)) / std
        if error < TOLERANCE:
            break
        # The location must make up for what a wider curve loses at either end.
        factor = std / found_std
        location = mean + (curve.location - found_mean) * factor
        curve = replace(curve, location=location, scale=curve.scale * factor)
    assert error < 1 / len(z), (curve, mean, std)  # a few elements cannot have any deviation
    return curve


def _fit_log_normal(curve: Curve, z: Tensor, mean: float, std: float) -> Curve:
    lowest, highest = 0.0, 20.0  # of the skew, on which the deviation depends
    for _ in range(MAX_STEPS):
        skew = (lowest + highest) / 2
        curve = replace(curve, skew=skew, scale=math.exp(-(skew**2) / 2))
        for _ in range(MAX_STEPS):
            found_mean, found_std = _moments(curve(z))
            if abs(found_mean - mean) < TOLERANCE / 2 * std:
                break
            growth = (mean - curve.location) / (found_mean - curve.location)
            curve = replace(curve, scale=curve.scale * growth)
        if abs(found_std - std) < TOLERANCE * std:
            return curve
        lowest, highest = (skew, highest) if found_std < std else (lowest, skew)
    raise AssertionError((curve, mean, std))


def _moments(x: Tensor) -> tuple[float, float]:
    return x.mean().item(), x.std(correction=0).item()


def extreme_elements(statistics: TensorStatistics) -> Tensor:
    """Smallest and largest element, unless the few others could not make up for their deviation."""
    figures = torch.tensor([statistics.min, statistics.max], dtype=torch.float64)
    power = (figures - statistics.mean).square().sum().item()
    num_elements = math.prod(statistics.shape)
    is_possible = power < MAX_EXTREME_SHARE * num_elements * statistics.std**2
    return figures if is_possible else figures[:0]


@cache
def normal_quantiles(num: int) -> Tensor:
    """Standard normal numbers in order, at the middle of equal shares of probability."""
    return torch.special.ndtri((torch.arange(num, dtype=torch.float64) + 0.5) / num)
