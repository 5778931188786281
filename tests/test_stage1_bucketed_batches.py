"""Batches of similar lengths: every utterance once an epoch, little padding."""

import torch

from commands.seeds import derive_seed
from stage1_rvq.bucketed_batches import BucketedBatches


def test_batches_hold_similar_lengths_and_every_utterance_once() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 750, (1000,), generator=generator).tolist()
    batches = BucketedBatches(lengths, 8, seed=0)
    epoch = [batches.at_step(step) for step in range(125)]
    assert torch.cat(epoch).sort().values.tolist() == list(range(1000))
    lengths_N = torch.tensor(lengths, dtype=torch.float)
    padded = sum(float(lengths_N[b].max()) * 8 for b in epoch)
    assert padded < 1.03 * float(lengths_N.sum())
    again = BucketedBatches(lengths, 8, seed=0)
    assert torch.equal(again.at_step(130), batches.at_step(130))
    assert not torch.equal(batches.at_step(125), epoch[0])


def test_batches_are_those_of_a_loop_over_windows() -> None:
    """Sorting all windows at once changes no batch."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(20, 60, (1234,), generator=generator)
    batches = BucketedBatches(lengths.tolist(), 8, seed=3)
    generator = torch.Generator().manual_seed(derive_seed(3, "epoch", 0))
    order = torch.randperm(1234, generator=generator)
    used = order[: 1234 // 8 * 8]
    windows = [window[lengths[window].argsort(stable=True)] for window in used.split(50 * 8)]
    wanted = torch.cat(windows).view(-1, 8)
    wanted = wanted[torch.randperm(len(wanted), generator=generator)]
    assert torch.equal(torch.stack([batches.at_step(step) for step in range(154)]), wanted)
