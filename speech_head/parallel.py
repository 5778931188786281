"""The published speech head, our baseline: it predicts all frames of an answer at once.

    head = load_parallel_head("runs/head-parallel", device=torch.device("cpu"))
    codes = head.speak([answer], num_frames=[45])

The architecture is that of gemma4-audio (R. Swamy, "Grafting a Speech Head onto Gemma 4 E4B",
2026). The last Gemma layers are mixed, normalised and projected. Every frame has its own query, to
which the answer's states, stretched to the length of the speech, are added. Then come one
cross-attention to the states, a bidirectional transformer over the frames, and one independent
linear output per codebook. The most probable codes are taken. The head does not predict duration:
the caller gives the length of the speech.

Only a defect was changed: padding was not masked, so that nearly every code of an utterance
depended on the length of its neighbours in the batch. Here it is masked.
"""

# B utterances, S answer tokens, F Mimi frames (12.5 per second), K codebooks, V codes each,
# L Gemma layers, D width of Gemma, W width of the head

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from commands.checkpoint import find_pretrained, load_frozen
from commands.data_card import add_data_section
from commands.origins import Origin, RecordedFingerprint
from commands.processes import ALONE, Shares
from commands.setting_types import (
    CodebookSize,
    LayerPosition,
    LayerWidth,
    NumCodebooks,
    NumLayers,
    PositiveFloat,
    PositiveInt,
    Probability,
)
from commands.sources import HEAD, Sources, as_sources, known
from data_manifests.language import language
from gemma4.layer_states import LAYERS, describe_mix
from speech_head.answer import AnswerTokens
from speech_head.draws import Told
from speech_head.head_batch import HeadBatch, HeadExample


@dataclass(frozen=True)
class ParallelHeadConfig:
    """Shape of the published head, saved with its weights. The defaults are its own (152 M).

    Attributes:
        state_width: D, width of Gemma.
        layers: the L layers of Gemma whose states are mixed, as in `gemma4.layer_states.LAYERS`.
        num_codebooks: K, Mimi's codebooks.
        codebook_size: V.
        frame_rate_hz: Mimi frames per second.
        width: W.
        num_layers: layers of the transformer over the frames.
        num_heads: attention heads of that transformer and of the cross-attention.
        dropout: dropout in training.
        max_frames: number of queries; later frames use the last one.
        tower, quantizer, sources: as in `SpeechHeadConfig`.
    """

    state_width: LayerWidth = 2560
    layers: list[LayerPosition] = field(default_factory=LAYERS.copy)
    num_codebooks: NumCodebooks = 8
    codebook_size: CodebookSize = 2048
    frame_rate_hz: PositiveFloat = 12.5
    width: LayerWidth = 1536
    num_layers: NumLayers = 4
    num_heads: NumLayers = 8
    dropout: Probability = 0.05
    max_frames: PositiveInt = 128
    tower: RecordedFingerprint = ""
    quantizer: RecordedFingerprint = ""
    sources: Sources | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", as_sources(self.sources))  # JSON gives mappings

    @property
    def origin(self) -> Origin:
        """What it was trained with."""
        return Origin(self.tower, self.quantizer)


@dataclass(frozen=True)
class ParallelLoss:
    """Cross-entropies in nats per frame: of each codebook (`codebooks_K`), and their weighted
    mean."""

    total: Tensor
    codebooks_K: Tensor

    def as_numbers(self) -> dict[str, float]:
        """The losses as numbers, for the training log."""
        codebooks = {f"codebook_{k}": float(loss) for k, loss in enumerate(self.codebooks_K)}
        return {"loss": self.total.item(), **codebooks}


