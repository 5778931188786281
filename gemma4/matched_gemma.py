"""Gemma 4 with random weights that have the published mean, deviation and range, tensor by tensor.

    model = matched_gemma(tiny_config(), seed=0)

Weights of default initialisation are even: norms are one, all dimensions of the residual stream are
alike, nothing is clipped. Trained ones are not, and much that holds for even weights fails on them.
`published_statistics.py` says how uneven Gemma 4 E2B is. Each of its tensors gets its own figures;
one of another configuration gets those of the tensor in the same place in E2B:

- a layer takes after the layer of the same kind of attention at the nearest relative depth, layers
  with their own keys and values after such, and those that read another's after those;
- a matrix is scaled as its fan-in requires: figures times sqrt(fan-in in E2B / its own);
- `k_norm`, which holds the scale of attention's logits, by the square root of the heads' width.

For E4B, whose figures were not published, this is an analogy and no measurement.

One thing is added that figures of single tensors cannot show. Hidden states of trained transformers
have a large part in common, whatever the token (Sun et al., 2024, arXiv:2402.17762, who find that
attention writes much of it, as a bias). Without any, decoder and tower are chaotic: a rounding
error grows 100,000-fold from the first decoder layer to the last, and bfloat16 is another model
(`python -m benchmarks.rounding`). So the embeddings share a direction, a quarter of their power,
and attention passes it on: in its matrices for values and for output is a part of rank one, about
1 % of their power, which leaves mean, deviation and range as published. The tower's begins in the
projection behind its convolutions.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from transformers import Gemma4Config, Gemma4ForConditionalGeneration

from gemma4.clipped_distribution import (
    DEALT_ELEMENTS,
    extreme_elements,
    fit_curve,
    normal_quantiles,
)
from gemma4.kinds import ATTENTION
from gemma4.published_statistics import TensorStatistics, read_published_statistics
from gemma4.true_shapes import e2b_config

PIECE_ELEMENTS = 2**22  # as many are drawn at a time: 16 MiB in float32
# Power of the common part of token embeddings.
COMMON_EMBEDDING_SHARE = 0.25
# Gain of the part of rank one, relative to that of random weights. With 2, an error still grows
# 800-fold through 35 layers of a quarter of E2B's width; with 4, 10-fold. The largest singular
# value of E2B's `v_proj` is then 1.2 times, of its `o_proj` 1.9 times what it would be without.
COMMON_GAIN = 4.0
# In the audio tower 2.4 leaves it chaotic with some seeds. With 3, embeddings of noise are much
# alike (a cosine of 0.99; 0.83 with default initialisation).
TOWER_GAIN = 3.0
MAX_COMMON_SHARE = 0.25  # of a narrow matrix's power
LAYER = re.compile(r"(.*layers\.)(\d+)(\..*)")
# Of layers that read keys and values of another: not in the model, but in the checkpoint.
SHARED = ("k_proj.weight", "v_proj.weight", "k_norm.weight")
TIED = "lm_head.weight"  # the same tensor as embed_tokens.weight; not in the checkpoint


@dataclass(frozen=True)
class CommonPart:
    """A part of rank one that a matrix has in common with others: rows x columns, both of signs.

    Attributes:
        share: its share of the matrix's power.
        row_period: after so many rows, their signs repeat; 1 is all of one sign.
        column_period: the same for columns. Vectors of equal period have equal signs.
    """

    share: float
    row_period: int
    column_period: int


@dataclass(frozen=True)
class PlannedTensor:
    """What a tensor is drawn from."""

    statistics: TensorStatistics
    common: CommonPart | None = None


def planned_tensors(config: Gemma4Config, *, common_part: bool = True) -> dict[str, PlannedTensor]:
    """Every tensor of a checkpoint of this configuration, with what it is drawn from.

    Keys and values of layers that read another layer's are among them, as in the published
    checkpoint; the tied `lm_head` is not.

    Args:
        config: full configuration, of any size.
        common_part: off for the published figures and nothing else.
    """
    published = read_published_statistics()
    planned = {}
    for name, shape in checkpoint_shapes(config).items():
        statistics = _scaled(published[_model_of(name, config)], name, shape, config)
        common = _common_part(name, shape, config) if common_part else None
        planned[name] = PlannedTensor(statistics, common)
    return planned


def checkpoint_shapes(config: Gemma4Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a checkpoint of this configuration."""
    with torch.device("meta"):
        model = Gemma4ForConditionalGeneration._from_config(config, attn_implementation=ATTENTION)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    del shapes[TIED]
    text = config.text_config
    first_shared = text.num_hidden_layers - text.num_kv_shared_layers
    for layer in range(first_shared, text.num_hidden_layers):
        giver = text.layer_types.index(text.layer_types[layer])  # any of its kind has these shapes
        for part in SHARED:
            attention = "model.language_model.layers.{}.self_attn." + part
            shapes[attention.format(layer)] = shapes[attention.format(giver)]
    return shapes


