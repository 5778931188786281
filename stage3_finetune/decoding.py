"""Gemma's answers a token at a time, several of them in one pass.

    decodings = [Decoding(model, prompt) for prompt in prompts]
    compute_together(decodings)              # the next token of all of them
    for decoding in decodings: decoding.next()

`next` alone computes the token where it has not been computed yet. So whoever reads an answer need
not know whether it is computed beside others.
"""

# N positions, S new positions, L layers, D width of Gemma, V vocabulary

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from gemma4.kinds import AnyGemma
from gemma4.sequence_cache import SequenceCache, join
from stage1_rvq.data import pad_frames
from stage3_finetune.dialogue import EncodedDialogue


@dataclass(frozen=True)
class BegunPrompt:
    """A prompt of which Gemma's cache already holds the beginning, all of its speech included.

    Attributes:
        prompt: all of it.
        cache: keys and values of its first tokens. Writing an answer extends it, so it serves once.
        written: the first tokens of the answer, as far as they are known.
    """

    prompt: EncodedDialogue
    cache: SequenceCache
    written: tuple[int, ...] = ()


@dataclass(frozen=True)
class NextToken:
    """The most probable next token.

    Attributes:
        id_1: int64, on the model's device.
        logits_1V: of all tokens; minus infinity of those that no answer holds.
        hidden_states: `[1, 1, D]` each, of the position that predicted it, in transformers' order;
            None for layers that were not requested.
    """

    id_1: Tensor
    logits_1V: Tensor
    hidden_states: tuple[Tensor | None, ...] | None


class Decoding:
    """One answer being written by greedy decoding.

    Attributes:
        ids: tokens of the answer so far: those that were known at the beginning, then those that
            `next` gave.
    """

    def __init__(
        self,
        model: AnyGemma,
        prompt: EncodedDialogue | BegunPrompt,
        *,
        layers: Sequence[int] = (),
    ) -> None:
        """
        Args:
            model: one that takes embeddings (`gemma4.speech_embeddings`), if the prompt has speech.
            prompt: all of it, or what is left of it.
            layers: whose hidden states are wanted, as transformers counts them.
        """
        self._model = model
        self._layers = list(layers)
        self._ready: NextToken | None = None
        self._frames: Sequence[Tensor] = ()
        self._held: list[int] = []  # tokens whose keys and values the cache holds
        if isinstance(prompt, BegunPrompt):
            self._cache = prompt.cache
            self._held = prompt.prompt.input_ids[: prompt.cache.length]
            self.ids = list(prompt.written)
            self._left = [*prompt.prompt.input_ids[prompt.cache.length :], *prompt.written]
        else:
            self._cache = SequenceCache(model.config.get_text_config())
            self.ids, self._left, self._frames = [], list(prompt.input_ids), prompt.frames

    def go_on_with(self, prompt: EncodedDialogue) -> None:
        """Write the answer to another prompt. Where that begins with the one before and what was
        written, as after the call of a function, only the rest of it is computed.

        Args:
            prompt: all of it; its speech is in what was computed before, or all is computed anew.
        """
        self.ids, self._ready, self._frames = [], None, ()
        self._left = prompt.input_ids[len(self._held) :]
        if not self._left or prompt.input_ids[: len(self._held)] != self._held:
            self._cache = SequenceCache(self._model.config.get_text_config())
            self._held, self._left, self._frames = [], list(prompt.input_ids), prompt.frames

    def next(self) -> NextToken:
        """The next token, computed now if it was not before."""
        compute_together([self])
        assert self._ready is not None
        token, self._ready = self._ready, None
        self.ids.append(self._left[0])
        return token

    def __iter__(self) -> Iterator[NextToken]:
        while True:
            yield self.next()


@torch.no_grad()
def compute_together(decodings: Sequence[Decoding]) -> None:
    """Compute the next token of every answer: in one pass, prompts apart, which differ in length.

    An answer is the same alone or beside others, up to rounding.

    Args:
        decodings: of the same model, and the same layers.
    """
    waiting = [d for d in decodings if d._ready is None]
    for is_one, group in groupby(sorted(waiting, key=_has_one_left), key=_has_one_left):
        if is_one:
            _compute(list(group))
        else:
            for decoding in group:
                _compute([decoding])


def _has_one_left(decoding: Decoding) -> bool:
    return len(decoding._left) == 1


def _compute(group: Sequence[Decoding]) -> None:
    """Put what is left of each answer, equally many tokens, through the model."""
    first = group[0]
    output = extend(
        first._model, [d._cache for d in group], [d._left for d in group],
        [frames_TD for d in group for frames_TD in d._frames],
        output_hidden_states=first._layers or False,
    )  # fmt: skip
    ids_B = most_probable(output.logits[:, -1], first._model)
    for row, (decoding, id_) in enumerate(zip(group, ids_B.tolist(), strict=True)):
        states = output.hidden_states and tuple(
            None if x_BSD is None else x_BSD[row : row + 1, -1:] for x_BSD in output.hidden_states
        )
        rows = slice(row, row + 1)
        decoding._ready = NextToken(ids_B[rows], output.logits[rows, -1], states)
        decoding._held += decoding._left
        decoding._left, decoding._frames = [id_], ()


def unwritable_ids(model: AnyGemma) -> list[int]:
    """Tokens that no answer holds: those in whose places sound and pictures stand, which the model
    would take for such when it reads its answer again, and those that its checkpoint suppresses."""
    config = model.config
    places = [config.audio_token_id, config.image_token_id, config.video_token_id]
    suppressed = model.generation_config.suppress_tokens or []
    return sorted({id_ for id_ in (*places, *suppressed) if id_ is not None})


def most_probable(logits_NV: Tensor, model: AnyGemma) -> Tensor:
    """Ids of the most probable tokens, int64 `[N]`; logits of `unwritable_ids` are set to minus
    infinity, in place."""
    logits_NV[..., unwritable_ids(model)] = float("-inf")
    return logits_NV.argmax(dim=-1)


@torch.no_grad()
def extend(
    model: AnyGemma,
    caches: Sequence[SequenceCache],
    ids: Sequence[list[int]],
    frames: Sequence[Tensor],
    **settings: Any,
) -> Any:
    """Put the next tokens of several sequences through the model, and into their caches.

    Args:
        ids: of each sequence, equally many.
        frames: speech behind their audio slots, in order.
        settings: further arguments of the forward pass.

    Returns:
        The model's output; logits of the last position only, unless `settings` ask for more.
    """
    batch = join(caches, num_new=len(ids[0]))
    return model(
        input_ids=torch.tensor(ids, device=model.device),
        **batch.masks(model.device), **speech_inputs(frames, model.device),
        past_key_values=batch.cache, use_cache=True, **{"logits_to_keep": 1} | settings,
    )  # fmt: skip


def speech_inputs(frames: Sequence[Tensor], device: torch.device) -> dict[str, Tensor]:
    """Speech of the prompts in a batch, in order -> Gemma's arguments; none if there is none."""
    if not frames:
        return {}
    features_BTD, mask_BT = pad_frames(list(frames))
    return {
        "input_features": features_BTD.to(device), "input_features_mask": mask_BT.to(device)
    }  # fmt: skip
