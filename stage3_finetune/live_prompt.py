"""A spoken question's prompt, put into Gemma's cache while the question is still being asked.

    prompt = LivePrompt(model, tokenizer, turns)
    for frames_TD in ...:  # as they come from gemma4.tower_stream
        prompt.hear(frames_TD)
    for token in Decoding(model, prompt.begun()): ...

The decoder is causal, so what the cache holds of a prompt does not depend on what follows. When the
speaker falls silent, only the tokens that close the turn are left to compute, however long the
question was. An adapter that writes a transcript first may know most of it by then, from an answer
that was begun in an earlier pause: a draft, which one pass confirms as far as it is right.
"""

# S text positions, T frames (25 per second), D embedding width

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gemma4.kinds import AnyGemma
from gemma4.sequence_cache import SequenceCache
from stage3_finetune.called_functions import ToolSchema
from stage3_finetune.decoding import BegunPrompt, extend, most_probable
from stage3_finetune.dialogue import EncodedDialogue, Turn, encode_prompt


class LivePrompt:
    """The prompt that ends with a spoken question, as far as it has been heard.

    Attributes:
        turns: the conversation before the question.
    """

    def __init__(
        self,
        model: AnyGemma,
        tokenizer: PreTrainedTokenizerBase,
        turns: Sequence[Turn],
        *,
        prompt: str = "",
        tools: Sequence[ToolSchema] = (),
    ) -> None:
        """Compute the conversation so far, up to where the question's speech begins.

        Args:
            model: one that takes embeddings (`gemma4.speech_embeddings`).
            turns: the conversation before the question; spoken turns with embeddings.
            prompt: text shown beside the speech, e.g. to ask for a transcript.
            tools: JSON schemas of the functions that may be called.

        Raises:
            InputError: as `encode_prompt`.
        """
        self.turns = list(turns)
        self._model = model
        self._tokenizer = tokenizer
        self._tools = tools
        width = model.config.audio_config.hidden_size
        self._frames = [torch.zeros(0, width)]
        self._question = Turn("user", "", spoken=True, prompt=prompt)
        # One frame shows where the speech will stand; what comes before does not depend on it.
        example = self._encode(torch.zeros(1, width)).input_ids
        self._slot = model.config.audio_token_id
        begin = len(example) - 1 - example[::-1].index(self._slot)
        self._cache = SequenceCache(model.config.get_text_config())
        before = [turn.frames_TD for turn in self.turns if turn.frames_TD is not None]
        extend(model, [self._cache], [example[:begin]], before)

    def hear(self, frames_TD: Tensor) -> None:
        """Add speech to the prompt.

        Args:
            frames_TD: the next embeddings before `output_proj`; any number.
        """
        if len(frames_TD):
            hear_together([self], [frames_TD])

    @property
    def frames_TD(self) -> Tensor:
        """All that was heard."""
        return torch.cat(self._frames)

    def begun(self, draft: Sequence[int] = ()) -> BegunPrompt:
        """The prompt, for an answer to what was heard so far.

        It has a cache of its own: more can be heard afterwards, and another answer be asked for.

        Args:
            draft: tokens with which the answer may begin. It is the same with any draft, up to
                rounding; a good one saves computing its tokens one by one.
        """
        prompt = self._encode(self.frames_TD)
        written = self._confirmed(prompt, draft) if draft else ()
        return BegunPrompt(prompt, self._cache.copy(), written)

    def _confirmed(self, prompt: EncodedDialogue, draft: Sequence[int]) -> tuple[int, ...]:
        """As much of a draft as Gemma would write."""
        left = [*prompt.input_ids[self._cache.length :], *draft[:-1]]
        output = extend(self._model, [self._cache.copy()], [left], (), logits_to_keep=len(draft))
        chosen = most_probable(output.logits[0], self._model).tolist()
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(draft, chosen, strict=True))
        return tuple(id_ for id_, _ in pairs)

    def _encode(self, frames_TD: Tensor) -> EncodedDialogue:
        question = replace(self._question, frames_TD=frames_TD)
        return encode_prompt([*self.turns, question], self._tokenizer, self._tools)


def hear_together(prompts: Sequence[LivePrompt], frames: Sequence[Tensor]) -> None:
    """Add speech to several prompts in one pass.

    Args:
        prompts: of the same model.
        frames: `[T, D]`, the next embeddings of each, equally many.
    """
    for prompt, frames_TD in zip(prompts, frames, strict=True):
        prompt._frames.append(frames_TD)
    slots = [[prompt._slot] * len(frames[0]) for prompt in prompts]
    extend(prompts[0]._model, [prompt._cache for prompt in prompts], slots, frames)
