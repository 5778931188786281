"""Short runs of the work that a plan counts, with random weights at true shapes.

Each builds a model on a device, and times a batch that is cut down to about a second's work. Where
a model is deep, a few of its layers stand for all.
"""

# B rows, S positions, T frames (25 per second), D width, K codebooks, N frames, J codebooks but one

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    Gemma4AudioConfig,
    Gemma4AudioFeatureExtractor,
    Gemma4TextConfig,
    LlamaModel,
    MimiConfig,
)

from commands.device import full_float32
from gemma4.audio_tower import fast_cpu_forward, stock_forward
from pipeline import flops
from pipeline.plan_models import META, build_decoder, build_mimi, build_tower, first_layers
from pipeline.work import Timed
from speech_head.mimi import Mimi
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.recognizer import viterbi_starts
from stage2_speechless.frame_decoder import FrameDecoder
from stage2_speechless.muon import orthogonalize

Model = TypeVar("Model", bound=nn.Module)

WEIGHT = 0.01  # of a model that is only timed
LONG_S = 1.5  # a call that takes longer is timed once, without a warm-up
TOWER_LAYERS = 2  # that stand for all
DECODER_LAYERS = 2
MEL_CLIP_S = 5
NUM_ALIGNED = 150  # frames
NUM_GENERATED = 4  # frames
ADAMW_FLOPS = 12.0  # about, a weight


def fitting(count: int, flops_each: float, budget: float) -> int:
    """How many of so many rows a probe takes."""
    return max(1, min(count, int(budget / flops_each)))


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes: the median of three after a first, or the first if it is long."""

    def once() -> float:
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        return time.perf_counter() - started

    first = once()
    return first if first > LONG_S else statistics.median(once() for _ in range(3))


def materialize(build: Callable[[], Model], device: torch.device) -> Model:
    """A model on a device, whose weights are all the same number: quicker than random ones, and as
    slow to compute with."""
    with META:
        model = build()
    model.to_empty(device=device)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(WEIGHT if tensor.is_floating_point() else 0)
    return model


def wait(device: torch.device) -> None:
    """Wait until the device has done all of it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def time_product(device: torch.device, dtype: torch.dtype, size: int = 1024) -> Timed:
    """A product of square matrices."""
    square = torch.randn(size, size, device=device, dtype=dtype)
    with full_float32():
        seconds = seconds_of(lambda: square @ square, device)
    return Timed(2.0 * size**3, seconds)


@torch.no_grad()
def time_tower(
    config: Gemma4AudioConfig, rows: int, num_frames: int, dtype: torch.dtype, *,
    fast_cpu: bool, device: torch.device, budget: float,
) -> Timed:  # fmt: skip
    """The audio tower on mel spectrograms: its convolutions alone, and with a few layers."""
    rows = fitting(rows, flops.tower(config, num_frames) / 4, budget)
    shape = (rows, 4 * num_frames, config.subsampling_conv_channels[0])
    features_BMF = torch.randn(shape, device=device, dtype=dtype)
    mask_BM = torch.ones(shape[:2], dtype=torch.bool, device=device)
    forward = fast_cpu_forward if fast_cpu and device.type == "cpu" else stock_forward

    def seconds_with(num_layers: int) -> float:
        tower = materialize(lambda: build_tower(config, num_layers).to(dtype), device)
        with full_float32():
            return seconds_of(lambda: forward(tower, features_BMF, mask_BM), device)

    front, with_layers = seconds_with(0), seconds_with(TOWER_LAYERS)
    layer = max(0.0, with_layers - front) / TOWER_LAYERS
    whole = flops.tower(config, rows * num_frames)
    return Timed(whole, front + config.num_hidden_layers * layer)


def time_mel(flops_a_second: float) -> Timed:
    """Log-mel spectrograms of eight clips, on the CPU.

    Args:
        flops_a_second: operations that a second of speech counts for.
    """
    extractor = Gemma4AudioFeatureExtractor()
    clips = [np.zeros(MEL_CLIP_S * 16_000, np.float32)] * 8

    def extract() -> None:
        extractor(clips, sampling_rate=16_000, return_tensors="pt", truncation=False)

    return Timed(8 * MEL_CLIP_S * flops_a_second, seconds_of(extract, torch.device("cpu")))


def time_alignment(flops_a_frame: float) -> Timed:
    """The recogniser's alignment of a text of 40 units with 6 s of speech, on the CPU.

    Args:
        flops_a_frame: operations that a frame counts for.
    """
    log_probs_TV = torch.zeros(NUM_ALIGNED, 64)
    units = [unit % 60 + 1 for unit in range(40)]
    seconds = seconds_of(lambda: viterbi_starts(log_probs_TV, units), torch.device("cpu"))
    return Timed(flops_a_frame * NUM_ALIGNED, seconds)


def time_training(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], counted: float, device: torch.device
) -> Timed:
    """A step of training without the optimizer: forward, backward."""
    model.train()

    def step() -> None:
        loss(model).backward()
        model.zero_grad()

    return Timed(counted, seconds_of(step, device))


