"""A spoken question's prompt, put into Gemma's cache while the question is still being asked.

    prompt = LivePrompt(model, tokenizer, turns)
    for frames_TD in ...:  # as they come from gemma4.tower_stream
        prompt.hear(frames_TD)
    for token in stream_tokens(model, tokenizer, prompt.begun()): ...

The decoder is causal, so what the cache holds of a prompt does not depend on what follows. When the
speaker falls silent, only the tokens that close the turn are left to compute, however long the
question was.
"""

# S text positions, T frames (25 per second), D embedding width

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import DynamicCache, Gemma4ForConditionalGeneration, PreTrainedTokenizerBase

from stage3_finetune.dialogue import EncodedDialogue, Turn, encode_prompt
from stage3_finetune.generate import BegunPrompt, speech_inputs


class LivePrompt:
    """The prompt that ends with a spoken question, as far as it has been heard.

    Attributes:
        turns: the conversation before the question.
        num_cached: tokens of the prompt in the cache.
    """

    def __init__(
        self,
        model: Gemma4ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        turns: Sequence[Turn],
        *,
        prompt: str = "",
    ) -> None:
        """Compute the conversation so far, up to where the question's speech begins.

        Args:
            model: one that takes embeddings (`gemma4.speech_embeddings`).
            turns: the conversation before the question; spoken turns with embeddings.
            prompt: text shown beside the speech, e.g. to ask for a transcript.

        Raises:
            InputError: as `encode_prompt`.
        """
        self.turns = list(turns)
        self.num_cached = 0
        self._model = model
        self._tokenizer = tokenizer
        width = model.config.audio_config.hidden_size
        self._frames = [torch.zeros(0, width)]
        self._question = Turn("user", "", spoken=True, prompt=prompt)
        # One frame shows where the speech will stand; what comes before does not depend on it.
        example = self._encode(torch.zeros(1, width)).input_ids
        self._slot = model.config.audio_token_id
        begin = len(example) - 1 - example[::-1].index(self._slot)
        self._cache = DynamicCache(config=model.config.get_text_config())
        before = [turn.frames_TD for turn in self.turns if turn.frames_TD is not None]
        self._compute(example[:begin], before)

    def hear(self, frames_TD: Tensor) -> None:
        """Add speech to the prompt.

        Args:
            frames_TD: the next embeddings before `output_proj`; any number.
        """
        if len(frames_TD):
            self._frames.append(frames_TD)
            self._compute([self._slot] * len(frames_TD), [frames_TD])

    @property
    def frames_TD(self) -> Tensor:
        """All that was heard."""
        return torch.cat(self._frames)

    def begun(self) -> BegunPrompt:
        """The prompt, for an answer to what was heard so far.

        It has a cache of its own: more can be heard afterwards, and another answer be asked for.
        """
        return BegunPrompt(
            self._encode(self.frames_TD), copy.deepcopy(self._cache), self.num_cached
        )

    def _encode(self, frames_TD: Tensor) -> EncodedDialogue:
        question = replace(self._question, frames_TD=frames_TD)
        return encode_prompt([*self.turns, question], self._tokenizer)

    @torch.no_grad()
    def _compute(self, ids: list[int], frames: Sequence[Tensor]) -> None:
        self.num_cached += len(ids)
        inputs = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, self.num_cached, dtype=torch.long),
            **speech_inputs(frames),
        }
        self._model(
            **{name: value.to(self._model.device) for name, value in inputs.items()},
            past_key_values=self._cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
