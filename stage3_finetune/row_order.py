"""The order in which stage 3 goes through its rows: those of a step are similar in length.

Rows differ in length by a factor of ten: a typed question, a spoken conversation. In batches of any
rows, nearly half of all positions would be padding.
"""

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from stage1_rvq.bucketed_batches import BucketedBatches


class RowsByLength(Sampler[int]):
    """Numbers of rows: those of a step, of similar length, one after another; the steps of an epoch
    in any order.

    A pure function of seed and epoch, as `BucketedBatches`, which leaves out the few rows of an
    epoch that do not fill a last batch.
    """

    def __init__(self, lengths: Sequence[int], rows_of_step: int, seed: int) -> None:
        """
        Args:
            lengths: positions that each row takes, about.
            rows_of_step: rows of one optimizer step, of all processes together.
            seed: another one gives another order.
        """
        self._batches = BucketedBatches(lengths, rows_of_step, seed)
        self._epoch = 0

    def __len__(self) -> int:
        return self._batches.batches_per_epoch * self._batches.batch_size

    def __iter__(self) -> Iterator[int]:
        count = self._batches.batches_per_epoch
        for step in range(self._epoch * count, (self._epoch + 1) * count):
            yield from self._batches.at_step(step).tolist()

    def set_epoch(self, epoch: int) -> None:
        """Go through the rows in the order of this epoch, 0, 1, 2, ...: accelerate calls it."""
        self._epoch = epoch
