"""Replace dead codes with frames of the whole batch, where several processes share the batch.

vector-quantize-pytorch 1.32 sums its moving averages over the processes, but lets each draw the
replacements from its own frames, in its own way. Here all draw the same, as one process would, and
each contributes those of the drawn frames that it has.
"""

# N frames of a batch, R of them this process's, D width of the quantiser, C codes of a codebook,
# X dead codes

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from commands.processes import Processes


@dataclass(frozen=True)
class BatchRows:
    """Which frames of a batch a process has.

    Attributes:
        rows_R: int64 on the CPU, where in the batch its frames stand.
        num_frames: N.
    """

    rows_R: Tensor
    num_frames: int


def rows_of(processes: Processes, num_single: int, lengths: Sequence[int]) -> BatchRows:
    """The frames of this process in a batch of single frames, then utterances end to end.

    Args:
        num_single: number of single frames in the batch.
        lengths: frames of each of its utterances.
    """
    whole_N = torch.arange(num_single + sum(lengths))
    utterances = whole_N[num_single:].split(list(lengths))
    own = [processes.own(whole_N[:num_single]), *processes.own(utterances)]
    return BatchRows(torch.cat(own), len(whole_N))


def share_batch(quantizer: ResidualVQ, rows: BatchRows) -> None:
    """Tell the quantiser which frames of the next batch this process will give it.

    Every process must draw the same random numbers from torch's global generator.
    """
    for layer in quantizer.layers:
        layer._codebook.replace = partial(_replace, layer._codebook, rows)


def _replace(
    codebook: Any,
    rows: BatchRows,
    batch_samples: Tensor,
    batch_mask: Tensor,
    seq_mask: Tensor | None = None,
) -> None:
    """What `Codebook.replace` of the library does in one process, with the same draws.

    Args:
        codebook: the library's, with one head.
        rows: this process's frames.
        batch_samples: float `[1, R, D]`, their residuals.
        batch_mask: bool `[1, C]`, True at dead codes.
        seq_mask: not used here: no frame is padding.
    """
    assert seq_mask is None
    samples_RD, dead_X = batch_samples[0], batch_mask[0].nonzero()[:, 0]
    device = samples_RD.device
    if len(dead_X) > rows.num_frames:  # some wait for a later batch
        some_N = torch.randperm(len(dead_X), device=device)[: rows.num_frames]
        dead_X = dead_X[some_N].sort().values
    drawn_X = torch.randperm(rows.num_frames, device=device)[: len(dead_X)]
    place_N = torch.full((rows.num_frames,), -1, device=device)
    place_N[rows.rows_R.to(device)] = torch.arange(len(samples_RD), device=device)
    place_X = place_N[drawn_X]
    is_own_X = place_X >= 0
    sampled_XD = torch.zeros(len(dead_X), samples_RD.shape[1], device=device)
    sampled_XD[is_own_X] = samples_RD[place_X[is_own_X]].to(sampled_XD)
    torch.distributed.all_reduce(sampled_XD)  # each row comes from one process
    codebook.embed.data[0, dead_X] = sampled_XD
    codebook.cluster_size.data[0, dead_X] = codebook.reset_cluster_size
    codebook.embed_avg.data[0, dead_X] = sampled_XD * codebook.reset_cluster_size
