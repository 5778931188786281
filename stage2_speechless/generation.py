"""The generation loop of Speechless: a batch of prefixes -> codes, frame by frame.

Utterances that end leave the batch, so that one that never ends does not make the others wait.
"""

# B utterances (still speaking), R rows of them (two each with guidance: first those with the text,
# then those without), S prefix positions, T frames (25 per second), L = S + T, K codebooks,
# D width, V codes per codebook and the end of speech

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from stage2_speechless.frame_decoder import guide
from stage2_speechless.model import Speechless
from stage2_speechless.sampling import (
    DEFAULT_SAMPLING,
    SamplingSettings,
    draw_one,
    sample_codes,
    utterance_uniforms,
)
from stage2_speechless.vocabulary import NOTHING, without_text

MAX_FRAMES = 750  # 30 s: what Gemma 4 hears of one recording


@dataclass(frozen=True)
class GeneratedCodes:
    """One utterance: its codes, int64 `[T, K]` on the CPU, T >= 1, and whether it ended by
    itself."""

    codes_TK: Tensor
    ended: bool


@torch.no_grad()
def generate_batch(
    model: Speechless,
    texts: Sequence[str],
    ids: Sequence[str],
    *,
    dialects: Sequence[str],
    rates_cps: Sequence[float | None],
    seed: int = 0,
    sampling: SamplingSettings = DEFAULT_SAMPLING,
    max_frames: int = MAX_FRAMES,
) -> list[GeneratedCodes]:
    """Speak a batch of texts.

    The same text, id, conditions and seed give the same codes alone or in any batch, up to the
    rounding of the logits.

    Args:
        model: in evaluation mode.
        texts: B texts; normalised here.
        ids: together with `seed`, they decide what is drawn for each text.
        dialects: dialect of each text.
        rates_cps: speaking rates in characters per second; for None one is drawn.
        seed: another seed speaks the same texts differently.
        sampling: how codes are drawn.
        max_frames: length at which an utterance that has not ended is cut off.

    Raises:
        InputError: a text or condition that `Vocabulary.encode` refuses, or guidance for a model
            that cannot be guided.
    """
    assert not model.training, "call .eval() before generating"
    rates = [
        draw_one(model.config.rates_cps, seed, id_) if rate is None else rate
        for rate, id_ in zip(rates_cps, ids, strict=True)
    ]
    speaking = _Speaking(
        model, texts, dialects, rates, max_frames,
        guidance=sampling.guidance_of(model.config.text_dropout),
    )  # fmt: skip
    # One row more than frames: the last one may decide that speech ends.
    uniforms_BTK = torch.stack(
        [utterance_uniforms(seed, id_, max_frames + 1, model.config.num_codebooks) for id_ in ids]
    ).to(model.code0_head.weight.device)
    codes_BTK = torch.zeros_like(uniforms_BTK, dtype=torch.long)
    num_frames = [max_frames] * len(texts)
    ended = [False] * len(texts)
    for t in range(max_frames + 1):
        logits_BV = speaking.code0_logits()
        if t == 0:
            logits_BV[:, model.end_of_speech] = -torch.inf  # no utterance is empty
        uniforms_BK = uniforms_BTK[speaking.places_B, t]
        code0_B = sample_codes(
            logits_BV, uniforms_BK[:, 0], temperature=sampling.temperature, top_k=sampling.top_k
        )
        goes_on_B = code0_B != model.end_of_speech
        if not goes_on_B.all():
            for place in speaking.places_B[~goes_on_B].tolist():
                num_frames[place], ended[place] = t, True
            speaking.keep(goes_on_B)
            code0_B, uniforms_BK = code0_B[goes_on_B], uniforms_BK[goes_on_B]
        if t == max_frames or len(code0_B) == 0:
            break
        codes_BK = speaking.complete(code0_B, uniforms_BK[:, 1:], sampling)
        codes_BTK[speaking.places_B, t] = codes_BK
        speaking.push(codes_BK)
    codes = [codes_TK[:num] for codes_TK, num in zip(codes_BTK.cpu(), num_frames, strict=True)]
    return [GeneratedCodes(*result) for result in zip(codes, ended, strict=True)]