def matched_gemma(
    config: Gemma4Config, seed: int, dtype: torch.dtype = torch.float32
) -> Gemma4ForConditionalGeneration:
    """Build a model in memory and draw its weights; in evaluation mode."""
    model = Gemma4ForConditionalGeneration._from_config(
        config, dtype=dtype, attn_implementation=ATTENTION
    )
    draw_into(model.state_dict(), planned_tensors(config), seed)
    return model.eval()


def draw_into(state: Mapping[str, Tensor], planned: Mapping[str, PlannedTensor], seed: int) -> None:
    """Draw the tensors of a state dict in place."""
    for name, tensor in state.items():
        if name != TIED:
            flat, start = tensor.view(-1), 0
            for piece in draw_pieces(name, planned[name], seed):
                flat[start : start + len(piece)] = piece
                start += len(piece)


def draw_pieces(name: str, planned: PlannedTensor, seed: int) -> Iterator[Tensor]:
    """Draw a tensor in flat float32 pieces, in order; they depend on the arguments only.

    The distribution is a normal one, clipped to the published range, with a mean and a deviation
    chosen so that those after clipping are the published ones. Where too much would pile up at its
    lower end it is log-normal: see `_fit`. One element each is the published smallest and largest,
    unless there are only a few.
    """
    statistics = planned.statistics
    generator = _generator(seed, name)
    num_elements = math.prod(statistics.shape)
    if statistics.std == 0:
        yield torch.full((num_elements,), statistics.mean)
        return
    curve, extremes = fit_curve(statistics), extreme_elements(statistics)
    if num_elements <= DEALT_ELEMENTS and not planned.common:
        dealt = torch.cat([curve(normal_quantiles(num_elements - len(extremes))), extremes])
        yield dealt[torch.randperm(num_elements, generator=generator)].float()
        return
    places = torch.randint(num_elements, (len(extremes),), generator=generator).tolist()
    num_rows = statistics.shape[0]
    num_columns = num_elements // num_rows
    rows_at_once = max(1, PIECE_ELEMENTS // num_columns)
    for first_row in range(0, num_rows, rows_at_once):
        rows = range(first_row, min(first_row + rows_at_once, num_rows))
        z = torch.randn(len(rows), num_columns, generator=generator)
        if planned.common:
            _add_common_part(z, planned.common, first_row, seed)
        piece = curve(z).view(-1)
        start = first_row * num_columns
        for place, extreme in zip(places, extremes.tolist(), strict=True):
            if start <= place < start + len(piece):
                piece[place - start] = extreme
        yield piece


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def _add_common_part(z: Tensor, common: CommonPart, first_row: int, seed: int) -> None:
    """Mix the common part into standard normal numbers, in place."""
    num_rows, num_columns = z.shape
    rows = torch.arange(first_row, first_row + num_rows) % common.row_period
    columns = torch.arange(num_columns) % common.column_period
    of_rows, of_columns = _signs(common.row_period, seed), _signs(common.column_period, seed)
    z *= math.sqrt(1 - common.share)
    z.addr_(of_rows[rows], of_columns[columns], alpha=math.sqrt(common.share))


def _signs(period: int, seed: int) -> Tensor:
    """As many of one sign as of the other, so that means stay as published."""
    if period == 1:
        return torch.ones(1)
    order = torch.randperm(period, generator=_generator(seed, f"signs {period}"))
    return order % 2 * 2.0 - 1.0


def _common_part(name: str, shape: tuple[int, ...], config: Gemma4Config) -> CommonPart | None:
    decoder_width = config.text_config.hidden_size
    if name == "model.language_model.embed_tokens.weight":
        return CommonPart(COMMON_EMBEDDING_SHARE, 1, decoder_width)
    found = LAYER.fullmatch(name)
    if "language_model" in name and found:
        width, gain = decoder_width, COMMON_GAIN
        head_width = config.text_config.per_layer_config[int(found[2])].head_dim
    elif "audio_tower" in name:
        width, gain = config.audio_config.hidden_size, TOWER_GAIN
        head_width = width // config.audio_config.num_attention_heads
    else:
        return None
    share = min(MAX_COMMON_SHARE, gain**2 / shape[-1]) if shape else 0.0
    if name.endswith(("self_attn.v_proj.weight", "self_attn.v_proj.linear.weight")):
        return CommonPart(share, head_width, width)
    if name.endswith(("self_attn.o_proj.weight", "self_attn.post.linear.weight")):
        return CommonPart(share, width, head_width)
    if name.endswith("input_proj_linear.weight"):  # of what a ReLU leaves: all of one sign
        return CommonPart(share, width, 1)
    return None


@cache
def _e2b() -> Gemma4Config:
    return e2b_config()


def _model_of(name: str, config: Gemma4Config) -> str:
    """The tensor of E2B that a tensor of another configuration takes after."""
    found = LAYER.fullmatch(name)
    if not found:
        return name
    before, layer, after = found[1], int(found[2]), found[3]
    ours, theirs = (_layers_like(before, whole) for whole in (config, _e2b()))
    group, kind = next((group, group[layer]) for group in ours if layer in group)
    model = theirs[ours.index(group)]
    depth = _relative_depth(layer, group)
    same = [i for i in model if model[i] == kind]
    return f"{before}{min(same, key=lambda i: abs(_relative_depth(i, model) - depth))}{after}"


def _layers_like(part: str, config: Gemma4Config) -> list[dict[int, str]]:
    """Layers of a part of the model, with their kind, in groups of consecutive ones: those of the
    decoder with their own keys and values, and those that read another's."""
    if "audio_tower" in part:
        return [dict.fromkeys(range(config.audio_config.num_hidden_layers), "")]
    if "vision_tower" in part:
        return [dict.fromkeys(range(config.vision_config.num_hidden_layers), "")]
    kinds = dict(enumerate(config.text_config.layer_types))
    first_shared = len(kinds) - config.text_config.num_kv_shared_layers
    own = {layer: kind for layer, kind in kinds.items() if layer < first_shared}
    return [own, {layer: kind for layer, kind in kinds.items() if layer >= first_shared}]


def _relative_depth(layer: int, group: Mapping[int, str]) -> float:
    return (layer - min(group)) / max(1, len(group) - 1)


def _scaled(
    statistics: TensorStatistics, name: str, shape: tuple[int, ...], config: Gemma4Config
) -> TensorStatistics:
    """The figures of a tensor of E2B for one of another shape in its place."""
    ratio = 1.0
    if "embed_tokens_per_layer" in name:  # multiplied by the square root of one layer's width
        theirs, ours = (whole.text_config.hidden_size_per_layer_input for whole in (_e2b(), config))
        ratio = theirs / ours
    elif name.endswith("k_norm.weight"):
        ratio = statistics.shape[0] / shape[0]
    elif len(shape) > 1 and "position_embedding_table" not in name:
        ratio = math.prod(statistics.shape[1:]) / math.prod(shape[1:])
    factor = math.sqrt(ratio)
    return replace(
        statistics, shape=shape, mean=factor * statistics.mean, std=factor * statistics.std,
        min=factor * statistics.min, max=factor * statistics.max,
    )  # fmt: skip
