"""Floating-point operations of every model, counted from its shapes; a multiplication and an
addition are two.

Forward, a matrix of N weights takes 2 N operations a position, and the backward pass twice as many:
6 N in all for training (Kaplan et al., 2020, arXiv:2001.08361). Attention takes 4 W a query and a
key, W the width of all heads: Q K^T, and the product with V. Masked keys are counted too, as the
kernels of torch compute them. Norms, activations and sampling are not counted: they are less than
1 %. `torch.utils.flop_counter` counts the same on small models (a test compares them).
"""

# P positions, T frames, D embedding width, K codebooks, C codes of a codebook, W width

from collections.abc import Iterable

from torch import nn
from transformers import Gemma4AudioConfig, Gemma4TextConfig, MimiModel

from speech_head.model import SpeechHead
from speech_head.parallel import ParallelHead
from stage1_rvq.codebooks import FIRST_DIRECTIONS, ITERATIONS_PER_ROUND
from stage2_speechless.frame_decoder import FrameDecoder
from stage2_speechless.model import Speechless
from stage2_speechless.muon import ROUNDS

FORWARD, TRAINING = 1, 3  # passes of the size of a forward pass
# With frozen weights the backward pass has only the gradients of activations to compute, half of
# it; with checkpointing the forward pass is run twice.
FROZEN, FROZEN_CHECKPOINTED = 2, 3


def matrices_of(module: nn.Module) -> int:
    """Weights of all linear layers and LSTMs: each is used once a position."""
    count = 0
    for part in module.modules():
        if isinstance(part, nn.Linear):
            count += part.weight.numel()
        elif isinstance(part, nn.LSTM):
            count += sum(p.numel() for n, p in part.named_parameters() if n.startswith("weight"))
    return count


def attention(width: int, num_queries: float, num_keys: float) -> float:
    """Attention of queries to keys, in one layer."""
    return 4.0 * width * num_queries * num_keys


