"""Speechless: Twi text -> semantic codes of speech that says it.

    model = load_speechless("runs/speechless", device=torch.device("cpu"))
    [spoken] = speak(model, [Sentence("hello-1", "Me din de Ama.", "asante")])     # speak.py
    spoken.codes_TK, spoken.ended

A causal transformer reads the prefix (`vocabulary.py`), then generates frame by frame, 25 a second:
its head predicts codebook 0 or the end of speech, and a code-frame decoder predicts codebooks 1 to
K-1. A frame is fed back as the sum of its K code embeddings.

Rotary positions run along the text: a frame's position is the point in the text that the speech has
reached according to the speaking rate, so that the characters being said are always near
(VoiceStar's progress-monitoring RoPE, Peng et al., 2025, arXiv:2505.19462). This makes alignment
quick to learn, and shows where to end.
"""

# B utterances, S prefix positions, T frames (25 per second), L = S + T, K codebooks, D width,
# N frames of a batch end to end, V codes per codebook

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from commands.checkpoint import find_pretrained, load_frozen
from commands.data_card import add_data_section
from commands.processes import ALONE, Shares
from commands.sources import SPEECHLESS, Sources, known
from data_manifests.language import language, refuse_other_language
from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.frame_decoder import FrameDecoder, build_transformer
from stage2_speechless.vocabulary import NOTHING, NUM_CONDITIONS, Vocabulary

NO_TARGET = -100


@dataclass(frozen=True)
class SpeechlessLoss:
    """Cross-entropies in nats."""

    total: Tensor
    """Total loss per frame: the weighted sum of `codebooks_K`, plus `end` spread over the
    frames."""
    codebooks_K: Tensor
    """Loss of each codebook, per frame."""
    end: Tensor
    """Loss of the end of speech, per utterance."""

    def as_numbers(self) -> dict[str, float]:
        """The losses by name, for the training log."""
        codebooks = {f"codebook_{k}": loss for k, loss in enumerate(self.codebooks_K.tolist())}
        return {"loss": self.total.item(), "end": self.end.item(), **codebooks}


