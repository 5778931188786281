"""Mimi's decoder on codes that are still being generated, of several utterances in one pass.

stream = MimiStreamDecoder(mimi)
for codes_FK in frames_as_they_are_generated:
    play(stream.decode(codes_FK))
"""

# B utterances, F new Mimi frames (12.5 per second), K codebooks, N samples (24,000 per second);
# inside Mimi: C channels, T steps and P past steps at the layer's own rate; of a transposed
# convolution, G groups with I inputs and O outputs each, and S outputs in time of one step

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import MimiModel
from transformers.models.mimi import modeling_mimi as layers

from gemma4.sequence_cache import SequenceCache, join
from speech_head.mimi import Mimi, exact_float32, refuse_bad_codes

CONVOLUTIONS = (layers.MimiConv1d, layers.MimiConvTranspose1d)


class MimiStreamDecoder:
    """`Mimi.decode` while the codes of an utterance are still being generated, in chunks of any
    size.

    transformers 5.23 cannot do this: with `decoder_past_key_values`, `MimiModel.decode` keeps its
    transformer's state, but its convolutions restart at every call, which is audible as clicks
    (SesameAILabs/csm#105). Here each of them also gets the last inputs of the previous chunk.
    """

    def __init__(self, mimi: Mimi) -> None:
        self.mimi = mimi
        self._cache = SequenceCache(mimi.model.decoder.decoder_transformer.config)
        self._convolutions = _number_convolutions(mimi.model)
        self._past_inputs: list[Tensor | None] = [None for _ in self._convolutions]

    def decode(self, codes_FK: Tensor) -> Tensor:
        """Decode the next frames; raises what `Mimi.decode` raises.

        Args:
            codes_FK: int64 in [0, codebook_size), F >= 1.

        Returns:
            x_N, float32 at `sample_rate_hz`: the F * frame_size samples that follow.
        """
        return decode_together([self], codes_FK[None])[0]


def decode_together(decoders: Sequence[MimiStreamDecoder], codes_BFK: Tensor) -> Tensor:
    """Decode the next frames of several utterances in one pass, whenever each began.

    Args:
        decoders: one for each utterance, of the same Mimi.
        codes_BFK: as `MimiStreamDecoder.decode`, equally many frames for each.

    Returns:
        x_BN, as `MimiStreamDecoder.decode`.
    """
    mimi = decoders[0].mimi
    refuse_bad_codes(codes_BFK, mimi, "codes_BFK", "[B, F, K]")
    model = mimi.model
    past_inputs = _join_past_inputs(decoders)
    with exact_float32(mimi.device):
        x_BCT = model.quantizer.decode(codes_BFK.transpose(1, 2).to(mimi.device))
        x_BTC = _upsample(model.decoder.upsample, x_BCT, past_inputs).transpose(1, 2)
        batch = join([d._cache for d in decoders], num_new=x_BTC.shape[1])
        output = model.decoder.decoder_transformer(
            x_BTC, past_key_values=batch.cache, use_cache=True, **batch.masks(mimi.device)
        )
        x_BCT = output.last_hidden_state.transpose(1, 2)
        for layer in model.decoder.decoder_seanet.layers:
            if isinstance(layer, layers.MimiConvTranspose1d):
                x_BCT = _upsample(layer, x_BCT, past_inputs)
            elif isinstance(layer, layers.MimiConv1d | layers.MimiResnetBlock):
                x_BCT = layer(x_BCT, padding_cache=past_inputs)
            else:
                x_BCT = layer(x_BCT)
    for row, decoder in enumerate(decoders):
        decoder._past_inputs = [x_BCP[row : row + 1] for x_BCP in past_inputs.padding_cache]
    return x_BCT[:, 0]


def _number_convolutions(model: MimiModel) -> list[Any]:
    """The decoder's convolutions, each with its index in the caches of its past inputs."""
    convolutions = [m for m in model.decoder.modules() if isinstance(m, CONVOLUTIONS)]
    for index, convolution in enumerate(convolutions):
        convolution.layer_idx = index  # transformers numbers only the encoder's
    return convolutions


def _join_past_inputs(decoders: Sequence[MimiStreamDecoder]) -> layers.MimiConv1dPaddingCache:
    """What each convolution saw last of every utterance; zeros before its first frame."""
    convolutions = decoders[0]._convolutions
    # A transposed convolution's kernel is twice its stride, so one past input is enough.
    widths = [int(c.padding_total) if isinstance(c, layers.MimiConv1d) else 1 for c in convolutions]
    joined = layers.MimiConv1dPaddingCache(
        num_layers=len(convolutions),
        per_layer_padding=widths,
        per_layer_padding_mode=["constant"] * len(convolutions),
        per_layer_in_channels=[c.conv.in_channels for c in convolutions],
    )
    for index, (convolution, width) in enumerate(zip(convolutions, widths, strict=True)):
        nothing_1CP = convolution.conv.weight.new_zeros(1, convolution.conv.in_channels, width)
        past = [d._past_inputs[index] for d in decoders]
        joined.padding_cache[index] = torch.cat([nothing_1CP if x is None else x for x in past])
    return joined


def _upsample(
    layer: layers.MimiConvTranspose1d, x_BCT: Tensor, past_inputs: layers.MimiConv1dPaddingCache
) -> Tensor:
    """A transposed convolution of the next steps, as products of matrices: for so few, torch 2.13's
    own is slow on a CPU (`benchmarks.speech_head`)."""
    past_BC1 = past_inputs.update(x_BCT, layer.layer_idx)
    x_BTC = torch.cat([past_BC1, x_BCT], dim=-1).transpose(1, 2)
    convolution, [stride] = layer.conv, layer.conv.stride
    groups = convolution.groups
    weight_GIOS = convolution.weight.unflatten(0, (groups, -1))
    rows_BTGI = x_BTC.unflatten(-1, (groups, -1))
    spread_BTCS = torch.einsum("btgi,gios->btgos", rows_BTGI, weight_GIOS).flatten(2, 3)
    # Every step reaches two strides far: over its own, and over that of the next.
    own_BTCS, next_BTCS = spread_BTCS.split(stride, dim=-1)
    y_BCT = (own_BTCS[:, 1:] + next_BTCS[:, :-1]).permute(0, 2, 1, 3).flatten(2)
    return y_BCT if convolution.bias is None else y_BCT + convolution.bias[:, None]
