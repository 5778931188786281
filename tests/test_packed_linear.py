"""Linear layers whose weights are repacked compute what they did before."""

import pytest
import torch
from torch import nn

from gemma4.linear import runs_in_onednn
from gemma4.packed_linear import PackedLinear, pack_linear_layers
from speech_head.mimi import Mimi, tiny_mimi
from speech_head.mimi_stream import MimiStreamDecoder

PRECISIONS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2,), (2, 9), (2, 0)])
@pytest.mark.parametrize("bias", [False, True])
def test_it_computes_what_the_layer_does(dtype, shape, bias):
    if not runs_in_onednn(dtype):
        pytest.skip(f"oneDNN does not compute {dtype} on this CPU")
    torch.manual_seed(0)
    layer = nn.Linear(40, 24, bias=bias).to(dtype).eval()
    x = torch.randn(*shape, 40).to(dtype)
    with torch.no_grad():
        expected, found = layer(x), PackedLinear(layer)(x)
    assert found.dtype == dtype and found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=PRECISIONS[dtype], rtol=PRECISIONS[dtype])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.table.weight
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 2)})
        self.quantized = Quantized(8, 8)

    def forward(self, ids):
        return self.out(self.layers(self.table(ids)))


class Quantized(nn.Linear):
    """As those of bitsandbytes."""


def test_shared_weights_adapters_and_other_layers_stay():
    torch.manual_seed(0)
    model = Model().eval().requires_grad_(False)
    ids = torch.arange(11)
    expected = model(ids)
    pack_linear_layers(model)
    kinds = [type(layer) for layer in model.layers]
    assert kinds == [PackedLinear, nn.GELU, PackedLinear] and type(model.out) is nn.Linear
    assert type(model.lora_A["default"]) is nn.Linear and type(model.quantized) is Quantized
    torch.testing.assert_close(model(ids), expected)


def test_a_codec_says_the_same():
    codes_FK = torch.randint(64, (12, 8), generator=torch.Generator().manual_seed(0))
    sounds = []
    for packs in (False, True):
        mimi = Mimi(tiny_mimi())
        if packs:
            pack_linear_layers(mimi.model)
        stream = MimiStreamDecoder(mimi)
        sounds += [mimi.decode(codes_FK), torch.cat([stream.decode(c[None]) for c in codes_FK])]
    for sound_N in sounds[1:]:
        assert (sound_N - sounds[0]).norm() < 1e-5 * sounds[0].norm()
