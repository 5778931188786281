"""Gemma writes answers: batches for evaluation, one token at a time for chat."""

# B prompts, S text positions, T frames (25 per second), D embedding width

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import Cache, Gemma4ForConditionalGeneration, PreTrainedTokenizerBase

from stage1_rvq.data import iterate_batches, pad_frames
from stage3_finetune.dialogue import EncodedDialogue, Turn, encode_prompt, turn_end_id

MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class BegunPrompt:
    """A prompt of which Gemma's cache already holds the beginning, all of its speech included.

    Attributes:
        prompt: all of it.
        cache: keys and values of its first tokens. Writing an answer extends it, so it serves once.
        num_cached: how many tokens these are.
    """

    prompt: EncodedDialogue
    cache: Cache
    num_cached: int


def generate_answers(
    model: Gemma4ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Turn]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 16,
    description: str = "answer",
) -> list[str]:
    """Greedy answers to conversations that end with a user turn.

    Args:
        conversations: turns so far; spoken ones with embeddings.
        batch_size: conversations at a time; the answers do not depend on it (up to rounding).

    Returns:
        What the model wrote, without special tokens, in order.
    """
    written = generate_tokens(
        model,
        tokenizer,
        [encode_prompt(turns, tokenizer) for turns in conversations],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        description=description,
    )
    return decode_answers(written, tokenizer)


def decode_answers(
    written: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Token ids of answers -> their texts, without special tokens."""
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in written]


@torch.no_grad()
def generate_tokens(
    model: Gemma4ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[EncodedDialogue],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 16,
    description: str = "answer",
) -> list[list[int]]:
    """Like `generate_answers`, but from encoded prompts to token ids; an answer that ended within
    `max_new_tokens` includes its end token."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].input_ids))
    stops = stop_ids(tokenizer)
    answers: list[list[int]] = [[] for _ in prompts]
    with tqdm(total=len(prompts), desc=description, unit=" answers") as progress:
        for positions in iterate_batches(len(order), batch_size):
            batch = [order[p] for p in positions]
            inputs = prompt_inputs([prompts[i] for i in batch], tokenizer, model)
            written = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=stops,
                pad_token_id=tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :].tolist()
            for i, ids in zip(batch, written, strict=True):
                ends = [position for position, id_ in enumerate(ids) if id_ in stops]
                answers[i] = ids[: ends[0] + 1] if ends else ids
            progress.update(len(batch))
    return answers


def stream_tokens(
    model: Gemma4ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    prompt: EncodedDialogue | BegunPrompt,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Iterator[int]:
    """Greedy answer to one prompt: yields each token id as it is generated, until the turn ends."""
    stops = stop_ids(tokenizer)
    for ids_11, _ in islice(greedy_steps(model, tokenizer, prompt), max_new_tokens):
        if int(ids_11) in stops:
            return
        yield int(ids_11)


@torch.no_grad()
def greedy_steps(
    model: Gemma4ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    prompt: EncodedDialogue | BegunPrompt,
    **settings: Any,
) -> Iterator[tuple[Tensor, Any]]:
    """The most probable next token, int64 `[1, 1]`, and the model's output, again and again.

    Args:
        settings: further arguments of each forward pass.
    """
    cache: Cache | None = None
    if isinstance(prompt, BegunPrompt):
        cache, ids = prompt.cache, prompt.prompt.input_ids
        left_1S = torch.tensor([ids[prompt.num_cached :]], device=model.device)
        mask_1S = torch.ones(1, len(ids), dtype=torch.long, device=model.device)
        inputs = {"input_ids": left_1S, "attention_mask": mask_1S}
    else:
        inputs = prompt_inputs([prompt], tokenizer, model)
    while True:
        output = model(
            **inputs, past_key_values=cache, use_cache=True, logits_to_keep=1, **settings
        )
        cache = output.past_key_values
        ids_11 = output.logits[:, -1].argmax(dim=-1, keepdim=True)
        yield ids_11, output
        mask_1S = torch.cat([inputs["attention_mask"], torch.ones_like(ids_11)], dim=1)
        inputs = {"input_ids": ids_11, "attention_mask": mask_1S}


def prompt_inputs(
    prompts: Sequence[EncodedDialogue],
    tokenizer: PreTrainedTokenizerBase,
    model: Gemma4ForConditionalGeneration,
) -> dict[str, Tensor]:
    """Prompts -> one left-padded batch on the model's device."""
    length = max(len(prompt.input_ids) for prompt in prompts)
    padding = [length - len(prompt.input_ids) for prompt in prompts]
    ids = [
        [tokenizer.pad_token_id] * n + p.input_ids for n, p in zip(padding, prompts, strict=True)
    ]
    mask = [[0] * n + [1] * len(p.input_ids) for n, p in zip(padding, prompts, strict=True)]
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    inputs |= speech_inputs([frames_TD for prompt in prompts for frames_TD in prompt.frames])
    return {name: value.to(model.device) for name, value in inputs.items()}


def speech_inputs(frames: Sequence[Tensor]) -> dict[str, Tensor]:
    """Speech of the prompts in a batch, in order -> Gemma's arguments; none if there is none."""
    if not frames:
        return {}
    features_BTD, mask_BT = pad_frames(list(frames))
    return {"input_features": features_BTD, "input_features_mask": mask_BT}


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer: end of sequence and end of turn."""
    assert tokenizer.eos_token_id is not None
    return [tokenizer.eos_token_id, turn_end_id(tokenizer)]