class _Speaking:
    """The utterances of a batch that still speak, and what the model has read and said of them.

    Attributes:
        places_B: which of the batch they are.
    """

    def __init__(
        self,
        model: Speechless,
        texts: Sequence[str],
        dialects: Sequence[str],
        rates: Sequence[float],
        max_frames: int,
        *,
        guidance: float,
    ) -> None:
        """Read the prefixes; see `generate_batch`."""
        self.model, self.guidance = model, guidance
        self._copies = 1 if guidance == 1 else 2
        tokens_RSK, self._mask_RL, self._positions_RL = _prefixes(
            model, texts, dialects, rates, max_frames, is_guided=self._copies == 2
        )
        self.places_B = torch.arange(len(texts), device=tokens_RSK.device)
        self._cache = DynamicCache(config=model.temporal.config)
        position_RS = self._positions_RL[:, : tokens_RSK.shape[1]]
        self._states_RD = model.temporal_states(
            tokens_RSK, position_RS, self._mask_RL, self._cache
        )[:, -1]

    def code0_logits(self) -> Tensor:
        """What may come next, guided: logits `[B, V]`."""
        with_text_BD, without_BD = self._states()
        logits_BV: Tensor = self.model.code0_head(with_text_BD)
        if without_BD is None:
            return logits_BV
        return guide(logits_BV, self.model.code0_head(without_BD), self.guidance)

    def complete(self, code0_B: Tensor, uniforms_BJ: Tensor, sampling: SamplingSettings) -> Tensor:
        """Draw the rest of the frames whose first codes are known: `[B, K]`."""
        with_text_BD, without_BD = self._states()
        return self.model.frame_decoder.generate(
            with_text_BD, code0_B, uniforms_BJ,
            temperature=sampling.temperature, top_k=sampling.top_k,
            guidance=self.guidance, unconditional_ND=without_BD,
        )  # fmt: skip

    def push(self, codes_BK: Tensor) -> None:
        """Go on after these frames."""
        frame_R1K = self.model.frame_tokens(codes_BK)[:, None].repeat(self._copies, 1, 1)
        position_R1 = self._positions_RL[:, self._mask_RL.shape[1], None]
        self._mask_RL = F.pad(self._mask_RL, (0, 1), value=True)
        self._states_RD = self.model.temporal_states(
            frame_R1K, position_R1, self._mask_RL, self._cache
        )[:, 0]

    def keep(self, goes_on_B: Tensor) -> None:
        """Leave the others out."""
        goes_on_R = goes_on_B.repeat(self._copies)
        self._cache.batch_select_indices(goes_on_R.nonzero()[:, 0])
        self.places_B = self.places_B[goes_on_B]
        self._mask_RL, self._positions_RL, self._states_RD = (
            x_R[goes_on_R] for x_R in (self._mask_RL, self._positions_RL, self._states_RD)
        )

    def _states(self) -> tuple[Tensor, Tensor | None]:
        """States with the text `[B, D]`, and without if there is guidance."""
        with_text_BD, *without = self._states_RD.chunk(self._copies)
        return with_text_BD, without[0] if without else None


def _prefixes(
    model: Speechless,
    texts: Sequence[str],
    dialects: Sequence[str],
    rates: Sequence[float],
    max_frames: int,
    *,
    is_guided: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the model reads first, padded in front: tokens `[R, S, K]`, mask `[R, S]`, and the
    positions `[R, S + max_frames]` of it and of the frames that follow."""
    conditions = zip(texts, dialects, rates, strict=True)
    prefixes = [model.vocabulary.encode(*condition) for condition in conditions]
    tokens_RSK, mask_RS = pad_in_front(prefixes, model.config.num_codebooks)
    longest = tokens_RSK.shape[1]
    positions_RL = torch.stack(
        [
            F.pad(model.positions(len(prefix), max_frames, rate), (longest - len(prefix), 0))
            for prefix, rate in zip(prefixes, rates, strict=True)
        ]
    )
    if is_guided:
        hidden = [without_text(prefix) for prefix in prefixes]
        hidden_RSK, _ = pad_in_front(hidden, model.config.num_codebooks)
        tokens_RSK = torch.cat([tokens_RSK, hidden_RSK])
        # What is hidden is still a position.
        mask_RS, positions_RL = mask_RS.repeat(2, 1), positions_RL.repeat(2, 1)
    device = model.code0_head.weight.device
    return tokens_RSK.to(device), mask_RS.to(device), positions_RL.to(device)


def pad_in_front(prefixes: Sequence[list[int]], num_codebooks: int) -> tuple[Tensor, Tensor]:
    """Prefixes of different lengths -> tokens `[B, S, K]`, of which only the first column is used,
    and mask `[B, S]`, True at real positions."""
    longest = max(map(len, prefixes))
    tokens_BSK = torch.full((len(prefixes), longest, num_codebooks), NOTHING, dtype=torch.long)
    for row_SK, prefix in zip(tokens_BSK, prefixes, strict=True):
        row_SK[longest - len(prefix) :, 0] = torch.tensor(prefix)
    return tokens_BSK, tokens_BSK[..., 0] != NOTHING
