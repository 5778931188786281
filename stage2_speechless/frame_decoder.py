"""The code-frame decoder: one temporal state -> the K codes of one frame, coarsest first.

    decoder = FrameDecoder(num_codebooks=8, codebook_size=2048, state_width=768)
    logits_NJV = decoder(states_ND, codes_NK)                       # training
    codes_NK = decoder.generate(states_ND, code0_N, uniforms_NJ)    # generation

A "depth transformer" (RQ-Transformer, Lee et al., 2022; Moshi, Défossez et al., 2024): the
caller's temporal model predicts codebook 0 from the state, and this decoder predicts codebooks 1 to
K-1, each from the state and the codes before it. Used by Speechless (25 frames a second) and by the
speech head (Mimi's codes, 12.5).
"""

# N frames, D state width, W decoder width, K codebooks, J = K - 1 predicted here, V codes each

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaModel

from commands.errors import InputError
from gemma4.linear import linear
from stage2_speechless.sampling import sample_codes

# As large as the projected state they are added to: with Llama's 0.02, codes would start at 3 % of
# the sum, and codebooks 2 to 7 were learned later (seen on synthetic codes).
EMBEDDING_STD = 0.5


class FrameDecoder(nn.Module):
    """Causal transformer over the codebooks of one frame; frames are independent given their
    states."""

    def __init__(
        self,
        num_codebooks: int,
        codebook_size: int,
        state_width: int,
        width: int = 512,
        num_layers: int = 2,
        num_heads: int = 8,
    ) -> None:
        """
        Args:
            num_codebooks: K, codebook 0 included.
            codebook_size: V, codes per codebook.
            state_width: D, width of the temporal states.
            width, num_layers, num_heads: W, and the rest of the transformer's shape.
        """
        super().__init__()
        if num_codebooks < 2:
            raise InputError(f"codes need at least 2 codebooks, got {num_codebooks}")
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        num_predicted = num_codebooks - 1
        # Codes of codebook k are tokens k V to (k + 1) V - 1; the last codebook is never an input.
        self.transformer = build_transformer(
            num_predicted * codebook_size, width, num_layers, num_heads
        )
        self.project = nn.Linear(state_width, width)
        self.heads_JVW = nn.Parameter(torch.empty(num_predicted, codebook_size, width))
        nn.init.normal_(self.heads_JVW, std=0.02)
        nn.init.normal_(self.transformer.embed_tokens.weight, std=EMBEDDING_STD)

    def forward(self, states_ND: Tensor, codes_NK: Tensor) -> Tensor:
        """Logits of codebooks 1 to K-1, each given the true codes before it.

        Args:
            states_ND: temporal states, float.
            codes_NK: int64 in [0, V); the last column is not used.

        Returns:
            logits_NJV: `[:, j]` are those of codebook j + 1.
        """
        offsets_J = torch.arange(codes_NK.shape[1] - 1, device=codes_NK.device)
        tokens_NJ = codes_NK[:, :-1] + offsets_J * self.codebook_size
        inputs_NJW = self.project(states_ND)[:, None] + self.transformer.embed_tokens(tokens_NJ)
        hidden_NJW = self.transformer(inputs_embeds=inputs_NJW, use_cache=False).last_hidden_state
        return torch.einsum("njw,jvw->njv", hidden_NJW, self.heads_JVW)

    def step(
        self, projected_NW: Tensor, code_N: Tensor, codebook: int, cache: DynamicCache
    ) -> Tensor:
        """Logits `[N, V]` of codebook `codebook + 1`, given the code of `codebook` and, in the
        cache, those before it; equal to `forward`'s."""
        token_N = code_N + codebook * self.codebook_size
        input_N1W = (projected_NW + self.transformer.embed_tokens(token_N))[:, None]
        output = self.transformer(inputs_embeds=input_N1W, past_key_values=cache, use_cache=True)
        return linear(output.last_hidden_state[:, 0], self.heads_JVW[codebook])

    @torch.no_grad()
    def generate(
        self,
        states_ND: Tensor,
        code0_N: Tensor,
        uniforms_NJ: Tensor,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        guidance: float = 1.0,
        unconditional_ND: Tensor | None = None,
    ) -> Tensor:
        """Complete frames whose first codes are known.

        Args:
            code0_N: int64, codes of codebook 0.
            uniforms_NJ: float32 in [0, 1), one random number for each code to draw.
            guidance: as `guide`; other than 1 only with `unconditional_ND`.
            unconditional_ND: states of the same frames, computed without the text.

        Returns:
            codes_NK: int64, `code0_N` first.
        """
        cache = DynamicCache(config=self.transformer.config)
        if unconditional_ND is not None:
            states_ND = torch.cat([states_ND, unconditional_ND])
        projected_NW = self.project(states_ND)
        codes = [code0_N]
        for codebook, uniforms_N in enumerate(uniforms_NJ.unbind(dim=1)):
            if unconditional_ND is None:
                logits_NV = self.step(projected_NW, codes[-1], codebook, cache)
            else:
                both_NV = self.step(projected_NW, codes[-1].repeat(2), codebook, cache)
                conditional_NV, unconditional_NV = both_NV.chunk(2)
                logits_NV = guide(conditional_NV, unconditional_NV, guidance)
            codes.append(sample_codes(logits_NV, uniforms_N, temperature=temperature, top_k=top_k))
        return torch.stack(codes, dim=1)


def guide(logits_NV: Tensor, unconditional_NV: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598): amplify what the text
    adds.

    Args:
        logits_NV: logits given the text.
        unconditional_NV: logits without the text.
        guidance: 1 gives `logits_NV`, 0 gives `unconditional_NV`; above 1 extrapolates.
    """
    return torch.lerp(unconditional_NV, logits_NV, guidance)


def build_transformer(
    num_tokens: int,
    width: int,
    num_layers: int,
    num_heads: int,
    *,
    padding_token: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> LlamaModel:
    """A causal Llama transformer with random weights.

    Args:
        num_tokens: rows of its embedding table, `embed_tokens`.
        width: width of the residual stream; the feed-forward layers are 8/3 of it, rounded to a
            multiple of 64.
        num_layers: transformer layers.
        num_heads: attention heads.
        padding_token: a token whose embedding is zero and stays zero.
        settings: further settings of `LlamaConfig`, by name; `intermediate_size` may be among them.

    Raises:
        InputError: heads do not divide the width into parts of even width (rotary positions come in
            pairs), and `settings` has no `head_dim`.
    """
    settings = settings or {}
    if "head_dim" not in settings and width % (2 * num_heads):
        raise InputError(f"a width of {width} does not split into {num_heads} heads of even width")
    config = LlamaConfig(
        vocab_size=num_tokens,
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        pad_token_id=padding_token,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
        **{"intermediate_size": 64 * math.ceil(width * 8 / 3 / 64), **settings},
    )
    return LlamaModel(config)
