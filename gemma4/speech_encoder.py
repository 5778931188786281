"""What a Gemma 4 hears with: its audio tower, or patches of the waveform.

    encoder = encoder_of(model, "google/gemma-4-12B-it")
    frames = encoder.encode(waveforms)
    stream = live_ear(encoder).start()

Both give frames that the model takes as `input_features`, 25 a second. Whoever asks, answers,
trains or transcribes needs to know no more of it; what works with a tower's embeddings themselves
(stages 1 and 2) asks for an `AudioEncoder`.
"""

# T frames (25 per second), D width of a frame, N samples at 16 kHz

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from commands.errors import InputError
from commands.origins import Origin
from commands.pretrained import one_line_errors, refuse_other_kind
from gemma4.feature_extractors import load_feature_extractor
from gemma4.gemma import AudioEncoder, load_audio_encoder
from gemma4.kinds import KINDS, TOWER, AnyGemma, has_tower
from gemma4.patches import NO_TOWER, PatchEncoder, StreamingPatches
from gemma4.prepared_audio import PreparedAudio
from gemma4.tower_identity import tower_origin
from gemma4.tower_stream import StreamingTower


class EarStream(Protocol):
    """One recording, as it arrives; see `TowerStream`."""

    num_frames: int

    @property
    def num_waiting(self) -> int: ...
    def add(self, samples_N: np.ndarray) -> None: ...
    def push(self, samples_N: np.ndarray) -> Tensor: ...
    def finish(self) -> Tensor: ...
    def encode_with(self, others: Sequence[Any], num_frames: int) -> list[Tensor]: ...


class SpeechEncoder(Protocol):
    """Turns recordings into frames that Gemma takes; see `AudioEncoder`."""

    dim: int
    origin: Origin

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]: ...
    def prepare(self, waveforms: Sequence[np.ndarray]) -> PreparedAudio: ...
    def encode_prepared(self, prepared: PreparedAudio) -> list[Tensor]: ...
    def refuse_too_short(self, waveform: np.ndarray) -> None: ...


def encoder_of(model: AnyGemma, name: str) -> AudioEncoder | PatchEncoder:
    """What a loaded model hears with.

    Args:
        model: without an adapter.
        name: the checkpoint it was loaded from, whose feature extractor is used.

    Raises:
        InputError: the feature extractor cannot be loaded.
    """
    extractor = load_feature_extractor(name)
    if has_tower(model.config):
        return AudioEncoder(model.model.audio_tower, extractor)
    return PatchEncoder(extractor)


def load_encoder(
    name: str, *, device: torch.device, dtype: torch.dtype
) -> AudioEncoder | PatchEncoder:
    """What a checkpoint hears with, without its decoder; raises InputError as
    `load_audio_encoder`."""
    with one_line_errors("--gemma", name):
        kind = refuse_other_kind(name, tuple(KINDS))
    if kind == TOWER:
        return load_audio_encoder(name, device=device, dtype=dtype)
    return PatchEncoder(load_feature_extractor(name))


def require_tower(encoder: SpeechEncoder, *, instead: str) -> AudioEncoder:
    """The encoder of a Gemma, for what works with its tower's embeddings.

    Args:
        instead: what to do where there is none, for the message.

    Raises:
        InputError: it has no tower.
    """
    if not isinstance(encoder, AudioEncoder):
        raise InputError(f"--gemma is the kind without an audio tower (12B): {instead}")
    return encoder


def live_ear(encoder: SpeechEncoder) -> StreamingTower | StreamingPatches:
    """The same on speech that is still arriving, from any number of streams."""
    if isinstance(encoder, PatchEncoder):
        return StreamingPatches(encoder)
    assert isinstance(encoder, AudioEncoder)
    return StreamingTower(encoder)


def model_origin(model: AnyGemma) -> Origin:
    """Which audio tower a model hears with, for `refuse_mixture`.

    Args:
        model: without an adapter.
    """
    return tower_origin(model.model.audio_tower) if has_tower(model.config) else NO_TOWER
