"""Published figures of every tensor of Gemma 4 E2B: shape, mean, standard deviation and range.

    statistics = read_published_statistics()
    statistics["model.audio_tower.layers.11.norm_out.weight"].std  # 5.625

They are of google/gemma-4-E2B-it, revision b4a60110, 2,011 tensors, and were published as
docs/parameter-dumps in https://github.com/1amageek/swift-lm; `published_statistics.json` holds
them without a single weight. Tensors of all layers share an entry there: "layers.*".
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("published_statistics.json")


@dataclass(frozen=True)
class TensorStatistics:
    """What is known of a tensor.

    Attributes:
        shape: its dimensions; () for a single number.
        mean: mean of its elements, rounded to 4 digits, as the others.
        std: their standard deviation; 0 where all are equal.
        min: the smallest element.
        max: the largest element.
    """

    shape: tuple[int, ...]
    mean: float
    std: float
    min: float
    max: float


def read_published_statistics() -> dict[str, TensorStatistics]:
    """Statistics of every tensor of Gemma 4 E2B, by its name in the checkpoint."""
    entries = json.loads(PATH.read_text(encoding="utf-8"))["tensors"]
    return {
        name.replace("*", str(layer)): _statistics(entry, layer)
        for name, entry in entries.items()
        for layer in range(entry.get("layers", 1))
    }


def _statistics(entry: dict[str, Any], layer: int) -> TensorStatistics:
    def figure(name: str) -> float:
        value = entry[name]
        return value[layer] if isinstance(value, list) else value

    shape = entry["shape"]
    if shape and isinstance(shape[0], list):  # not the same in all layers
        shape = shape[layer]
    mean = figure("mean")
    if "std" not in entry:  # all elements are equal
        return TensorStatistics(tuple(shape), mean, 0.0, mean, mean)
    return TensorStatistics(tuple(shape), mean, figure("std"), figure("min"), figure("max"))
