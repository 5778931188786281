"""Muon: the library's own update in float32, and which parameters it moves."""

import copy

import pytest
import torch
from torch import nn

from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.model import Speechless
from stage2_speechless.muon import Muon, make_optimizer, orthogonalize


class Net(nn.Module):
    """Two layers of two shapes, and a table that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(24, 16), nn.Linear(16, 24), nn.Linear(16, 24)])
        self.table = nn.Embedding(7, 16)


@pytest.mark.parametrize("shape", [(3, 16, 24), (3, 24, 16), (1, 16, 16)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e4])
def test_singular_values_go_near_one_and_vectors_stay(
    shape: tuple[int, int, int], scale: float
) -> None:
    torch.manual_seed(0)
    left_MAA = torch.linalg.qr(torch.randn(shape[0], shape[1], shape[1])).Q
    right_MBB = torch.linalg.qr(torch.randn(shape[0], shape[2], shape[2])).Q
    rank = min(shape[1:])
    left_MAR, right_MRB = left_MAA[:, :, :rank], right_MBB[:, :rank]
    values_R = torch.linspace(1, 0.1, rank)
    result = orthogonalize(scale * left_MAR * values_R @ right_MRB)
    inner_MRR = left_MAR.mT @ result @ right_MRB.mT
    values_MR = inner_MRR.diagonal(dim1=1, dim2=2)
    assert values_MR.min() > 0.6 and values_MR.max() < 1.3
    torch.testing.assert_close(inner_MRR, torch.diag_embed(values_MR), atol=1e-4, rtol=0)


def test_a_matrix_without_gradient_signal_stays() -> None:
    assert orthogonalize(torch.zeros(1, 4, 6)).abs().max() == 0


def test_matrices_move_as_torchs_muon_moves_them() -> None:
    """Which computes in bfloat16: equal to its rounding."""
    torch.manual_seed(0)
    ours, theirs = (net := Net()), copy.deepcopy(net)
    matrices = [layer.weight for layer in theirs.layers]
    start = [matrix.detach().clone() for matrix in matrices]
    optimizer = Muon(ours, learning_rate=1e-2)
    reference = torch.optim.Muon(
        matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    for layer, matrix, before in zip(ours.layers, matrices, start, strict=True):
        moved = (matrix - before).norm()
        assert (layer.weight - matrix).norm() < 0.02 * moved


def test_everything_else_moves_as_adamw_moves_it() -> None:
    torch.manual_seed(0)
    ours, theirs = (net := Net()), copy.deepcopy(net)
    optimizers = (
        make_optimizer(ours, "muon", learning_rate=1e-2),
        make_optimizer(theirs, "adamw", learning_rate=1e-2),
    )
    for _ in range(3):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(ours.table.weight, theirs.table.weight)
    assert torch.equal(ours.layers[0].bias, theirs.layers[0].bias)
    assert not torch.equal(ours.layers[0].weight, theirs.layers[0].weight)


def test_state_survives_saving() -> None:
    torch.manual_seed(0)
    straight, resumed = (net := Net()), copy.deepcopy(net)
    first, second = (Muon(net, learning_rate=1e-2) for net in (straight, resumed))
    for step in range(4):
        if step == 2:
            saved, second = second.state_dict(), Muon(resumed, learning_rate=1e-2)
            second.load_state_dict(saved)
        for mine, other in zip(straight.parameters(), resumed.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        first.step()
        second.step()
    for mine, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_both_transformers_of_speechless_have_their_matrices_moved_so() -> None:
    model = Speechless(
        SpeechlessConfig(
            num_codebooks=3, codebook_size=12, width=32, num_layers=2, num_heads=2,
            depth_width=16, depth_layers=1, depth_heads=2,
        )
    )  # fmt: skip
    matrices = Muon(model, learning_rate=1e-2).param_groups[0]["params"]
    assert len(matrices) == 3 * 7  # q, k, v, o, gate, up, down of three layers
