"""Bytes on disk and in memory, counted from shapes. What is a guess, not a count, says so.

embeddings_bytes(Speech(hours=1000), 1000, dim=1024)      # 184 GB
"""

# B rows, S positions, T frames (25 per second), D width, K codebooks, C codes, V classes

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlamaModel

from commands.checkpoint import NUM_KEPT
from commands.table_copies import IN_MEMORY_BYTES
from gemma4.gemma import FRAME_RATE_HZ
from gemma4.memory_plan import FLOAT32_BYTES, LIBRARIES, bytes_kept
from pipeline.plan_models import count_parameters
from pipeline.recipe import Speech
from stage2_speechless.muon import Muon

BFLOAT16_BYTES = 2
# A row of JSON about an utterance: names, numbers and, for a second of speech, its text.
INDEX_BYTES, TEXT_BYTES_A_SECOND = 170, 16
# What Python holds of an utterance: a row of a manifest is a dataclass with its strings (a guess);
# trainings keep numbers of it alone, and map the rest into memory.
ROW_BYTES, NUMBERS_BYTES = 1000, 32
# Live values of the audio tower for a frame, in its precision: the output of the first convolution
# (128 channels, 64 bins, 2 frames), twice; what is beyond is smaller (a guess, checked by a test).
TOWER_VALUES_A_FRAME = 3 * 128 * 64 * 2
MIMI_VALUES_A_SECOND = 4 * 64 * 24_000  # the first convolution's output, four times (a guess)


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of one process.

    Attributes:
        weights: of all models, frozen or trained.
        training: gradients and the optimizer's state.
        activations: of the largest batch.
        host: beside these, what the host holds: libraries, rows, codes.
    """

    weights: int
    training: int = 0
    activations: int = 0
    host: int = LIBRARIES

    @property
    def device(self) -> int:
        """What is on the device where it has memory of its own."""
        return self.weights + self.training + self.activations


def count_frames(hours: float, rate_hz: float = FRAME_RATE_HZ) -> int:
    """Frames in so many hours."""
    return round(hours * 3600 * rate_hz)


def rows_bytes(speech: Speech, hours: float, fields: int = INDEX_BYTES) -> int:
    """Rows about all utterances, as JSON."""
    return round(speech.count_utterances(hours) * fields + hours * 3600 * TEXT_BYTES_A_SECOND)


def embeddings_bytes(speech: Speech, hours: float, *, dim: int) -> int:
    """Cached embeddings: bfloat16, 25 frames a second, and an index."""
    return BFLOAT16_BYTES * dim * count_frames(hours) + rows_bytes(speech, hours)


def codes_bytes(num_frames: float, num_codebooks: int, codebook_size: int) -> int:
    """Codes in Parquet, which stores each in as few bits as the codebook needs."""
    return round(num_frames * num_codebooks * math.ceil(math.log2(codebook_size)) / 8)


def codes_copy_bytes(speech: Speech, hours: float, num_codebooks: int) -> int:
    """The copy of codes that a training maps into memory: 16 bits a code; a small one is no
    file."""
    copy = round(2 * num_codebooks * count_frames(hours) + hours * 3600 * TEXT_BYTES_A_SECOND)
    return copy if copy > IN_MEMORY_BYTES else 0


def states_bytes(
    speech: Speech, hours: float, *, tokens: float, layers: int, width: int, codebooks: int
) -> int:
    """Cached states: bfloat16 of every layer and the token's number; for each Mimi frame its codes
    in 16 bits and the cursor in 32; and an index."""
    frames = count_frames(hours, FRAME_RATE_HZ / 2)
    of_tokens = tokens * (BFLOAT16_BYTES * layers * width + 4)
    return round(of_tokens + frames * (2 * codebooks + 4) + rows_bytes(speech, hours, 210))


def run_bytes(
    num_parameters: int, optimizer_bytes: int, settings: Mapping[str, Any], *, others: int = 0
) -> int:
    """A training's folder: the best model, and the checkpoints that are kept.

    Args:
        settings: its steps, and after how many it saves.
        others: bytes of what is saved with the weights.
    """
    weights = FLOAT32_BYTES * num_parameters + others
    num_saved = math.ceil(settings["steps"] / settings["save_every"])
    return weights + min(NUM_KEPT, num_saved) * (weights + optimizer_bytes)


def adamw_bytes(num_parameters: int) -> int:
    """AdamW's two moments, float32."""
    return 2 * FLOAT32_BYTES * num_parameters


def muon_matrices(model: nn.Module) -> list[tuple[int, int]]:
    """Shapes of the matrices that Muon updates; it keeps one moment of each, AdamW two of the
    rest."""
    optimizer = Muon(model, learning_rate=1.0)
    matrices = [g["params"] for g in optimizer.param_groups if g["is_orthogonal"]]
    return [(matrix.shape[0], matrix.shape[1]) for matrix in matrices[0]]


def muon_bytes(model: nn.Module) -> int:
    """State of Muon, float32."""
    num_orthogonal = sum(a * b for a, b in muon_matrices(model))
    return adamw_bytes(count_parameters(model)) - FLOAT32_BYTES * num_orthogonal


def training_memory(
    num_parameters: int, optimizer_bytes: int, activations: int, host: int
) -> Memory:
    """A training with float32 weights: their gradients, and the optimizer's state."""
    weights = FLOAT32_BYTES * num_parameters
    return Memory(weights, weights + optimizer_bytes, activations, host)


def transformer_activations(transformer: LlamaModel, rows: int, length: int) -> int:
    """What a transformer of `build_transformer`, on the meta device, keeps for the backward pass,
    in float32; bfloat16 mixed precision keeps about as much."""
    width = transformer.config.hidden_size
    inputs = torch.zeros(rows, length, width, device="meta")
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool, device="meta")
    positions = torch.zeros(rows, length, device="meta")
    transformer.train()
    return bytes_kept(
        transformer,
        lambda: transformer(
            inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
        ),
    )


def logits_bytes(num_positions: float, num_classes: int) -> int:
    """Logits for the loss: as they are, as log-probabilities, and the gradient."""
    return round(3 * FLOAT32_BYTES * num_positions * num_classes)


def lstm_activations(rows: int, frames: float, width: int, num_layers: int) -> int:
    """What a bidirectional LSTM keeps: of each layer and direction four gates, the cell and the
    output, and the inputs of each layer (twice the width)."""
    return round(FLOAT32_BYTES * rows * frames * num_layers * (2 * 6 + 2) * width)


def tower_activations(rows: int, seconds: float, dtype_bytes: int) -> int:
    """What the audio tower holds of a batch, forward."""
    return round(TOWER_VALUES_A_FRAME * rows * seconds * FRAME_RATE_HZ * dtype_bytes)


def cache_bytes(width: int, num_layers: int, rows: int, length: float) -> int:
    """Keys and values of a transformer's cache, float32."""
    return round(2 * FLOAT32_BYTES * num_layers * width * rows * length)
