"""A bidirectional LSTM over sequences of different lengths: torch's own, called so that it is fast
on CPUs.

There, torch takes 1.6 to 2.4 times as long over packed sequences of different lengths as over
padded ones, which oneDNN computes (torch 2.13; `benchmarks.recognizer_step`). Padded, a sequence
must not begin with its padding: so the second direction runs over each reversed in its own length.
"""

# B sequences, T frames, W width of a frame, H width of one direction

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def run_lstm(lstm: nn.LSTM, x_BTW: Tensor, lengths_B: Tensor) -> Tensor:
    """What a bidirectional LSTM makes of padded sequences, each as if it were alone.

    Args:
        lstm: with `batch_first`, bidirectional.
        x_BTW: padded at the end.
        lengths_B: int64 on the CPU, length of each.

    Returns:
        `[B, T, 2 H]`; padding holds arbitrary values.
    """
    if x_BTW.device.type != "cpu":
        return run_packed(lstm, x_BTW, lengths_B)
    mirror_BT1 = _mirror(lengths_B, x_BTW.shape[1])[..., None]
    for layer in range(lstm.num_layers):
        if layer:
            x_BTW = F.dropout(x_BTW, lstm.dropout, lstm.training)
        forwards, backwards = lstm.all_weights[2 * layer : 2 * layer + 2]
        reversed_BTW = x_BTW.gather(1, mirror_BT1.expand_as(x_BTW))
        there_BTH = _run_direction(x_BTW, forwards)
        back_BTH = _run_direction(reversed_BTW, backwards)
        back_BTH = back_BTH.gather(1, mirror_BT1.expand_as(back_BTH))
        x_BTW = torch.cat((there_BTH, back_BTH), dim=-1)
    return x_BTW


def run_packed(lstm: nn.LSTM, x_BTW: Tensor, lengths_B: Tensor) -> Tensor:
    """The same over packed sequences, as torch documents it; arguments as there. Padding is 0."""
    packed = pack_padded_sequence(x_BTW, lengths_B, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x_BTW.shape[1])[0]


def _mirror(lengths_B: Tensor, num_frames: int) -> Tensor:
    """Where each frame is in its reversed sequence: int64 `[B, T]`; padding stays in place."""
    positions_T = torch.arange(num_frames)
    mirrored_BT = lengths_B[:, None] - 1 - positions_T
    return torch.where(mirrored_BT >= 0, mirrored_BT, positions_T)


def _run_direction(x_BTW: Tensor, weights: Sequence[Tensor]) -> Tensor:
    start_1BH = x_BTW.new_zeros(1, len(x_BTW), weights[1].shape[1])
    # `train`: whether oneDNN keeps what the backward pass needs; no mode of the module matters.
    return torch.lstm(
        x_BTW, (start_1BH, start_1BH), tuple(weights), has_biases=True, num_layers=1, dropout=0.0,
        train=torch.is_grad_enabled(), bidirectional=False, batch_first=True,
    )[0]  # fmt: skip
