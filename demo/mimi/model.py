"""The demo's Mimi: the stock `MimiModel`, 2.5 M parameters, 8 codebooks of 512 at 12.5 Hz.

A codec of 900 bit/s has no bits for phase. It can speak clearly only at a pitch whose period
divides the 40 ms of its inner frames, 100 or 200 Hz: there it can memorise the carrier waves.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import MimiConfig, MimiModel

from commands.checkpoint import model_written_aside
from demo.mimi.quantizer import make_canonical
from speech_head.mimi import reset_codebook_caches

MIMI_CONFIG: dict[str, Any] = {
    "hidden_size": 128, "num_filters": 16, "num_residual_layers": 1, "num_hidden_layers": 2,
    "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 4,
    "upsample_groups": 128, "num_quantizers": 8, "codebook_size": 512, "codebook_dim": 64,
    "vector_quantization_hidden_dimension": 64,
    "sliding_window": 32,  # steps of 40 ms: as long as a training segment, so it is trained in full
}  # fmt: skip


def build_mimi() -> MimiModel:
    """Build the model with random weights from which it can be trained.

    With transformers 5.23's own initialisation (Kaiming weights, biases up to 0.4) it does not
    learn: speech is quieter than the first biases, where the encoder is linear, and after 800 steps
    everything still sounds like the mean spectrum. Here activations keep their scale from layer to
    layer.
    """
    model = MimiModel(MimiConfig(**MIMI_CONFIG))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv1d):
                fan_in = module.weight[0].numel()
            elif isinstance(module, nn.ConvTranspose1d):  # two of its taps add up in an output
                fan_in = 2 * module.in_channels // module.groups
            else:
                continue
            module.weight.normal_(std=fan_in**-0.5)
            if module.bias is not None:
                module.bias.zero_()
        encoder, decoder = model.encoder, model.decoder
        encoder.encoder_seanet.layers[0].conv.weight.mul_(8)  # speech is quiet: rms 0.1
        encoder.downsample.conv.weight.mul_(0.5)
        decoder.decoder_seanet.layers[-1].conv.weight.mul_(0.1)
    return model


def save_mimi(model: MimiModel, folder: Path) -> None:
    """Write a trained model for `MimiModel.from_pretrained`, in float16.

    Codes are nearest neighbours, so rounding changes 1 % of them; load it as float32.
    """
    rounded = MimiModel(model.config)
    rounded.load_state_dict(model.state_dict())
    make_canonical(rounded.quantizer)
    with model_written_aside(folder) as aside:
        rounded.to(torch.float16).save_pretrained(aside)


def copy_mimi(model: MimiModel) -> MimiModel:
    """A copy to evaluate while the original is trained further."""
    copy = MimiModel(model.config)
    copy.load_state_dict(model.state_dict())
    reset_codebook_caches(copy)
    return copy