class ParallelHead(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="speechless-twi",
    tags=["speech", "text-to-speech"],
):
    """Mix of Gemma's layers -> cross-attention of frame queries -> frames -> codes."""

    def __init__(self, config: ParallelHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.layer_logits_L = nn.Parameter(torch.zeros(len(config.layers)))
        self.norm = nn.LayerNorm(config.state_width)
        self.read_states = nn.Linear(config.state_width, config.width)
        self.queries_FW = nn.Parameter(0.02 * torch.randn(config.max_frames, config.width))
        self.attend = nn.MultiheadAttention(
            config.width, config.num_heads, config.dropout, batch_first=True
        )
        layer = nn.TransformerEncoderLayer(
            config.width, config.num_heads, 4 * config.width, config.dropout,
            activation="gelu", batch_first=True, norm_first=True,
        )  # fmt: skip
        self.frames = nn.TransformerEncoder(
            layer, config.num_layers, enable_nested_tensor=False, norm=nn.LayerNorm(config.width)
        )
        self.codes = nn.Linear(config.width, config.num_codebooks * config.codebook_size)

    @property
    def device(self) -> torch.device:
        return self.queries_FW.device

    def made_from(self) -> Sources:
        """The data that it was trained on, and what else it was trained with."""
        return known(self.config.sources, HEAD)

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """The card that `save_pretrained` and `push_to_hub` write: the hub's own, and the data."""
        card = super().generate_model_card(**facts)
        return add_data_section(card, self.made_from(), tag=language().tags[0])

    def layer_shares(self) -> dict[str, float]:
        """Weight of each layer in the mix of states, for the training log."""
        return describe_mix(self.layer_logits_L, self.config.layers)

    def draw_told(self, num_utterances: int, num_frames: int, history_dropout: float) -> Told:
        """Nothing is hidden from it: it does not use earlier frames, and always reads the text."""
        return Told()

    def forward(
        self,
        batch: HeadBatch,
        codebook_weights_K: Tensor,
        told: Told | None = None,
        shares: Shares = ALONE,
    ) -> ParallelLoss:
        """Training loss of a batch; padding changes nothing.

        Args:
            batch: from `data.collate`; its cursor is ignored.
            codebook_weights_K: float, loss weight of each codebook.
            told: ignored: there are no earlier frames to hide.
            shares: of a process that has a part of a batch; each loss is times its share.
        """
        num_frames_B = batch.frame_mask_BF.sum(dim=1)
        logits_BFKV = self.logits(batch.states_BSLD, batch.token_mask_BS, num_frames_B)
        logits_NKV = logits_BFKV[batch.frame_mask_BF].float()
        losses_NK = F.cross_entropy(
            logits_NKV.mT, batch.codes_BFK[batch.frame_mask_BF], reduction="none"
        )
        codebooks_K = shares.frames * losses_NK.mean(dim=0)
        total = (codebooks_K * codebook_weights_K).sum() / codebook_weights_K.sum()
        return ParallelLoss(total, codebooks_K.detach())

    def logits(self, states_BSLD: Tensor, token_mask_BS: Tensor, num_frames_B: Tensor) -> Tensor:
        """Logits `[B, F, K, V]` of all frames; those after an utterance's last are meaningless."""
        mixed_BSD = torch.einsum("bsld,l->bsd", states_BSLD, self.layer_logits_L.softmax(dim=0))
        text_BSW = self.read_states(self.norm(mixed_BSD))
        position_F = torch.arange(int(num_frames_B.max()), device=text_BSW.device)
        stretched_BFW = stretch(text_BSW, token_mask_BS.sum(dim=1), position_F, num_frames_B)
        query_FW = self.queries_FW[position_F.clamp(max=self.config.max_frames - 1)]
        attended_BFW, _ = self.attend(
            query_FW + stretched_BFW, text_BSW, text_BSW,
            key_padding_mask=~token_mask_BS, need_weights=False,
        )  # fmt: skip
        is_padding_BF = position_F >= num_frames_B[:, None]
        frames_BFW = self.frames(
            query_FW + stretched_BFW + attended_BFW, src_key_padding_mask=is_padding_BF
        )
        shape = (self.config.num_codebooks, self.config.codebook_size)
        return self.codes(frames_BFW).unflatten(-1, shape)

    @torch.no_grad()
    def speak(
        self, answers: Sequence[AnswerTokens | HeadExample], num_frames: Sequence[int]
    ) -> list[Tensor]:
        """Speak complete answers.

        Returns:
            int64 codes `[F, K]` of each answer, on the CPU.
        """
        assert not self.training, "call .eval() before generating"
        states = [answer.states_SLD.float().to(self.device) for answer in answers]
        lengths_B = torch.tensor([len(states_SLD) for states_SLD in states])
        token_mask_BS = torch.arange(int(lengths_B.max())) < lengths_B[:, None]
        logits_BFKV = self.logits(
            pad_sequence(states, batch_first=True),
            token_mask_BS.to(self.device),
            torch.tensor(num_frames, device=self.device),
        )
        codes_BFK = logits_BFKV.argmax(dim=-1).cpu()
        return [codes_FK[:num] for codes_FK, num in zip(codes_BFK, num_frames, strict=True)]


def stretch(
    text_BSW: Tensor, lengths_B: Tensor, position_F: Tensor, num_frames_B: Tensor
) -> Tensor:
    """Each utterance's states, linearly interpolated to its number of frames: `[B, F, W]`.

    Like `torch.nn.functional.interpolate` on the real tokens alone. Frames after an utterance's
    last repeat its last state.
    """
    centre_BF = (position_F + 0.5) * (lengths_B / num_frames_B)[:, None] - 0.5
    last_B1 = lengths_B[:, None] - 1
    centre_BF = centre_BF.clamp(min=0).minimum(last_B1)
    before_BF = centre_BF.floor().long()
    after_BF = (before_BF + 1).minimum(last_B1)
    rows_B1 = torch.arange(len(text_BSW), device=text_BSW.device)[:, None]
    share_BF1 = (centre_BF - before_BF)[..., None].to(text_BSW.dtype)
    return torch.lerp(text_BSW[rows_B1, before_BF], text_BSW[rows_B1, after_BF], share_BF1)


def load_parallel_head(name: str, *, device: torch.device) -> ParallelHead:
    """Load a head trained with `--architecture parallel`; otherwise as `model.load_head`."""
    folder = find_pretrained(name, made_by="speech_head.train", flag="--parallel-head")
    return load_frozen(folder, ParallelHead, ParallelHeadConfig, device=device)
