"""Shape of the speech head, saved with its weights as `config.json`."""

# D width of Gemma, L Gemma layers, K codebooks of Mimi, W width of the head, E width of a voice

from dataclasses import dataclass, field
from typing import Literal

from commands.origins import Origin, RecordedFingerprint
from commands.setting_types import (
    CodebookSize,
    LayerPosition,
    LayerWidth,
    NumCodebooks,
    NumLayers,
    PositiveFloat,
    Probability,
    VoiceWidth,
)
from commands.sources import Sources, as_sources
from data_manifests.language import FIRST_NORMALIZATION
from gemma4.layer_states import LAYERS

Reads = Literal["gate", "sum", "states", "embedding"]


@dataclass(frozen=True)
class SpeechHeadConfig:
    """Shape of the head, saved with its weights. The defaults fit Gemma 4 E4B and Mimi (151 M).

    Attributes:
        state_width: D, width of Gemma.
        layers: the L layers of Gemma whose states are mixed, as in `gemma4.layer_states.LAYERS`.
        num_codebooks: K, Mimi's codebooks.
        codebook_size: codes per codebook.
        frame_rate_hz: Mimi frames per second.
        width: W, width of the temporal transformer.
        num_layers: its layers.
        num_heads: its attention heads.
        depth_width: width of the code-frame decoder.
        depth_layers: its layers.
        depth_heads: its attention heads.
        dropout: dropout on inputs and on states before the heads, in training.
        reads: input for each token: its states and its embedding, gated or summed, or only one of
            the two.
        text_dropout: probability that an utterance is trained without its text; above 0, sampling
            can be guided (see `Sampling`).
        standardizes: whether each dimension of the states is centred and divided by its standard
            deviation (see `state_statistics.py`), which is stored with the weights; older
            heads do not.
        voice_width: E, width of a voice (see `voice_encoder.py`); 0 for a head of one voice.
        voices: speakers of the training data whose voices are stored with the weights, by name.
        tower: fingerprint of the audio tower of the Gemma it was trained on; "" if unknown.
        quantizer: fingerprint of the quantiser that spoken questions, or the adapter, were made
            with; "" if there is none or it is unknown.
        sources: what it was trained on, and with; None if that is not known.
        normalization: of the texts that it says, as `Language.normalization`.
    """

    state_width: LayerWidth = 2560
    layers: list[LayerPosition] = field(default_factory=LAYERS.copy)
    num_codebooks: NumCodebooks = 8
    codebook_size: CodebookSize = 2048
    frame_rate_hz: PositiveFloat = 12.5
    width: LayerWidth = 1024
    num_layers: NumLayers = 8
    num_heads: NumLayers = 16
    depth_width: LayerWidth = 512
    depth_layers: NumLayers = 2
    depth_heads: NumLayers = 8
    dropout: Probability = 0.1
    reads: Reads = "gate"
    text_dropout: Probability = 0.0
    standardizes: bool = False
    voice_width: VoiceWidth = 0
    voices: list[str] = field(default_factory=list)
    tower: RecordedFingerprint = ""
    quantizer: RecordedFingerprint = ""
    sources: Sources | None = None
    normalization: str = FIRST_NORMALIZATION

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", as_sources(self.sources))  # JSON gives mappings

    @property
    def origin(self) -> Origin:
        """What it was trained with."""
        return Origin(self.tower, self.quantizer)