@contextmanager
def mixed(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Mixed precision as accelerate sets it up, where bfloat16 is trained in."""
    with torch.autocast(device.type, dtype=dtype, enabled=dtype == torch.bfloat16):
        yield


@torch.no_grad()
def time_frames(
    temporal: LlamaModel, decoder: FrameDecoder, rows: int, counted: float, device: torch.device
) -> Timed:
    """Generation: a few frames, one after another.

    Args:
        counted: operations of one frame of all rows.
    """
    temporal.eval()
    decoder.eval()
    width = temporal.config.hidden_size
    input_B1D = torch.randn(rows, 1, width, device=device)
    code0_B = torch.zeros(rows, dtype=torch.long, device=device)
    uniforms_BJ = torch.rand(rows, decoder.num_codebooks - 1, device=device)

    def generate() -> None:
        cache = DynamicCache(config=temporal.config)
        for _ in range(NUM_GENERATED):
            states = temporal(inputs_embeds=input_B1D, past_key_values=cache, use_cache=True)
            decoder.generate(states.last_hidden_state[:, 0], code0_B, uniforms_BJ, top_k=50)

    return Timed(counted * NUM_GENERATED, seconds_of(generate, device))


def time_decoder(
    config: Gemma4TextConfig, rows: int, positions: int, dtype: torch.dtype, *,
    trains: bool, device: torch.device, budget: float,
) -> Timed:  # fmt: skip
    """A few layers of Gemma's decoder: forward, and backward to its input with frozen weights."""
    shape = first_layers(config, DECODER_LAYERS)
    decoder = materialize(lambda: build_decoder(shape).to(dtype), device).requires_grad_(False)
    matrices = flops.matrices_of(decoder)
    positions = fitting(positions, 2.0 * rows * matrices * (2 if trains else 1), budget)
    inputs_BSD = torch.randn(
        rows, positions, shape.hidden_size, device=device, dtype=dtype, requires_grad=trains
    )
    per_layer = torch.randn(
        rows, positions, DECODER_LAYERS, shape.hidden_size_per_layer_input,
        device=device, dtype=dtype,
    )  # fmt: skip

    def run() -> None:
        output = decoder(
            inputs_embeds=inputs_BSD, per_layer_inputs=per_layer, use_cache=False
        ).last_hidden_state
        if trains:
            output.sum().backward()

    with torch.set_grad_enabled(trains):
        seconds = seconds_of(run, device)
    counted = flops.gemma(shape, matrices, rows, positions, written=0)
    return Timed(counted * (flops.FROZEN if trains else flops.FORWARD), seconds)


@torch.no_grad()
def time_mimi(config: MimiConfig, *, device: torch.device, budget: float) -> Timed:
    """Mimi's encoder, a clip at a time."""
    mimi = Mimi(build_mimi(config), num_codebooks=min(8, config.num_quantizers), device=device)
    seconds = fitting(6, flops.mimi(mimi.model, 1), budget)
    waveform = torch.zeros(seconds * mimi.sample_rate_hz)
    return Timed(
        flops.mimi(mimi.model, seconds), seconds_of(lambda: mimi.encode([waveform]), device)
    )


def random_rvq(config: RVQConfig, device: torch.device) -> SpeechRVQ:
    """A quantiser with random codebooks."""
    rvq = SpeechRVQ(config)
    for layer in rvq.quantizer.layers:
        layer._codebook.embed.normal_()
    return rvq.to(device)


@torch.no_grad()
def time_encoding(
    config: RVQConfig, num_frames: int, *, device: torch.device, budget: float
) -> Timed:
    """The search for codes, an utterance at a time."""
    shape = (config.dim, config.num_codebooks, config.codebook_size)
    num_frames = fitting(num_frames, flops.rvq_encoding(*shape, 1), budget)
    rvq = random_rvq(config, device).eval()
    frames_ND = torch.randn(num_frames, config.dim, device=device)
    return Timed(
        flops.rvq_encoding(*shape, num_frames), seconds_of(lambda: rvq.encode(frames_ND), device)
    )


def time_quantizer(
    config: RVQConfig, num_frames: int, *, learns: bool, device: torch.device, budget: float
) -> Timed:
    """A training step of the quantiser, without the recogniser."""
    shape = (config.dim, config.num_codebooks, config.codebook_size)
    num_frames = fitting(num_frames, flops.rvq_training(*shape, 1, learns=learns), budget)
    rvq = random_rvq(config, device).train()
    frames_ND = torch.randn(num_frames, config.dim, device=device)

    def step() -> None:
        with torch.set_grad_enabled(learns):
            loss = rvq(frames_ND)
        if learns:
            loss.total.backward()
            rvq.zero_grad()

    return Timed(flops.rvq_training(*shape, num_frames, learns=learns), seconds_of(step, device))


def time_adamw(*, device: torch.device, budget: float) -> Timed:
    """AdamW on four million weights."""
    weights = nn.Parameter(torch.zeros(2048, 2048, device=device))
    weights.grad = torch.ones_like(weights)
    optimizer = torch.optim.AdamW([weights])
    return Timed(ADAMW_FLOPS * weights.numel(), seconds_of(optimizer.step, device))


def time_muon(rows: int, columns: int, *, device: torch.device, budget: float) -> Timed:
    """Muon's products for one matrix."""
    matrix = torch.randn(1, rows, columns, device=device)
    return Timed(flops.muon([(rows, columns)]), seconds_of(lambda: orthogonalize(matrix), device))
