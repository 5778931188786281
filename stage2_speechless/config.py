"""Configuration of Speechless: everything that must be stored with its weights."""

from dataclasses import dataclass, field
from typing import Any

from commands.origins import Origin, RecordedFingerprint
from commands.parquet_files import CodeFormat
from commands.setting_types import (
    CodebookSize,
    LayerWidth,
    NumCodebooks,
    NumLayers,
    PositiveFloat,
    PositiveInt,
    Probability,
)
from commands.sources import Sources, as_sources
from data_manifests.language import language
from stage2_speechless.vocabulary import NUM_RATES, all_characters, all_dialects


@dataclass(frozen=True)
class SpeechlessConfig:
    """Shape of the model and meaning of its token numbers; saved beside its weights.

    Attributes:
        num_codebooks: K.
        codebook_size: V, codes per codebook.
        frame_rate_hz: frames a second.
        width, num_layers, num_heads: shape of the temporal transformer; the width is D.
        llama: further settings of its `LlamaConfig`, by name: the base of its rotary positions, or
            all settings of the model that it starts from (see `warm_start.py`).
        depth_width, depth_layers, depth_heads: shape of the code-frame decoder.
        dropout: dropout on inputs and on the states before the heads, in training.
        text_dropout: how often it was trained without a text; above 0, it can be guided.
        rates_cps: rates to draw from if none is given: evenly spaced quantiles of the speaking
            rates in the training data.
        quantizer: fingerprint of the quantiser that the codes belong to; "" if unknown.
        tower: fingerprint of the audio tower of that quantiser; "" if unknown.
        sources: what it was trained on, and with; None if that is not known.
        characters: characters that texts may contain.
        dialects: dialects that it can be given.
        num_rates: number of bins of speaking rate.
        normalization: of the texts, as `Language.normalization`.
    """

    num_codebooks: NumCodebooks = 8
    codebook_size: CodebookSize = 2048
    frame_rate_hz: PositiveFloat = 25.0
    width: LayerWidth = 768
    num_layers: NumLayers = 10
    num_heads: NumLayers = 12
    depth_width: LayerWidth = 512
    depth_layers: NumLayers = 2
    depth_heads: NumLayers = 8
    dropout: Probability = 0.1
    text_dropout: Probability = 0.0
    rates_cps: tuple[PositiveFloat, ...] = (14.0,)
    quantizer: RecordedFingerprint = ""
    tower: RecordedFingerprint = ""
    sources: Sources | None = None
    characters: str = field(default_factory=all_characters)
    dialects: tuple[str, ...] = field(default_factory=all_dialects)
    num_rates: PositiveInt = NUM_RATES
    normalization: str = field(default_factory=lambda: language().normalization)
    llama: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("dialects", "rates_cps"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "sources", as_sources(self.sources))

    @property
    def code_format(self) -> CodeFormat:
        return CodeFormat(self.num_codebooks, self.codebook_size, self.frame_rate_hz)

    @property
    def origin(self) -> Origin:
        """What its codes belong to."""
        return Origin(self.tower, self.quantizer)


def default_num_heads(width: int) -> int:
    """Default number of attention heads of a transformer: heads 64 wide, and at least 4 of them."""
    return max(4, width // 64)
