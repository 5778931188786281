"""Muon: every weight matrix of the transformer layers gets an orthogonal update.

    optimizer = Muon(model, learning_rate=3e-3)

A step of Adam changes a matrix mostly in the few directions in which gradients are always large;
Muon changes it equally in all directions, so that what is rare in the data is also learned (Jordan
et al., "Muon: An optimizer for hidden layers in neural networks", 2024). Embeddings, output layers,
norms and biases are updated by AdamW. Both use the same learning rate: updates are scaled to the
size of AdamW's (Liu et al., 2025, arXiv:2502.16982).

A step has an extra cost that does not depend on the batch: 1.4 TFLOP at reference size, which is
milliseconds on a GPU, but on a CPU as much as a batch of a thousand frames.

`torch.optim.Muon` orthogonalises in bfloat16 only, which is some 60 times slower on CPUs without
bfloat16 arithmetic: seconds per step. This module uses float32 on CPUs.
"""

# M matrices of one shape, A <= B their sides

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["muon", "adamw"]

MOMENTUM = 0.95
# A quintic iteration that drives every singular value near 1 (between about 0.7 and 1.2) in five
# rounds; the coefficients are Jordan et al.'s.
ROUNDS = 5
LINEAR, CUBIC, QUINTIC = 3.4445, -4.775, 2.0315
ADAM_RMS = 0.2  # usual RMS of AdamW's update, in learning rates


def make_optimizer(
    model: nn.Module, name: OptimizerName, *, learning_rate: float
) -> torch.optim.AdamW:
    """The optimizer that `--optimizer` names, for a model made with `build_transformer`."""
    if name == "muon":
        return Muon(model, learning_rate=learning_rate)
    return torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.1
    )


class Muon(torch.optim.AdamW):
    """Muon for the matrices of a model's layers, AdamW for all else.

    Args:
        model: its layers are found by their names, `...layers.0...`.
        learning_rate: peak learning rate of both.
    """

    def __init__(self, model: nn.Module, *, learning_rate: float) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            is_of_layer = parameter.ndim == 2 and "layers" in name.split(".")
            (matrices if is_of_layer else others).append(parameter)
        groups = [
            {"params": matrices, "is_orthogonal": True},
            {"params": others, "is_orthogonal": False},
        ]
        super().__init__(groups, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.1)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient; afterwards the matrices have none."""
        assert closure is None
        for group in self.param_groups:
            if group["is_orthogonal"]:
                self._move_matrices(group["params"], group["lr"], group["weight_decay"])
        super().step()  # skips what has no gradient
        return None

    def _move_matrices(self, matrices: list[Tensor], rate: float, weight_decay: float) -> None:
        moving = [matrix for matrix in matrices if matrix.grad is not None]
        moving.sort(key=lambda matrix: matrix.shape)
        for (rows, columns), same in itertools.groupby(moving, key=lambda matrix: matrix.shape):
            group = list(same)
            updates = torch.stack([self._smooth_gradient(matrix) for matrix in group])
            size = ADAM_RMS * math.sqrt(max(rows, columns))
            for matrix, update in zip(group, orthogonalize(updates), strict=True):
                matrix.mul_(1 - rate * weight_decay).add_(update, alpha=-rate * size)
                matrix.grad = None

    def _smooth_gradient(self, matrix: Tensor) -> Tensor:
        """Nesterov momentum: the gradient plus its decaying sum."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
            state["step"] = torch.tensor(0.0)  # AdamW expects one when its state is loaded
        state["momentum"].mul_(MOMENTUM).add_(matrix.grad)
        return matrix.grad + MOMENTUM * state["momentum"]


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices with about the same singular vectors, and singular values near 1.

    Args:
        matrices: float32 `[M, rows, columns]`, of any size and scale; computed in bfloat16 on GPUs.

    Returns:
        float32, same shape; a matrix of zeros stays zero.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x_MAB = matrices.mT if is_tall else matrices
    x_MAB = x_MAB / torch.linalg.matrix_norm(x_MAB, keepdim=True).clamp(min=1e-30)
    if x_MAB.is_cuda:
        x_MAB = x_MAB.bfloat16()
    for _ in range(ROUNDS):
        gram_MAA = x_MAB @ x_MAB.mT
        odd_MAA = torch.baddbmm(gram_MAA, gram_MAA, gram_MAA, beta=CUBIC, alpha=QUINTIC)
        x_MAB = torch.baddbmm(x_MAB, odd_MAA, x_MAB, beta=LINEAR)
    x_MAB = x_MAB.to(matrices.dtype)
    return x_MAB.mT if is_tall else x_MAB
