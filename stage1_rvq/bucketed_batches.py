"""Batches of utterances that are similar in length, so that little of them is padding.

batches = BucketedBatches(num_frames_N, batch_size=16, seed=0)
positions_B = batches.at_step(step)
"""

# N utterances, B of a batch

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from commands.seeds import derive_seed

# Number of batches whose utterances are sorted by length together: enough to need little padding,
# few enough that an utterance is batched with different ones in every epoch.
BATCHES_PER_WINDOW = 50
MAX_SORTED = 2**18  # utterances that are sorted in one call: it takes little memory

Lengths = Sequence[int] | npt.NDArray[Any]


class BucketedBatches:
    """The utterances in the batch of a given step: similar in length, each at most once an epoch.

    A pure function of (seed, step), like `stage1_rvq.data.ShuffledBatches`. Each epoch leaves out
    the few utterances that do not fill a last batch, different ones every time.
    """

    def __init__(self, lengths: Lengths, batch_size: int, seed: int) -> None:
        self.lengths_N = torch.as_tensor(lengths)
        self.batch_size = min(batch_size, len(lengths))
        self.batches_per_epoch = len(lengths) // self.batch_size
        self.seed = seed
        self._epoch = -1
        self._batches = torch.empty(0, dtype=torch.long)

    def at_step(self, step: int) -> Tensor:
        """Positions of the utterances of step 0, 1, 2, ...: int64 `[batch_size]`."""
        epoch, batch = divmod(step, self.batches_per_epoch)
        if epoch != self._epoch:
            self._batches = self._draw_epoch(epoch)
            self._epoch = epoch
        return self._batches[batch]

    def _draw_epoch(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
        order_N = torch.randperm(len(self.lengths_N), generator=generator)
        used_N = order_N[: self.batches_per_epoch * self.batch_size]
        sort_windows(used_N, self.lengths_N, BATCHES_PER_WINDOW * self.batch_size)
        batches = used_N.view(-1, self.batch_size)
        return batches[torch.randperm(len(batches), generator=generator)]


def sort_windows(order_N: Tensor, lengths_N: Tensor, window: int) -> None:
    """Sort utterances by length within windows of an order, in place; equal lengths keep theirs."""
    whole = len(order_N) // window * window
    for part in (order_N[:whole].view(-1, window), order_N[None, whole:]):
        for rows in part.split(max(1, MAX_SORTED // window)):
            rows.copy_(rows.gather(1, lengths_N[rows].argsort(dim=1, stable=True)))
