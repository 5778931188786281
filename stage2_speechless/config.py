"""Shape of Speechless, and what its numbers mean: everything that must travel with its weights."""

from dataclasses import dataclass, field
from typing import Any

from data_manifests.manifest import DIALECTS
from data_manifests.twi_text import NORMALIZATION_VERSION
from stage1_rvq.codes import CodeFormat
from stage2_speechless.vocabulary import CHARACTERS, NUM_RATES


@dataclass(frozen=True)
class SpeechlessConfig:
    """Shape of the model and meaning of its numbers; saved beside its weights.

    Attributes:
        num_codebooks: K.
        codebook_size: V, codes per codebook.
        frame_rate_hz: frames a second.
        width, num_layers, num_heads: of the temporal transformer; the width is D.
        llama: further settings of its `LlamaConfig`, by name: the base of its rotary positions, or
            all that a model brings which it starts from (see `warm_start.py`).
        depth_width, depth_layers, depth_heads: of the code-frame decoder.
        dropout: on inputs and on states before the heads, in training.
        rates_cps: what a rate is drawn from where none is given: quantiles of training's speaking
            rates, evenly spaced.
        quantizer: sha256 of the quantiser's folder that the codes belong to; "" where unknown.
        characters: inventory of the texts.
        dialects: dialects it was told of.
        num_rates: bins of speaking rate.
        normalization: version of the text normalisation.
    """

    num_codebooks: int = 8
    codebook_size: int = 2048
    frame_rate_hz: float = 25.0
    width: int = 768
    num_layers: int = 10
    num_heads: int = 12
    depth_width: int = 512
    depth_layers: int = 2
    depth_heads: int = 8
    dropout: float = 0.1
    rates_cps: tuple[float, ...] = (14.0,)
    quantizer: str = ""
    characters: str = CHARACTERS
    dialects: tuple[str, ...] = DIALECTS
    num_rates: int = NUM_RATES
    normalization: str = NORMALIZATION_VERSION
    llama: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("dialects", "rates_cps"):  # lists, read from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def code_format(self) -> CodeFormat:
        return CodeFormat(self.num_codebooks, self.codebook_size, self.frame_rate_hz)


def default_num_heads(width: int) -> int:
    """Attention heads of a transformer for which none are given: 64 wide, and at least 4."""
    return max(4, width // 64)
