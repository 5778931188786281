"""One LoRA step on a spoken question: ours, from codes, against the usual recipe, from recordings.

    python -m benchmarks.finetune
    python -m benchmarks.finetune --batch-size 1 --seconds 2 --rounds 1 --no-memory

The usual recipe computes a mel spectrogram of every recording and runs it through the frozen audio
tower at every step; ours looks up codes, and speech enters after the tower. Everything else is the
same: model, adapter, text, number of positions, and a plain forward pass, backward pass and AdamW
step.

Both take turns, so that other load on the machine affects both alike; medians are reported. On CUDA
the shapes are E4B's own (7.9 B random parameters, bfloat16); elsewhere all widths of tower and
decoder are divided by about four, and only the ratio is meaningful.
"""

# B rows, S text positions, T frames (25 per second), D tower width, N samples (16,000 per second)

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from peft import get_peft_model
from torch import Tensor
from transformers import (
    Gemma4AudioConfig,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
)

from benchmarks.equal_size import count_parameters
from benchmarks.peak_memory import measure_peak, show_peak
from benchmarks.timing import take_turns
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, pick_device
from commands.setting_types import PositiveFloat, PositiveInt
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.gemma import count_audio_tokens
from gemma4.kinds import ATTENTION
from gemma4.speech_embeddings import accept_embeddings
from gemma4.tiny_gemma import small_config
from gemma4.true_shapes import e4b_config
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ
from stage3_finetune.dialogue import NO_LABEL
from stage3_finetune.model import lora_config

Recipe = Literal["codes", "recordings"]
RECIPES: tuple[Recipe, ...] = ("codes", "recordings")
NUM_TEXT_TOKENS = 60  # template, transcript and answer together


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare a fine-tuning step on codes with one on recordings."""

    batch_size: PositiveInt = 4
    """rows per step"""
    seconds: PositiveFloat = 5.0
    """seconds of speech in each row"""
    rounds: PositiveInt = 3
    """number of timed runs of each, after a warm-up"""
    memory: bool = True
    """also measure peak memory, each in its own process (on Linux, or on CUDA)"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""


class FinetuneStep:
    """A Gemma with an adapter, its optimizer, and rows in both forms; a call takes one step."""

    def __init__(self, config: BenchmarkConfig, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        shape = e4b_config() if device.type == "cuda" else small_shape()
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        with torch.device(device):
            base = Gemma4ForConditionalGeneration._from_config(
                shape, dtype=dtype, attn_implementation=ATTENTION
            )
        self.num_parameters = {
            "decoder": count_parameters(base.model.language_model),
            "tower": count_parameters(base.model.audio_tower),
        }
        model = get_peft_model(accept_embeddings(base), lora_config(32, 64, 0.05)).train()
        # As stage3_finetune.train does: recompute activations in the backward pass.
        model.enable_input_require_grads()
        model.activation_checkpointing_enable({"use_reentrant": False})
        self.model = model
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)

        self.extractor = Gemma4AudioFeatureExtractor()
        self.rvq = SpeechRVQ(RVQConfig(dim=shape.audio_config.hidden_size)).to(device)
        num_samples = round(config.seconds * GEMMA_SAMPLE_RATE_HZ)
        noise = np.random.default_rng(0)
        self.waveforms = [
            0.1 * noise.standard_normal(num_samples).astype(np.float32)
            for _ in range(config.batch_size)
        ]
        num_frames = count_audio_tokens(num_samples)
        size = (config.batch_size, num_frames, self.rvq.config.num_codebooks)
        self.codes_BTK = torch.randint(self.rvq.config.codebook_size, size)
        text_BS = torch.randint(1, 200, (config.batch_size, NUM_TEXT_TOKENS))
        slots_BT = torch.full((config.batch_size, num_frames), shape.audio_token_id)
        self.ids_BS = torch.cat([slots_BT, text_BS], dim=1).to(device)
        self.labels_BS = self.ids_BS.clone()
        self.labels_BS[:, :num_frames] = NO_LABEL

    def __call__(self, recipe: Recipe) -> float:
        """Take a step; returns the loss."""
        features, mask = self.from_codes() if recipe == "codes" else self.from_recordings()
        loss: Tensor = self.model(
            input_ids=self.ids_BS, labels=self.labels_BS,
            input_features=features, input_features_mask=mask,
        ).loss  # fmt: skip
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def from_codes(self) -> tuple[Tensor, Tensor]:
        """Embeddings `[B, T, D]` and their mask."""
        with torch.no_grad():
            frames = [self.rvq.decode(codes_TK.to(self.device)) for codes_TK in self.codes_BTK]
        features_BTD = torch.stack(frames)
        return features_BTD, torch.ones_like(features_BTD[..., 0], dtype=torch.bool)

    def from_recordings(self) -> tuple[Tensor, Tensor]:
        """Mel spectrograms and their mask, as the usual data collator makes them."""
        batch = self.extractor(
            self.waveforms, sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt"
        )
        return (
            batch["input_features"].to(self.device),
            batch["input_features_mask"].bool().to(self.device),
        )


def main(argv: list[str] | None = None) -> None:
    """Measure and print the table."""
    config = parse_config(BenchmarkConfig, argv)
    device = pick_device(config.device)
    seconds = _measure_seconds(config, device)
    print(f"{'':<12}{'s per step':>12}{'peak memory':>14}")
    for recipe in RECIPES:
        print(f"{recipe:<12}{seconds[recipe]:>12.3f}{_peak(config, recipe, device):>14}")
    print(f"recordings / codes: {seconds['recordings'] / seconds['codes']:.2f} x")


def _measure_seconds(config: BenchmarkConfig, device: torch.device) -> dict[Recipe, float]:
    step = FinetuneStep(config, device)
    sizes = ", ".join(f"{name} {n / 1e6:,.0f} M" for name, n in step.num_parameters.items())
    print(f"{config.batch_size} rows of {config.seconds:g} s on {device}; {sizes} parameters")
    ways = {recipe: partial(step, recipe) for recipe in RECIPES}
    return take_turns(ways, config.rounds, device, "steps")


def small_shape() -> Gemma4Config:
    """E4B with every width divided by about four, and a third of its layers."""
    text = Gemma4TextConfig(
        vocab_size=8192, vocab_size_per_layer_input=8192, hidden_size=640, intermediate_size=2560,
        num_hidden_layers=12, num_attention_heads=4, num_key_value_heads=1, head_dim=128,
        global_head_dim=256, hidden_size_per_layer_input=64, num_kv_shared_layers=5,
        sliding_window=512, final_logit_softcapping=30.0, layer_types=_layer_types(12),
    )  # fmt: skip
    audio = Gemma4AudioConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, output_proj_dims=384
    )
    names = ("boi", "eoi", "image", "video", "boa", "eoa", "audio")
    return small_config(text, audio, {name: 500 + i for i, name in enumerate(names)})


def _layer_types(num_layers: int) -> list[str]:
    return ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(num_layers)]


def _peak(config: BenchmarkConfig, recipe: Recipe, device: torch.device) -> str:
    if not config.memory:
        return "-"
    return show_peak(measure_peak(_step_alone, config, recipe, device=device))


def _step_alone(config: BenchmarkConfig, recipe: Recipe) -> None:
    step = FinetuneStep(config, pick_device(config.device))
    for _ in range(2):  # the optimizer's state exists from the second step on
        step(recipe)


if __name__ == "__main__":
    run_command(main)
