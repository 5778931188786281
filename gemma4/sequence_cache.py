"""Sequences that are decoded together, although each began at its own time.

    caches = [SequenceCache(config), SequenceCache(config)]
    batch = join(caches, num_new=1)
    model(..., past_key_values=batch.cache, **batch.masks())

transformers' `DynamicCache` holds sequences that begin together. Here each has its own keys and
values; those that take a step together are put side by side, padded on the left, and stay so as
long as the same ones go on together. Then a step copies nothing but what it adds.
"""

# B rows, S positions of the longest sequence (the new ones included), N new positions

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class SequenceCache:
    """Keys and values of one sequence, alone or beside others in one `DynamicCache`."""

    def __init__(self, config: PreTrainedConfig, *, num_rows: int = 1) -> None:
        """An empty sequence.

        Args:
            config: of the decoder.
            num_rows: rows of a batch that belong to it, and are of the same length (2 with
                guidance).
        """
        self.num_rows = num_rows
        self._cache = DynamicCache(config=config)
        self._first_row = 0
        self._num_padding = 0  # positions before the sequence's first

    @property
    def length(self) -> int:
        """How many positions it holds."""
        return int(self._cache.get_seq_length()) - self._num_padding

    def copy(self) -> "SequenceCache":
        """The same sequence, to be continued in another way; nothing is copied until then."""
        other = copy.copy(self)
        other._cache = copy.copy(self._cache)
        other._cache.layers = self._layers()
        other._first_row = other._num_padding = 0
        return other

    def _layers(self) -> list[DynamicLayer]:
        """Its own rows and positions of every layer."""
        rows = slice(self._first_row, self._first_row + self.num_rows)
        layers = []
        for layer in self._cache.layers:
            own = copy.copy(layer)
            if layer.keys is not None:
                kept = min(layer.keys.shape[-2], self.length)  # less where attention slides
                begin = layer.keys.shape[-2] - kept
                own.keys, own.values = layer.keys[rows, :, begin:], layer.values[rows, :, begin:]
                if own.is_sliding:
                    own.cumulative_length = self.length
            layers.append(own)
        return layers


@dataclass(frozen=True)
class JoinedCaches:
    """Some sequences side by side, about to take a step together.

    Attributes:
        cache: theirs; to be extended by the same number of positions for all.
        lengths: positions of each row so far.
        num_new: positions that the step adds.
    """

    cache: DynamicCache
    lengths: list[int]
    num_new: int

    def masks(self, device: torch.device) -> dict[str, Tensor]:
        """`attention_mask` `[B, S]` and `position_ids` `[B, N]` of the step."""
        lengths_B1 = torch.tensor(self.lengths, device=device)[:, None]
        num_before = max(self.lengths)
        before_S = torch.arange(num_before + self.num_new, device=device)
        is_real_BS = before_S >= num_before - lengths_B1
        positions_BN = lengths_B1 + torch.arange(self.num_new, device=device)
        return {"attention_mask": is_real_BS.long(), "position_ids": positions_BN}


def join(sequences: Sequence[SequenceCache], *, num_new: int = 1) -> JoinedCaches:
    """Put sequences side by side, in this order, for their next step.

    Until one of them is joined with others, all of them take every step together.

    Args:
        sequences: of the same decoder.
        num_new: positions that the step adds to each.
    """
    lengths = [s.length for s in sequences for _ in range(s.num_rows)]
    shared = sequences[0]._cache
    first_rows = [sum(s.num_rows for s in sequences[:i]) for i in range(len(sequences))]
    are_beside = all(
        s._cache is shared and s._first_row == row
        for s, row in zip(sequences, first_rows, strict=True)
    )
    if not are_beside or len(lengths) != _num_rows(shared, len(lengths)):
        shared = _side_by_side(sequences)
        for sequence, first_row in zip(sequences, first_rows, strict=True):
            length = sequence.length
            sequence._cache, sequence._first_row = shared, first_row
            sequence._num_padding = max(lengths) - length
    return JoinedCaches(shared, lengths, num_new)


def _num_rows(cache: DynamicCache, of_empty: int) -> int:
    return next((len(layer.keys) for layer in cache.layers if layer.keys is not None), of_empty)


def _side_by_side(sequences: Sequence[SequenceCache]) -> DynamicCache:
    own_layers = [sequence._layers() for sequence in sequences]
    nums_rows = [sequence.num_rows for sequence in sequences]
    cache = copy.copy(sequences[0]._cache)
    cache.layers = [_join_layers(layers, nums_rows) for layers in zip(*own_layers, strict=True)]
    return cache


def _join_layers(layers: Sequence[DynamicLayer], nums_rows: Sequence[int]) -> DynamicLayer:
    filled = [layer for layer in layers if layer.keys is not None]
    if not filled:
        return copy.copy(layers[0])
    joined = copy.copy(filled[0])
    num_kept = max(layer.keys.shape[-2] for layer in filled)
    for name in ("keys", "values"):
        nothing = getattr(joined, name)[:1, :, :0]
        parts = [
            getattr(layer, name) if layer.keys is not None else nothing.expand(num_rows, -1, -1, -1)
            for layer, num_rows in zip(layers, nums_rows, strict=True)
        ]
        padded = [F.pad(part, (0, 0, num_kept - part.shape[-2], 0)) for part in parts]
        setattr(joined, name, torch.cat(padded))
    if joined.is_sliding:
        joined.cumulative_length = max(layer.cumulative_length for layer in filled)
    return joined
