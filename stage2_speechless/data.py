"""Codes with transcripts -> training batches of Speechless.

One utterance is one sequence, padded at the end:

    position   dialect  rate  m  e  ...  start    frame 0  ...  frame T-1  padding
    target        -      -    -  -   -   frame 0  frame 1  ...  end           -
"""

# B utterances, L positions, T frames (25 per second), K codebooks

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from commands.errors import InputError
from commands.seeds import derive_seed
from data_manifests.language import UNKNOWN_DIALECT
from stage1_rvq.bucketed_batches import (
    BATCHES_PER_WINDOW,
    BucketedBatches,
    Lengths,
    sort_windows,
)
from stage2_speechless.draws import Hidden
from stage2_speechless.model import NO_TARGET, Speechless
from stage2_speechless.vocabulary import NOTHING, without_text


@dataclass(frozen=True)
class TrainingUtterance:
    """What was said, how fast, and the codes, int16 or int32 `[T, K]`."""

    id: str
    text: str
    dialect: str
    rate_cps: float
    codes_TK: Tensor


@dataclass(frozen=True)
class Batch:
    """Input of `Speechless.forward`: tokens and targets, int64 `[B, L, K]`, and positions, float32
    `[B, L]`."""

    tokens_BLK: Tensor
    positions_BL: Tensor
    targets_BLK: Tensor


class TokenBatches:
    """The utterances in the batch of a given step: similar in length, as many as fit into a number
    of positions, padding included; each at most once an epoch.

    A pure function of (seed, step). Epochs differ in their number of batches, so a run that is
    resumed draws the epochs before its own again: a second or two for each of 6 million utterances.
    """

    def __init__(
        self, lengths: Lengths, max_tokens: int, seed: int, *, num_processes: int = 1, flag: str
    ) -> None:
        """
        Args:
            lengths: positions that each utterance takes.
            max_tokens: most positions per process in a step: utterances times the longest of them.
            num_processes: every batch has equally many utterances for each of them.
            flag: the flag that set `max_tokens`, for messages.

        Raises:
            InputError: an utterance is longer than that, or there are fewer than processes.
        """
        self.lengths_N = torch.as_tensor(lengths)
        self.max_tokens, self.num_processes = max_tokens, num_processes
        self.seed = seed
        if len(lengths) < num_processes:
            raise InputError(f"{len(lengths)} utterances are too few for {num_processes} processes")
        longest = int(self.lengths_N.max())
        if longest > max_tokens:
            raise InputError(f"{flag} {max_tokens}: the longest utterance takes {longest}")
        typical = max(1, int(max_tokens / float(self.lengths_N.double().mean())))
        self._window = BATCHES_PER_WINDOW * num_processes * typical
        self._first_steps = [0]  # of each epoch drawn so far, and of the one after them
        self._epoch = -1
        self._order_N = torch.empty(0, dtype=torch.long)
        self._batches = torch.empty(0, 2, dtype=torch.long)

    def at_step(self, step: int) -> Tensor:
        """Positions of the utterances of step 0, 1, 2, ...: int64, `[rank::num_processes]` of them
        are those of one process."""
        while self._first_steps[-1] <= step:
            self._draw_epoch(len(self._first_steps) - 1)
            self._first_steps.append(self._first_steps[-1] + len(self._batches))
        epoch = bisect_right(self._first_steps, step) - 1
        if epoch != self._epoch:
            self._draw_epoch(epoch)
        start, end = self._batches[step - self._first_steps[epoch]].tolist()
        return self._order_N[start:end]

    def _draw_epoch(self, epoch: int) -> None:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
        self._order_N = torch.randperm(len(self.lengths_N), generator=generator)
        sort_windows(self._order_N, self.lengths_N, self._window)
        lengths_N = self.lengths_N[self._order_N].numpy()
        bounds = [
            (first + start, first + end)
            for first in range(0, len(lengths_N), self._window)
            for start, end in self._cut(lengths_N[first : first + self._window])
        ]
        batches = torch.tensor(bounds)
        self._batches = batches[torch.randperm(len(batches), generator=generator)]
        self._epoch = epoch

    def _cut(self, lengths_N: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
        """Where the batches of a sorted window begin and end."""
        start, each = 0, self.num_processes
        while start + each <= len(lengths_N):
            # The longest of the batch, if it has 1, 2, 3, ... utterances for each process.
            most = self.max_tokens // int(lengths_N[start])
            longest = lengths_N[start + each - 1 : start + each * most : each]
            padded = longest.astype(np.int64) * np.arange(1, len(longest) + 1)
            end = start + each * int(np.searchsorted(padded, self.max_tokens, side="right"))
            yield start, end
            start = end


def plan_batches(
    lengths: Lengths,
    batch_size: int,
    max_tokens: int | None,
    seed: int,
    *,
    num_processes: int,
    flag: str,
) -> BucketedBatches | TokenBatches:
    """The batches of a training.

    Args:
        lengths: what utterances are sorted by, and, with `max_tokens`, what they take of it.
        batch_size: utterances per process in a step, if `max_tokens` is None.
        max_tokens: see `TokenBatches`.
        seed: of their order.
        num_processes: how many share every batch.
        flag: the flag that set `max_tokens`, for messages.

    Raises:
        InputError: as `TokenBatches`.
    """
    if max_tokens is None:
        return BucketedBatches(lengths, batch_size * num_processes, seed)
    return TokenBatches(lengths, max_tokens, seed, num_processes=num_processes, flag=flag)


def collate(
    utterances: Sequence[TrainingUtterance], model: Speechless, hidden: Sequence[Hidden] = ()
) -> Batch:
    """Arrange utterances as padded sequences.

    Args:
        utterances: the B utterances.
        model: the model whose token numbering is used.
        hidden: what it is not shown of each; nothing is hidden if it is empty.
    """
    nothing = [None] * len(utterances)
    tokens, positions, targets = [], [], []
    for utterance, kept_back in zip(utterances, hidden or nothing, strict=True):
        dialect = UNKNOWN_DIALECT if kept_back and kept_back.dialect else utterance.dialect
        prefix = model.vocabulary.encode(utterance.text, dialect, utterance.rate_cps)
        if kept_back and kept_back.text:
            prefix = without_text(prefix)
        codes_TK = utterance.codes_TK.long()
        num_frames, num_codebooks = codes_TK.shape
        first = len(prefix)
        tokens_LK = torch.full((first + num_frames, num_codebooks), NOTHING)
        tokens_LK[:first, 0] = torch.tensor(prefix)
        tokens_LK[first:] = model.frame_tokens(codes_TK)
        if kept_back:
            tokens_LK[first:][kept_back.frames_T] = NOTHING
        targets_LK = torch.full((first + num_frames, num_codebooks), NO_TARGET)
        targets_LK[first - 1 : -1] = codes_TK
        targets_LK[-1, 0] = model.end_of_speech
        tokens.append(tokens_LK)
        positions.append(model.positions(first, num_frames, utterance.rate_cps))
        targets.append(targets_LK)
    pad = torch.nn.utils.rnn.pad_sequence
    return Batch(pad(tokens, True, NOTHING), pad(positions, True), pad(targets, True, NO_TARGET))


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Move a batch to another device."""
    return Batch(*(tensor.to(device) for tensor in vars(batch).values()))
