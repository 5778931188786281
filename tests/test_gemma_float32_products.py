"""bfloat16 on a CPU without instructions for it: the same layers, their products in float32."""

import pytest
import torch
from torch import nn

from gemma4 import float32_products
from gemma4.float32_products import MIN_POSITIONS, compute_in_float32, needs_float32

CPU = torch.device("cpu")


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(48, 40, dtype=torch.bfloat16).requires_grad_(False)


@pytest.mark.parametrize("num_positions", [1, MIN_POSITIONS - 1, MIN_POSITIONS, 3 * MIN_POSITIONS])
def test_a_product_is_the_exact_one_rounded(layer, num_positions):
    x = torch.randn(num_positions, 48).bfloat16()
    exact = x.double() @ layer.weight.double().T + layer.bias.double()
    compute_in_float32(layer)
    torch.testing.assert_close(layer(x).double(), exact, rtol=2**-6, atol=2**-6)
    assert layer(x).dtype == torch.bfloat16 and isinstance(layer, nn.Linear)


def test_gradients_are_those_of_the_stock_layer(layer):
    x = torch.randn(2, MIN_POSITIONS, 48).bfloat16().requires_grad_()
    gradients = []
    for _ in range(2):
        layer(x).float().square().sum().backward()
        gradients.append(x.grad.double())
        x.grad = None
        compute_in_float32(layer)
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0.05)
    assert layer.weight.grad is None


def test_other_layers_stay_as_they_are(layer):
    before = torch.randn(MIN_POSITIONS, 48)
    trained = nn.Linear(48, 40, dtype=torch.bfloat16)
    expected = trained(before.bfloat16())
    compute_in_float32(trained)
    assert torch.equal(trained(before.bfloat16()), expected)  # its weight is trained
    exact = nn.Linear(48, 40).requires_grad_(False)
    expected = exact(before)
    compute_in_float32(exact)
    assert torch.equal(exact(before), expected)


def test_only_where_the_processor_needs_it(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert needs_float32(CPU, torch.bfloat16) and not needs_float32(CPU, torch.float32)
    assert not needs_float32(torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert not float32_products.needs_float32(CPU, torch.bfloat16)
