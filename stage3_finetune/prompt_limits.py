"""Limits on the length of a question and of the conversation in Gemma's prompt.

Attention costs time and memory that grow with the square of the prompt's length: a text of 100,000
characters, pasted in a second, takes 10 GB on the demo's small model. So a typed question, a
recording and the whole prompt each have a limit. A question over a limit is refused. A conversation
that has grown too long goes on: its oldest turns are forgotten, as in other chat programs, and the
caller prints a line that says so.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from commands.errors import InputError
from data_manifests.audio import audio_duration_s
from data_manifests.normalization import normalize_for_training
from stage3_finetune.called_functions import ToolSchema
from stage3_finetune.dialogue import EncodedDialogue, Turn, encode_prompt
from stage3_finetune.template_marks import refuse_template_marks

# About four minutes read aloud: nearly as long as the longest recording.
MAX_TYPED_CHARACTERS = 4000
# Gemma's audio tower was trained on at most 30 s (google/gemma-4-E4B-it model card); ten times that
# is 7,500 embeddings, which fit into `MAX_PROMPT_TOKENS`.
MAX_RECORDING_S = 300.0
# One recording of maximum length with a little text, or an hour of short questions and answers.
MAX_PROMPT_TOKENS = 8192


def typed_question(text: str) -> str:
    """A typed question as Gemma receives it, with normalised spelling (`normalize_for_training`).

    Raises:
        InputError: it is empty, too long, not Unicode, or holds marks of the chat template, with
            which a question could pose as another speaker's turn.
    """
    if len(text) > MAX_TYPED_CHARACTERS:
        raise InputError(
            f"the question has {len(text):,} characters, at most {MAX_TYPED_CHARACTERS:,} can be "
            "asked at once: shorten it"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("the question is not text in UTF-8: type it again") from None
    question = normalize_for_training(text)
    if not question:
        raise InputError("nothing was asked")
    refuse_template_marks("user", question)
    return question


def refuse_long_recording(path: Path) -> None:
    """Raise InputError if a recording is too long by its header, AudioDefect if it has none."""
    duration_s = audio_duration_s(path)
    if duration_s > MAX_RECORDING_S:
        raise InputError(
            f"{path}: lasts {duration_s:,.0f} s, at most {MAX_RECORDING_S:.0f} s can be asked at "
            "once: cut it, or ask about it in stage3_finetune.chat or voice_chat.chat"
        )


def most_prompt_tokens(model: PreTrainedModel, max_new_tokens: int) -> int:
    """Longest prompt, in tokens, that leaves the model room for `max_new_tokens` of answer."""
    positions: int = model.config.text_config.max_position_embeddings
    return min(MAX_PROMPT_TOKENS, positions - max_new_tokens)


def refuse_long_results(
    prompt: EncodedDialogue, model: PreTrainedModel, max_new_tokens: int
) -> None:
    """Raise InputError if a prompt is too long with what functions returned."""
    most = most_prompt_tokens(model, max_new_tokens)
    if len(prompt.input_ids) > most:
        raise InputError(
            f"with what functions returned, the prompt has {len(prompt.input_ids):,} tokens, "
            f"Gemma takes at most {most:,}"
        )


def forget_all_but(turns: list[Turn], num_questions: int) -> None:
    """Leave the newest questions of a conversation, with their answers, in place."""
    starts = [i for i, turn in enumerate(turns) if turn.role == "user"]
    starts.append(len(turns))
    del turns[: starts[max(0, len(starts) - 1 - num_questions)]]


def num_turns_to_forget(
    turns: Sequence[Turn],
    question: Turn,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    tools: Sequence[ToolSchema] = (),
) -> int:
    """How many of the oldest turns must be left out for a question to fit into the prompt, each
    question with its whole answer.

    Args:
        max_tokens: longest prompt.
        tools: JSON schemas of the functions that may be called.

    Raises:
        InputError: the question alone is too long.
    """
    questions = [i for i, turn in enumerate(turns) if turn.role == "user"]
    for num_forgotten in (0, *questions[1:], len(turns)) if turns else (0,):
        prompt = encode_prompt([*turns[num_forgotten:], question], tokenizer, tools)
        if len(prompt.input_ids) <= max_tokens:
            return num_forgotten
    raise InputError(
        f"the question takes {len(prompt.input_ids):,} tokens, Gemma takes at most "
        f"{max_tokens:,} at once: ask a shorter one"
    )
