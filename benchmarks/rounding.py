"""How far a rounding error grows through Gemma 4, with three kinds of random weights.

    python -m benchmarks.rounding
    python -m benchmarks.rounding --size e2b                  # 8 GB of memory
    python -m benchmarks.rounding --size e2b --part tower     # 3 GB

The decoder: three questions, each a difference of the last six layers' states at the written
positions, divided by the norm of the states: what float32 rounds away (against float64), what
changes when tokens are written one by one after a prompt instead of all in one forward pass, and
what bfloat16 changes. The weights: as transformers initialises them; drawn from the published
figures alone; and matched, which is those with the part in common that `gemma4/matched_gemma.py`
explains.

The decoder is alone, with ids of a small vocabulary: rows of the embedding tables are drawn alike,
so that a few stand for all.

The audio tower: how embeddings of two clips of noise differ in a batch from alone, and in bfloat16
from float32.
"""

# B rows (1), S positions, L layers, T frames, D width

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    Gemma4AudioFeatureExtractor,
    Gemma4AudioModel,
    Gemma4TextModel,
)
from transformers.models.gemma4.modeling_gemma4 import (
    Gemma4RMSNorm,
)

from benchmarks.random_decoder import SHAPES, Weights, build_decoder, fill
from commands.command_line import parse_config, run_command
from commands.setting_types import Seed
from gemma4.gemma import AudioEncoder
from gemma4.layer_states import LAYERS
from gemma4.matched_gemma import draw_into, planned_tensors

