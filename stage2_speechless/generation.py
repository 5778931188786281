"""The generation loop of Speechless: a batch of prefixes -> codes, frame by frame.

Utterances that end leave the batch, so that one that never ends does not make the others wait.
"""

# B utterances (still speaking), S prefix positions, T frames (25 per second), L = S + T,
# K codebooks, D width, V codes per codebook and the end of speech

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from stage2_speechless.model import Speechless
from stage2_speechless.sampling import (
    DEFAULT_TEMPERATURE,
    DEFAULT_TOP_K,
    draw_one,
    sample_codes,
    utterance_uniforms,
)
from stage2_speechless.vocabulary import NOTHING

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
    temperature: float = DEFAULT_TEMPERATURE,
    top_k: int = DEFAULT_TOP_K,
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
        temperature, top_k: as `sample_codes`.
        max_frames: length at which an utterance that has not ended is cut off.

    Raises:
        InputError: a text or condition that `Vocabulary.encode` refuses.
    """
    assert not model.training, "call .eval() before generating"
    rates = [
        draw_one(model.config.rates_cps, seed, id_) if rate is None else rate
        for rate, id_ in zip(rates_cps, ids, strict=True)
    ]
    tokens_BSK, mask_BL, positions_BL = _prefixes(model, texts, dialects, rates, max_frames)
    num_positions = tokens_BSK.shape[1]
    # One row more than frames: the last one may decide that speech ends.
    uniforms_BTK = torch.stack(
        [utterance_uniforms(seed, id_, max_frames + 1, model.config.num_codebooks) for id_ in ids]
    ).to(tokens_BSK.device)
    codes_BTK = torch.zeros_like(uniforms_BTK, dtype=torch.long)
    num_frames = [max_frames] * len(texts)
    ended = [False] * len(texts)
    cache = DynamicCache(config=model.temporal.config)
    position_BS = positions_BL[:, :num_positions]
    states_BD = model.temporal_states(tokens_BSK, position_BS, mask_BL, cache)[:, -1]
    rows_B = torch.arange(len(texts), device=tokens_BSK.device)
    for t in range(max_frames + 1):
        logits_BV = model.code0_head(states_BD)
        if t == 0:
            logits_BV[:, model.end_of_speech] = -torch.inf  # no utterance is empty
        uniforms_BK = uniforms_BTK[rows_B, t]
        code0_B = sample_codes(logits_BV, uniforms_BK[:, 0], temperature=temperature, top_k=top_k)
        goes_on_B = code0_B != model.end_of_speech
        if not goes_on_B.all():
            for row in rows_B[~goes_on_B].tolist():
                num_frames[row], ended[row] = t, True
            cache.batch_select_indices(goes_on_B.nonzero()[:, 0])
            rows_B, mask_BL, states_BD, code0_B, uniforms_BK = (
                x_B[goes_on_B] for x_B in (rows_B, mask_BL, states_BD, code0_B, uniforms_BK)
            )
        if t == max_frames or len(rows_B) == 0:
            break
        codes_BK = model.frame_decoder.generate(
            states_BD, code0_B, uniforms_BK[:, 1:], temperature=temperature, top_k=top_k
        )
        codes_BTK[rows_B, t] = codes_BK
        mask_BL = F.pad(mask_BL, (0, 1), value=True)
        frame_B1K = model.frame_tokens(codes_BK)[:, None]
        position_B1 = positions_BL[rows_B, num_positions + t, None]
        states_BD = model.temporal_states(frame_B1K, position_B1, mask_BL, cache)[:, 0]
    codes = [codes_TK[:num] for codes_TK, num in zip(codes_BTK.cpu(), num_frames, strict=True)]
    return [GeneratedCodes(*result) for result in zip(codes, ended, strict=True)]


def _prefixes(
    model: Speechless,
    texts: Sequence[str],
    dialects: Sequence[str],
    rates: Sequence[float],
    max_frames: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the model reads first, padded in front: tokens `[B, S, K]`, mask `[B, S]`, and the
    positions `[B, S + max_frames]` of it and of the frames that follow."""
    conditions = zip(texts, dialects, rates, strict=True)
    prefixes = [model.vocabulary.encode(*condition) for condition in conditions]
    tokens_BSK, mask_BS = pad_in_front(prefixes, model.config.num_codebooks)
    longest = tokens_BSK.shape[1]
    positions = [
        F.pad(model.positions(len(prefix), max_frames, rate), (longest - len(prefix), 0))
        for prefix, rate in zip(prefixes, rates, strict=True)
    ]
    device = model.code0_head.weight.device
    return tokens_BSK.to(device), mask_BS.to(device), torch.stack(positions).to(device)


def pad_in_front(prefixes: Sequence[list[int]], num_codebooks: int) -> tuple[Tensor, Tensor]:
    """Prefixes of different lengths -> tokens `[B, S, K]`, of which only the first column is used,
    and mask `[B, S]`, True at real positions."""
    longest = max(map(len, prefixes))
    tokens_BSK = torch.full((len(prefixes), longest, num_codebooks), NOTHING, dtype=torch.long)
    for row_SK, prefix in zip(tokens_BSK, prefixes, strict=True):
        row_SK[longest - len(prefix) :, 0] = torch.tensor(prefix)
    return tokens_BSK, tokens_BSK[..., 0] != NOTHING
