"""Gemma writes answers: batches for evaluation, one token at a time for chat."""

# B prompts, S text positions, T frames (25 per second), D embedding width

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from gemma4.function_calls import RESPONSE, call_token_id
from gemma4.kinds import AnyGemma
from stage1_rvq.data import iterate_batches
from stage3_finetune.decoding import BegunPrompt, Decoding, speech_inputs, unwritable_ids
from stage3_finetune.dialogue import EncodedDialogue, Turn, encode_prompt, turn_end_id

MAX_NEW_TOKENS = 256


def generate_answers(
    model: AnyGemma,
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
    model: AnyGemma,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[EncodedDialogue],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 16,
    description: str | None = "answer",
) -> list[list[int]]:
    """Like `generate_answers`, but from encoded prompts to token ids; an answer that ended within
    `max_new_tokens` includes its end token. No progress is shown if `description` is None."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].input_ids))
    stops = stop_ids(tokenizer, model)
    answers: list[list[int]] = [[] for _ in prompts]
    with tqdm(
        total=len(prompts), desc=description, unit=" answers", disable=description is None
    ) as progress:
        for positions in iterate_batches(len(order), batch_size):
            batch = [order[p] for p in positions]
            inputs = prompt_inputs([prompts[i] for i in batch], tokenizer, model)
            written = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=stops,
                suppress_tokens=unwritable_ids(model),
                pad_token_id=tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :].tolist()
            for i, ids in zip(batch, written, strict=True):
                ends = [position for position, id_ in enumerate(ids) if id_ in stops]
                answers[i] = ids[: ends[0] + 1] if ends else ids
            progress.update(len(batch))
    return answers


def stream_tokens(
    model: AnyGemma,
    tokenizer: PreTrainedTokenizerBase,
    prompt: EncodedDialogue | BegunPrompt,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Iterator[int]:
    """Greedy answer to one prompt: yields each token id as it is generated, until the turn ends."""
    stops = stop_ids(tokenizer, model)
    for token in islice(Decoding(model, prompt), max_new_tokens):
        if int(token.id_1) in stops:
            return
        yield int(token.id_1)


def prompt_inputs(
    prompts: Sequence[EncodedDialogue],
    tokenizer: PreTrainedTokenizerBase,
    model: AnyGemma,
) -> dict[str, Tensor]:
    """Prompts -> one left-padded batch on the model's device."""
    length = max(len(prompt.input_ids) for prompt in prompts)
    padding = [length - len(prompt.input_ids) for prompt in prompts]
    ids = [
        [tokenizer.pad_token_id] * n + p.input_ids for n, p in zip(padding, prompts, strict=True)
    ]
    mask = [[0] * n + [1] * len(p.input_ids) for n, p in zip(padding, prompts, strict=True)]
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    frames = [frames_TD for prompt in prompts for frames_TD in prompt.frames]
    inputs |= speech_inputs(frames, model.device)
    return {name: value.to(model.device) for name, value in inputs.items()}


def stop_ids(tokenizer: PreTrainedTokenizerBase, model: AnyGemma) -> list[int]:
    """Tokens that end what Gemma writes at a time: end of sequence, end of turn, the mark that
    hands over to a function, if the tokenizer has it, and those that the checkpoint's generation
    config names beside them."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    handed_over = call_token_id(tokenizer, RESPONSE)
    own = [tokenizer.eos_token_id, turn_end_id(tokenizer), handed_over]
    return list(dict.fromkeys(id_ for id_ in [*own, *named] if id_ is not None))
