"""A random order of any number of items, of which any part can be had.

order = RandomOrder(900_000_000, seed=0)
order.part(8192, 16384)
"""

# N items

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# A random order of more items is computed place by place: listed, it would take 128 MB and more.
MAX_LISTED = 2**24
NUM_ROUNDS = 6


class RandomOrder:
    """A random order of the numbers below `num_items`, of which any part can be had.

    Up to 16 million are drawn by `torch.randperm`. More, such as the 900 million frames of 10,000
    hours, are never listed: a Feistel network of six rounds (Luby and Rackoff, 1988) permutes the
    numbers below a power of four, and is repeated for a result that is not below `num_items`
    (cycle walking, Black and Rogaway, 2002).
    """

    def __init__(self, num_items: int, seed: int) -> None:
        self.num_items = num_items
        generator = torch.Generator().manual_seed(seed)
        self._listed = None
        if num_items <= MAX_LISTED:
            self._listed = torch.randperm(num_items, generator=generator)
        keys = torch.randint(2**62, (NUM_ROUNDS,), generator=generator)
        self._keys = keys.numpy().astype(np.uint64)
        self._half_bits = np.uint64((num_items.bit_length() + 1) // 2)

    def part(self, start: int, end: int) -> Tensor:
        """The items at places `start` to `end` of the order: int64."""
        if self._listed is not None:
            return self._listed[start:end]
        items_N = self._permute(np.arange(start, end, dtype=np.uint64))
        while (is_beyond_N := items_N >= self.num_items).any():
            items_N[is_beyond_N] = self._permute(items_N[is_beyond_N])
        return torch.from_numpy(items_N.astype(np.int64))

    def _permute(self, numbers_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        mask = (np.uint64(1) << self._half_bits) - np.uint64(1)
        left_N, right_N = numbers_N >> self._half_bits, numbers_N & mask
        for key in self._keys:
            # The mixing of splitmix64 (Steele et al., 2014).
            mixed_N = (right_N + key) * np.uint64(0xBF58476D1CE4E5B9)
            mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            left_N, right_N = right_N, left_N ^ ((mixed_N ^ (mixed_N >> np.uint64(31))) & mask)
        return (left_N << self._half_bits) | right_N
