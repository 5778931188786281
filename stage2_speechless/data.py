"""Codes with transcripts -> training batches of Speechless.

One utterance is one sequence, padded at the end:

    position   dialect  rate  m  e  ...  start    frame 0  ...  frame T-1  padding
    target        -      -    -  -   -   frame 0  frame 1  ...  end           -
"""

# B utterances, L positions, T frames (25 per second), K codebooks

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands.device import derive_seed
from commands.errors import InputError
from stage1_rvq.codes import read_code_format, read_codes
from stage2_speechless.draws import Hidden
from stage2_speechless.generation import MAX_FRAMES
from stage2_speechless.model import NO_TARGET, Speechless
from stage2_speechless.vocabulary import NOTHING, UNKNOWN_DIALECT, Vocabulary

# Number of batches whose utterances are sorted by length together: enough to need little padding,
# few enough that an utterance is batched with different ones in every epoch.
BATCHES_PER_WINDOW = 50


@dataclass(frozen=True)
class TrainingUtterance:
    """What was said, how fast, and the codes, int16 or int32 `[T, K]`."""

    id: str
    text: str
    dialect: str
    rate_cps: float
    codes_TK: Tensor


@dataclass(frozen=True)
class UtteranceList:
    """Usable utterances of a codes folder, and the number of those left out, by reason."""

    utterances: list[TrainingUtterance]
    left_out: Counter[str]


@dataclass(frozen=True)
class Batch:
    """Input of `Speechless.forward`: tokens and targets, int64 `[B, L, K]`, and positions, float32
    `[B, L]`."""

    tokens_BLK: Tensor
    positions_BL: Tensor
    targets_BLK: Tensor


def read_utterances(path: Path, vocabulary: Vocabulary, *, flag: str = "--codes") -> UtteranceList:
    """Load a codes folder into memory (100 hours: about 150 MB).

    Texts without a letter or with a character outside the vocabulary are left out, and so is speech
    that is empty or longer than 30 s.

    Raises:
        InputError: not a finished codes folder, or nothing usable in it.
    """
    fmt = read_code_format(path, flag=flag)
    small = torch.int16 if fmt.codebook_size <= 2**15 else torch.int32
    utterances = []
    left_out: Counter[str] = Counter()
    for row in read_codes(path, flag=flag):
        num_frames = len(row.codes_TK)
        if not 0 < num_frames <= MAX_FRAMES:
            left_out["no frames" if num_frames == 0 else f"over {MAX_FRAMES} frames"] += 1
            continue
        try:
            characters = vocabulary.spoken_characters(row.text)
        except InputError:
            left_out["text that cannot be spoken"] += 1
            continue
        rate_cps = len(characters) * fmt.frame_rate_hz / num_frames
        utterances.append(
            TrainingUtterance(row.id, row.text, row.dialect, rate_cps, row.codes_TK.to(small))
        )
    if not utterances:
        raise InputError(f"{flag} {path}: no usable utterance ({_describe(left_out)})")
    return UtteranceList(utterances, left_out)


def rate_quantiles(utterances: Sequence[TrainingUtterance]) -> tuple[float, ...]:
    """The speaking rates that `generate_batch` draws from: quantiles 5 %, 10 %, ..., 95 %."""
    rates = torch.tensor([u.rate_cps for u in utterances])
    return tuple(rates.quantile(torch.linspace(0.05, 0.95, 19)).tolist())


def print_left_out(listed: UtteranceList, flag: str) -> None:
    """Print one line on stderr, if anything was left out."""
    if count := sum(listed.left_out.values()):
        print(f"{flag}: {count} left out: {_describe(listed.left_out)}", file=sys.stderr)


class BucketedBatches:
    """The utterances in the batch of a given step: similar in length, each at most once an epoch.

    A pure function of (seed, step), like `stage1_rvq.data.ShuffledBatches`. Each epoch leaves out
    the few utterances that do not fill a last batch, different ones every time.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
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
        order = torch.randperm(len(self.lengths), generator=generator)
        used = order[: self.batches_per_epoch * self.batch_size]
        by_length = [
            window[self.lengths[window].argsort(stable=True)]
            for window in used.split(BATCHES_PER_WINDOW * self.batch_size)
        ]
        batches = torch.cat(by_length).view(-1, self.batch_size)
        return batches[torch.randperm(len(batches), generator=generator)]


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


def _describe(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
