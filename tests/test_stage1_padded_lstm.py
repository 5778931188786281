"""An LSTM over padded sequences gives what torch's gives over packed ones."""

import copy

import pytest
import torch
from torch import nn

from stage1_rvq.padded_lstm import run_lstm, run_packed


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("lengths", [[5], [1, 7, 3, 7], [4, 4]])
def test_it_equals_packed_sequences(num_layers: int, lengths: list[int]) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 5, num_layers, batch_first=True, bidirectional=True)
    own = copy.deepcopy(lstm)
    lengths_B = torch.tensor(lengths)
    # One frame more than any sequence has, and padding that would be noticed.
    x_BTW = torch.randn(len(lengths), max(lengths) + 1, 6)
    mask_BT1 = (torch.arange(x_BTW.shape[1]) < lengths_B[:, None])[..., None]
    x_BTW = torch.where(mask_BT1, x_BTW, 1e3)
    expected = run_packed(lstm, x_BTW, lengths_B)
    got = torch.where(mask_BT1, run_lstm(own, x_BTW, lengths_B), 0.0)
    torch.testing.assert_close(got, expected)
    expected.square().sum().backward()
    got.square().sum().backward()
    for parameter, other in zip(own.parameters(), lstm.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_dropout_is_between_layers_and_only_in_training() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True, dropout=0.5)
    x_BTW, lengths_B = torch.randn(2, 4, 6), torch.tensor([4, 4])
    first, second = (run_lstm(lstm, x_BTW, lengths_B) for _ in range(2))
    assert not torch.equal(first, second)
    lstm.eval()
    torch.testing.assert_close(run_lstm(lstm, x_BTW, lengths_B), run_packed(lstm, x_BTW, lengths_B))