TOWER = "model.audio_tower."
CLIP_SAMPLES = (60_000, 31_000)  # of 16 kHz
VOCABULARY_SIZE = 512
NUM_PROMPT, NUM_WRITTEN = 16, 32  # tokens: those of the prompt, and those written after it


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure how far rounding errors grow through the decoder."""

    size: Literal["tiny", "e2b", "e4b"] = "tiny"
    """shapes of the decoder: tiny, or those of E2B or E4B"""
    part: Literal["decoder", "tower"] = "decoder"
    """the decoder, or the audio tower"""
    weights: tuple[Weights, ...] = ("default", "figures", "matched")
    """default: as transformers initialises them; figures: drawn from the published figures alone;
    matched: the same with a part in common"""
    seed: Seed = 0
    """seed for the random weights and tokens"""


@dataclass(frozen=True)
class Growth:
    """Relative differences of the states; a float32 number is rounded by 3e-8 on average.

    Attributes:
        float32: float32 against float64, one forward pass.
        one_by_one: float32, written one by one against one forward pass.
        bfloat16: bfloat16 against float64, one forward pass.
        bfloat16_one_by_one: bfloat16, written one by one against one forward pass.
        cosine: mean cosine of the states of two tokens, last layer but one.
    """

    float32: float
    one_by_one: float
    bfloat16: float
    bfloat16_one_by_one: float
    cosine: float


@dataclass(frozen=True)
class TowerChange:
    """Relative differences of the tower's embeddings.

    Attributes:
        batch: float32, both clips in a batch against each alone.
        bfloat16: bfloat16 against float32, alone.
        cosine: mean cosine of two frames.
    """

    batch: float
    bfloat16: float
    cosine: float


def main(argv: list[str] | None = None) -> None:
    """Print a table."""
    config = parse_config(BenchmarkConfig, argv)
    if config.part == "tower":
        print("| weights | float32, batch from single | bfloat16, from float32 | cosine of frames |"
              "\n|---|---|---|---|")  # fmt: skip
        for weights in config.weights:
            change = measure_tower(config.size, weights, config.seed)
            print(f"| {weights} | {change.batch:.1e} | {change.bfloat16:.1e} | "
                  f"{change.cosine:.2f} |", flush=True)  # fmt: skip
        return
    decoder, planned = build_decoder(config.size, vocabulary_size=VOCABULARY_SIZE)
    generator = torch.Generator().manual_seed(config.seed)
    num_tokens = NUM_PROMPT + NUM_WRITTEN
    ids_BS = torch.randint(VOCABULARY_SIZE, (1, num_tokens), generator=generator)
    print(f"{config.size}: {decoder.config.num_hidden_layers} layers, {NUM_PROMPT} prompt "
          f"tokens, {NUM_WRITTEN} written\n")  # fmt: skip
    print("| weights | float32, from float64 | float32, one by one | bfloat16, from float64 | "
          "bfloat16, one by one | cosine of tokens |\n|---|---|---|---|---|---|")  # fmt: skip
    for weights in config.weights:
        fill(decoder, planned[weights], config.seed)
        found = measure_growth(decoder, ids_BS, NUM_PROMPT)
        print(f"| {weights} | {found.float32:.1e} | {found.one_by_one:.1e} | {found.bfloat16:.1e} "
              f"| {found.bfloat16_one_by_one:.1e} | {found.cosine:.2f} |", flush=True)  # fmt: skip


@torch.no_grad()
def measure_growth(decoder: Gemma4TextModel, ids_BS: Tensor, num_prompt: int) -> Growth:
    """Run the decoder in three precisions; its weights are bfloat16 before and after."""
    with _in_float64(decoder):
        exact_LSD = states_at_once(decoder, ids_BS, num_prompt)
    low_LSD = states_at_once(decoder, ids_BS, num_prompt)
    low_written_LSD = states_one_by_one(decoder, ids_BS, num_prompt)
    _cast(decoder, torch.float32)
    single_LSD = states_at_once(decoder, ids_BS, num_prompt)
    written_LSD = states_one_by_one(decoder, ids_BS, num_prompt)
    _cast(decoder, torch.bfloat16)  # exact: the weights were bfloat16
    return Growth(
        float32=_difference(single_LSD, exact_LSD),
        one_by_one=_difference(written_LSD, single_LSD),
        bfloat16=_difference(low_LSD, exact_LSD),
        bfloat16_one_by_one=_difference(low_written_LSD, low_LSD),
        cosine=_mean_cosine(exact_LSD[-2]),
    )


def states_at_once(decoder: Gemma4TextModel, ids_BS: Tensor, num_prompt: int) -> Tensor:
    """States after a prompt, `[L, S, D]` in float64, from one forward pass."""
    output = decoder(input_ids=ids_BS, use_cache=False, output_hidden_states=True)
    return _last_layers(output.hidden_states)[:, num_prompt:]


def states_one_by_one(decoder: Gemma4TextModel, ids_BS: Tensor, num_prompt: int) -> Tensor:
    """The same, from one forward pass for the prompt and one for every token after it."""
    cache = DynamicCache(config=decoder.config)
    decoder(input_ids=ids_BS[:, :num_prompt], past_key_values=cache, use_cache=True)
    written = []
    for position in range(num_prompt, ids_BS.shape[1]):
        output = decoder(
            input_ids=ids_BS[:, position : position + 1], past_key_values=cache, use_cache=True,
            output_hidden_states=True,
        )  # fmt: skip
        written.append(_last_layers(output.hidden_states))
    return torch.cat(written, dim=1)


def measure_tower(size: str, weights: Weights, seed: int) -> TowerChange:
    """Encode two clips alone, in a batch, and in bfloat16."""
    shape = SHAPES[size]()
    torch.manual_seed(seed)
    tower = Gemma4AudioModel._from_config(shape.audio_config, attn_implementation="eager")
    if weights != "default":
        plan = planned_tensors(shape, common_part=weights == "matched")
        towers = {name.removeprefix(TOWER): part for name, part in plan.items() if TOWER in name}
        draw_into(tower.state_dict(), towers, seed)
    tower.to(torch.bfloat16)  # as it is stored
    encoder = AudioEncoder(tower, Gemma4AudioFeatureExtractor())
    noise = np.random.default_rng(seed)
    clips = [0.1 * noise.standard_normal(size).astype(np.float32) for size in CLIP_SAMPLES]
    low_TD = torch.cat([encoder.encode_at_once([clip])[0] for clip in clips])
    tower.float()
    single_TD = torch.cat([encoder.encode_at_once([clip])[0] for clip in clips])
    batch_TD = torch.cat(encoder.encode_at_once(clips))
    return TowerChange(
        batch=_difference(batch_TD, single_TD),
        bfloat16=_difference(low_TD, single_TD),
        cosine=_mean_cosine(single_TD),
    )


def _mean_cosine(x_TD: Tensor) -> float:
    unit_TD = nn.functional.normalize(x_TD, dim=-1)
    num_frames = len(unit_TD)
    cosines = (unit_TD @ unit_TD.T).sum().item() - num_frames
    return cosines / (num_frames * (num_frames - 1))


def _last_layers(hidden_states: Sequence[Tensor]) -> Tensor:
    return torch.stack([hidden_states[layer][0].double() for layer in LAYERS])


def _difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast weights and `layer_scalar`, tensor by tensor; other buffers keep their precision."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        assert not name.endswith("embed_scale")
        tensor.data = tensor.data.to(dtype)


@contextlib.contextmanager
def _in_float64(decoder: Gemma4TextModel) -> Iterator[None]:
    """Compute in float64, with only one layer's weights in that precision at a time."""

    def widen(module: nn.Module, _: Any) -> None:
        _cast(module, torch.float64)

    def narrow(module: nn.Module, *_: Any) -> None:
        _cast(module, torch.bfloat16)

    norms = [module for module in decoder.modules() if isinstance(module, Gemma4RMSNorm)]
    hooks = []
    for part in (*decoder.layers, *(p for p in decoder.children() if p is not decoder.layers)):
        hooks += [part.register_forward_pre_hook(widen), part.register_forward_hook(narrow)]
    for norm in norms:
        norm.forward = _float64_norm(norm)  # transformers' own computes in float32 (5.23)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm in norms:
            del norm.forward


def _float64_norm(norm: Gemma4RMSNorm) -> Callable[[Tensor], Tensor]:
    def forward(x_BSD: Tensor) -> Tensor:
        x_BSD = x_BSD * (x_BSD.square().mean(dim=-1, keepdim=True) + norm.eps).rsqrt()
        return x_BSD * norm.weight if norm.with_scale else x_BSD

    return forward


if __name__ == "__main__":
    run_command(main)
