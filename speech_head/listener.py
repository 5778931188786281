"""What is understood of speech: Gemma's audio tower, then the CTC reader.

listener = load_listener("google/gemma-4-E4B-it", Path("runs/reader"), device=torch.device("cpu"))
[text] = listener.transcribe([samples_N], 24_000)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, resample
from data_manifests.config import InputError
from stage1_rvq.gemma import AudioEncoder, load_audio_encoder
from stage1_rvq.reader import CTCReader, load_reader


@dataclass(frozen=True)
class Listener:
    """Audio tower and reader that belong together.

    Raises:
        InputError: the reader was trained on embeddings of another width.
    """

    encoder: AudioEncoder
    reader: CTCReader

    def __post_init__(self) -> None:
        if self.reader.config.dim != self.encoder.dim:
            raise InputError(
                f"--reader takes embeddings {self.reader.config.dim} wide, --gemma has "
                f"{self.encoder.dim}"
            )

    def transcribe(self, waveforms: Sequence[np.ndarray], sample_rate_hz: int) -> list[str]:
        """What is heard in mono waveforms of a given rate, each at least 40 ms long."""
        at_16_khz = [resample(w, sample_rate_hz, GEMMA_SAMPLE_RATE_HZ) for w in waveforms]
        return self.reader.transcribe(self.encoder.encode(at_16_khz))


def load_listener(gemma: str, reader: Path, *, device: torch.device) -> Listener:
    """Load the tower of a Gemma, in float32, and a reader.

    Args:
        gemma: hub name or folder.
        reader: folder of stage1_rvq.train_reader.
        device: where both run.

    Raises:
        InputError: one cannot be loaded, or they do not belong together.
    """
    encoder = load_audio_encoder(gemma, device=device, dtype=torch.float32)
    return Listener(encoder, load_reader(reader, device=device))