def tower(config: Gemma4AudioConfig, num_frames: float) -> float:
    """Gemma 4's audio tower up to the input of `output_proj`, forward.

    Two convolutions over mel spectrograms (3 x 3, stride 2: 50 and 25 frames a second), then
    conformer layers: two feed-forward parts, attention in chunks, a light convolution. Queries of
    a chunk see the chunk and those before it, and as many relative positions as there are in the
    past. 0.59 GFLOP a frame for E2B and E4B.
    """
    width = config.hidden_size
    first, second = config.subsampling_conv_channels
    num_bins = first  # mel bands; the convolutions halve them twice
    convolutions = 9 * first * (num_bins // 2) * 2 + 9 * first * second * (num_bins // 4)
    projection = (first // 4) * second * width
    context = config.attention_chunk_size + config.attention_context_left - 1
    feed_forward = 2 * 2 * 4 * width * width
    attention_weights = 4 * width * width
    light_convolution = 3 * width * width + config.conv_kernel_size * width
    scores = width * (2 * context + config.attention_context_left)
    layer = feed_forward + attention_weights + light_convolution + scores
    return 2.0 * num_frames * (convolutions + projection + config.num_hidden_layers * layer)


def gemma_attention(config: Gemma4TextConfig, rows: float, queries: float, keys: float) -> float:
    """Attention of all decoder layers, forward; layers with a window see no more than that."""
    total = 0.0
    for layer, layer_type in enumerate(config.layer_types):
        width = config.num_attention_heads * config.per_layer_config[layer].head_dim
        seen = keys if layer_type == "full_attention" else min(keys, config.sliding_window)
        total += attention(width, rows * queries, seen)
    return total


def gemma(
    config: Gemma4TextConfig,
    num_matrices: int,
    rows: float,
    positions: float,
    *,
    written: float,
    keys: float | None = None,
) -> float:
    """Gemma 4's decoder, forward.

    Args:
        num_matrices: `matrices_of` the decoder, without the head.
        rows: sequences.
        positions: new positions of each.
        written: positions of each that get logits over the vocabulary.
        keys: positions that each query sees; all new ones if not given.
    """
    head = config.vocab_size * config.hidden_size
    return 2.0 * rows * (num_matrices * positions + head * written) + gemma_attention(
        config, rows, positions, positions if keys is None else keys
    )


def transformer(
    module: nn.Module, width: int, num_layers: int, rows: float, length: float
) -> float:
    """A transformer of `build_transformer`, forward: rows of so many positions."""
    per_row = 2.0 * matrices_of(module) * length + num_layers * attention(width, length, length)
    return rows * per_row


def frame_decoder(decoder: FrameDecoder, num_frames: float) -> float:
    """The code-frame decoder, forward: codebooks 1 to K-1 of every frame."""
    config = decoder.transformer.config
    steps = decoder.num_codebooks - 1
    inner = transformer(
        decoder.transformer, config.hidden_size, config.num_hidden_layers, num_frames, steps
    )
    return inner + 2.0 * num_frames * (decoder.project.weight.numel() + decoder.heads_JVW.numel())


def speechless(
    model: Speechless, rows: float, prefix: float, frames: float, *, depth_fraction: float = 1.0
) -> float:
    """Speechless, forward: prefixes of characters and their frames; a share of the frames goes
    through the code-frame decoder."""
    config = model.config
    temporal = transformer(model.temporal, config.width, config.num_layers, rows, prefix + frames)
    code0 = 2.0 * model.code0_head.weight.numel() * rows * frames
    return temporal + code0 + frame_decoder(model.frame_decoder, depth_fraction * rows * frames)


def muon(shapes: Iterable[tuple[int, int]]) -> float:
    """What Muon adds to a step, whatever the batch: five rounds of three products for each matrix
    (Jordan et al., 2024)."""
    total = 0.0
    for rows, columns in shapes:
        short, long = sorted((rows, columns))
        total += ROUNDS * (4.0 * short * short * long + 2.0 * short**3)
    return total


def speech_head(
    model: SpeechHead | ParallelHead, rows: float, tokens: float, frames: float
) -> float:
    """The speech head, forward: tokens are read once each, frames pass the temporal transformer
    and the code-frame decoder. For the parallel head all its matrices once a frame, about."""
    if isinstance(model, ParallelHead):
        return 2.0 * matrices_of(model) * rows * frames
    config = model.config
    readers = [
        part for name, part in model.named_children() if name.startswith(("read_", "gate"))
        and name != "read_ahead"
    ]  # fmt: skip
    per_token = sum(matrices_of(part) for part in readers)
    per_frame = sum(
        part.weight.numel() for part in (model.read_ahead, model.code0_head, model.advance_head)
    )
    temporal = transformer(model.temporal, config.width, config.num_layers, rows, frames)
    linear = 2.0 * rows * (tokens * per_token + frames * per_frame)
    return temporal + linear + frame_decoder(model.frame_decoder, rows * frames)


def rvq_encoding(dim: int, num_codebooks: int, codebook_size: int, num_frames: float) -> float:
    """Codes of frames: the linear map, and the distances to all codes of every codebook."""
    return 2.0 * num_frames * (dim * dim + num_codebooks * codebook_size * dim)


def rvq_training(
    dim: int, num_codebooks: int, codebook_size: int, num_frames: float, *, learns: bool
) -> float:
    """A step of the quantiser, all codebooks in use.

    Two linear maps and two products with the metric's map; in each codebook the distances, and,
    with one-hot vectors in vector-quantize-pytorch, each frame's code and the sum of each code's
    frames.

    Args:
        learns: whether the linear maps have gradients (with `--recognizer`).
    """
    maps = 4 * dim * dim * (TRAINING if learns else FORWARD)
    return 2.0 * num_frames * (maps + 3 * num_codebooks * codebook_size * dim)


def kmeans(dim: int, num_codebooks: int, codebook_size: int, num_frames: float) -> float:
    """Fit all codebooks: 20 rounds of distances in the first 4 main directions, in 16, 64, ... and
    in all; and after each codebook, the residuals of those so far."""
    directions = [min(FIRST_DIRECTIONS, dim)]
    while directions[-1] < dim:
        directions.append(min(4 * directions[-1], dim))
    rounds = num_codebooks * ITERATIONS_PER_ROUND * sum(directions)
    searches = dim * num_codebooks * (num_codebooks + 1) / 2
    rotations = 2 * num_codebooks * dim * dim
    return 2.0 * num_frames * (codebook_size * (rounds + searches) + rotations)


def mimi(model: MimiModel, seconds: float, *, decodes: bool = False) -> float:
    """Mimi's encoder, or its decoder, forward: every convolution at the rate of its output (a
    transposed one: of its input), the transformer between them at 25 positions a second. Its
    attention, in a window of 250 positions, is left out: 2 % of the published one."""
    config = model.config
    rate = config.frame_rate if decodes else float(config.sampling_rate)
    total = 0.0
    for part in (model.decoder if decodes else model.encoder).modules():
        if isinstance(part, nn.Conv1d):
            rate /= part.stride[0]
            total += 2.0 * part.weight.numel() * rate
        elif isinstance(part, nn.ConvTranspose1d):
            total += 2.0 * part.weight.numel() * rate
            rate *= part.stride[0]
        elif isinstance(part, nn.Linear):
            total += 2.0 * part.weight.numel() * rate
    return seconds * total