class Speechless(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="speechless-twi",
    tags=["speech", "text-to-semantic-tokens"],
):
    """Temporal transformer, its head, and a code-frame decoder."""

    def __init__(self, config: SpeechlessConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = Vocabulary(config.characters, config.dialects, config.num_rates)
        num_tokens = self.vocabulary.size + config.num_codebooks * config.codebook_size
        self.temporal = build_transformer(
            num_tokens, config.width, config.num_layers, config.num_heads,
            padding_token=NOTHING, settings=config.llama,
        )  # fmt: skip
        self.dropout = nn.Dropout(config.dropout)
        # One class more than codes: the end of speech.
        self.code0_head = nn.Linear(config.width, config.codebook_size + 1, bias=False)
        self.frame_decoder = FrameDecoder(
            config.num_codebooks, config.codebook_size, config.width, config.depth_width,
            config.depth_layers, config.depth_heads,
        )  # fmt: skip

    @property
    def end_of_speech(self) -> int:
        """The class of `code0_head` that is not a code."""
        return self.config.codebook_size

    def made_from(self) -> Sources:
        """The data that it was trained on, and what else it was trained with."""
        return known(self.config.sources, SPEECHLESS)

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """The card that `save_pretrained` and `push_to_hub` write: the hub's own, and the data."""
        card = super().generate_model_card(**facts)
        return add_data_section(card, self.made_from(), tag=language().tags[0])

    def frame_tokens(self, codes_TK: Tensor) -> Tensor:
        """Codes `[..., K]` -> the token numbers they are embedded as, `[..., K]`."""
        offsets_K = torch.arange(self.config.num_codebooks, device=codes_TK.device)
        return codes_TK + self.vocabulary.size + offsets_K * self.config.codebook_size

    def positions(self, prefix_length: int, num_frames: int, rate_cps: float) -> Tensor:
        """Rotary positions of a prefix and the frames after it: float32 `[S + T]`.

        Prefix positions count 0, 1, 2, ...; the start token and frames 0, 1, ... advance from the
        first character by the number of characters said in one frame.
        """
        pace = rate_cps / self.config.frame_rate_hz
        spoken_T = torch.arange(-1, num_frames) * pace + NUM_CONDITIONS
        return torch.cat([torch.arange(prefix_length - 1.0), spoken_T])

    def forward(
        self,
        tokens_BLK: Tensor,
        positions_BL: Tensor,
        targets_BLK: Tensor,
        depth_fraction: float = 1.0,
        codebook_weights: Sequence[float] = (1.0,),
        drawn_N: Tensor | None = None,
        shares: Shares = ALONE,
    ) -> SpeechlessLoss:
        """Training loss of a batch, as `data.collate` makes it.

        An utterance is its prefix, then its frames; padding is only at the end, where a causal
        model does not see it.

        Args:
            tokens_BLK: int64; the K tokens of a frame, or a prefix token and K - 1 `NOTHING`.
            positions_BL: float32, as `positions`.
            targets_BLK: int64; codes of the frame that follows a position, or `end_of_speech` and
                K - 1 `NO_TARGET`, or `NO_TARGET` only.
            depth_fraction: share of the frames, drawn at random, on which codebooks 1 to K-1 are
                learned (CSM trains its decoder on 1/16 of them, Sesame, 2025).
            codebook_weights: weight of each codebook in `total`, coarsest first; the last number
                also applies to the codebooks after it.
            drawn_N: int64, those frames, counted over the batch, where several processes have drawn
                them together; None draws here.
            shares: of a process that has a part of a batch; each loss is times its share.
        """
        states_BLD = self.dropout(self.temporal_states(tokens_BLK, positions_BL))
        code0_BL = targets_BLK[..., 0]
        is_end_BL = code0_BL == self.end_of_speech
        is_frame_BL = (code0_BL != NO_TARGET) & ~is_end_BL
        codes_NK = targets_BLK[is_frame_BL]
        states_ND = states_BLD[is_frame_BL]
        first = F.cross_entropy(self.code0_head(states_ND).float(), codes_NK[:, 0])
        end = F.cross_entropy(self.code0_head(states_BLD[is_end_BL]).float(), code0_BL[is_end_BL])
        if drawn_N is None and depth_fraction < 1:
            num_drawn = max(1, round(depth_fraction * len(codes_NK)))
            drawn_N = torch.randperm(len(codes_NK), device=codes_NK.device)[:num_drawn]
        if drawn_N is not None:
            states_ND, codes_NK = states_ND[drawn_N], codes_NK[drawn_N]
        logits_NJV = self.frame_decoder(states_ND, codes_NK).float()
        others_NJ = F.cross_entropy(logits_NJV.mT, codes_NK[:, 1:], reduction="none")
        codebooks_K = torch.cat([shares.frames * first[None], shares.drawn * others_NJ.mean(dim=0)])
        last = len(codebook_weights) - 1
        total = shares.frames * end * is_end_BL.sum() / is_frame_BL.sum()
        for k, loss in enumerate(codebooks_K):
            total = total + codebook_weights[min(k, last)] * loss
        return SpeechlessLoss(total, codebooks_K, shares.utterances * end)

    def temporal_states(
        self,
        tokens_BLK: Tensor,
        positions_BL: Tensor,
        mask_BL: Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """States that predict what follows each position.

        Args:
            tokens_BLK: as in `forward`; with a cache, only the new ones.
            positions_BL: positions of these tokens.
            mask_BL: bool, True at real tokens, including those in the cache; None if there is no
                padding in front.
            cache: keys and values of the earlier positions; extended in place.

        Returns:
            float `[B, L, D]`.
        """
        if mask_BL is None:
            # Without a mask, transformers 5.23 takes positions that do not count 1, 2, 3, ... for
            # several sequences packed into one, and hides them from each other.
            mask_BL = torch.ones(tokens_BLK.shape[:2], dtype=torch.bool, device=tokens_BLK.device)
        inputs_BLD = F.embedding_bag(
            tokens_BLK.flatten(0, 1), self.temporal.embed_tokens.weight,
            mode="sum", padding_idx=NOTHING,
        ).view(*tokens_BLK.shape[:2], -1)  # fmt: skip
        return self.temporal(
            inputs_embeds=self.dropout(inputs_BLD),
            attention_mask=mask_BL,
            position_ids=positions_BL,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state


def load_speechless(name: str, *, device: torch.device) -> Speechless:
    """Load a model for generation.

    Args:
        name: folder written by `python -m stage2_speechless.train`, a `save_pretrained` folder, or
            a hub name.
        device: where it runs.

    Raises:
        InputError: unfinished or foreign folder, weights that do not fit, or made for another
            language.
    """
    folder = find_pretrained(name, made_by="stage2_speechless.train", flag="--speechless")
    model = load_frozen(folder, Speechless, SpeechlessConfig, device=device)
    refuse_other_language(model.config.normalization, what=f"--speechless {name}")
    return model
