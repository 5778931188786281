"""Transcribe speech with Gemma's audio tower and the CTC recogniser.

cpu = torch.device("cpu")
listener = load_listener("google/gemma-4-E4B-it", Path("runs/recognizer"), device=cpu)
[text] = listener.transcribe([samples_N], 24_000)

Recognisers of others transcribe through the same method: `asr.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, resample
from gemma4.gemma import AudioEncoder, load_audio_encoder
from stage1_rvq.recognizer import CTCRecognizer, load_recognizer


class Transcriber(Protocol):
    """Anything that transcribes speech."""

    def transcribe(self, waveforms: Sequence[np.ndarray], sample_rate_hz: int) -> list[str]:
        """What is heard in mono waveforms of a given rate, each at least 40 ms long."""
        ...


@dataclass(frozen=True)
class Listener:
    """An audio tower, and a recogniser that was trained on its embeddings.

    Raises:
        InputError: the recogniser was trained on embeddings of another width.
    """

    encoder: AudioEncoder
    recognizer: CTCRecognizer

    def __post_init__(self) -> None:
        self.recognizer.refuse_other_width(self.encoder.dim, flag="--gemma")

    def transcribe(self, waveforms: Sequence[np.ndarray], sample_rate_hz: int) -> list[str]:
        """What is heard in mono waveforms of a given rate, each at least 40 ms long."""
        at_16_khz = [resample(w, sample_rate_hz, GEMMA_SAMPLE_RATE_HZ) for w in waveforms]
        return self.recognizer.transcribe(self.encoder.encode(at_16_khz))


def load_listener(gemma: str, recognizer: Path, *, device: torch.device) -> Listener:
    """Load the tower of a Gemma, in float32, and a recogniser.

    Raises:
        InputError: one cannot be loaded, or they do not fit together.
    """
    encoder = load_audio_encoder(gemma, device=device, dtype=torch.float32)
    return Listener(encoder, load_recognizer(recognizer, device=device))
