"""Shape of the quantiser: what must be stored with its weights."""

from dataclasses import dataclass

from commands.origins import RecordedFingerprint
from commands.setting_types import (
    CodebookSize,
    LayerWidth,
    NonNegativeFloat,
    NumCodebooks,
    PositiveFloat,
    Probability,
)
from commands.sources import Sources, as_sources
from gemma4.gemma import FRAME_RATE_HZ


@dataclass(frozen=True)
class RVQConfig:
    """Shape of the quantiser; saved beside its weights.

    Attributes:
        dim: embedding width D.
        num_codebooks: K.
        codebook_size: codes per codebook.
        frame_rate_hz: frames a second.
        decay: decay of the codebooks' exponential moving average.
        min_code_usage: a code whose moving average of frames per batch falls below this is replaced
            by a frame of the batch.
        tower: fingerprint of the audio tower whose embeddings it was trained on; "" if unknown.
        sources: what it was trained on, and with; None if that is not known.
    """

    dim: LayerWidth = 1024
    num_codebooks: NumCodebooks = 8
    codebook_size: CodebookSize = 2048
    frame_rate_hz: PositiveFloat = FRAME_RATE_HZ
    decay: Probability = 0.99
    min_code_usage: NonNegativeFloat = 0.05
    tower: RecordedFingerprint = ""
    sources: Sources | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", as_sources(self.sources))  # JSON gives mappings
