"""Dialogues: on disk, and as the token ids that Gemma is trained on and prompted with.

    {"id": "sum-1", "messages": [
        {"role": "user", "content": "Baako ne baako yɛ sɛn?", "spoken": true},
        {"role": "assistant", "content": "Baako ne baako yɛ mmienu."}]}

Optional keys are `category`, `corpus` and `license`, and in a message `english`: what it says in
English, for readers of reports; and `tools` and `tool_calls` (`called_functions.py`).
`dialogue_rows.py` reads such rows.

Gemma receives a spoken turn as audio, not text: it is replaced by `<|audio|>` slots, one per
embedding. `content` is then its transcript, which the model is trained to write before its answer
(the "chain" target), so that its skill with typed questions is reused instead of relearned.
"""

# S text positions, T frames (25 per second), D embedding width

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from data_manifests.manifest import Utterance
from gemma4.chat_template import RENDERS_OTHERWISE, render_answer, render_chat, text_ids
from gemma4.function_calls import RESPONSE, FunctionCall, as_message, call_token_id
from stage3_finetune.called_functions import ToolSchema, without_marks_in
from stage3_finetune.template_marks import refuse_template_marks, without_template_marks

Target = Literal["chain", "direct"]
# Label of positions without loss (torch's cross entropy).
NO_LABEL = -100


@dataclass(frozen=True)
class Turn:
    """One turn of a dialogue.

    Attributes:
        role: "system", "user" or "assistant".
        content: its text; for a spoken turn, its transcript.
        spoken: whether this is a user turn that Gemma receives as audio, not text.
        codes_TK: semantic codes of a spoken turn, int64 `[T, K]`.
        recording: of a spoken turn, where its frames are made of that.
        frames_TD: frames of a spoken turn, float32 `[T, D]`: from codes or a recording.
        prompt: text shown beside the speech, e.g. to ask for a transcript.
        english: what it says in English, which no model is shown; "" if the file does not say.
        calls: functions that the assistant calls in this turn, which then has no text.
        results: what they returned, in order; none until they are called.
    """

    role: str
    content: str
    spoken: bool = False
    codes_TK: Tensor | None = None
    recording: Utterance | None = None
    frames_TD: Tensor | None = None
    prompt: str = ""
    english: str = ""
    calls: tuple[FunctionCall, ...] = ()
    results: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialogue:
    """Turns in order.

    Attributes:
        id: unique in its file.
        turns: an optional system turn, then user and assistant turns alternately. Before an answer,
            the assistant may have turns that call functions, each with text before it or without.
        category: its topic, by which results are grouped; "" if none is given.
        corpus, license: where it is from, and its licence; "" if none is given.
        tools: JSON schemas of the functions that the assistant may call.
    """

    id: str
    turns: tuple[Turn, ...]
    category: str = ""
    corpus: str = ""
    license: str = ""
    tools: tuple[ToolSchema, ...] = ()


@dataclass(frozen=True)
class EncodedDialogue:
    """A dialogue as Gemma takes it.

    Attributes:
        input_ids: S token ids, `<|audio|>` repeated once per embedding.
        labels: the same at positions the model learns to write, `NO_LABEL` elsewhere.
        frames: embeddings `[T, D]` of the spoken turns, in order.
    """

    input_ids: list[int]
    labels: list[int]
    frames: tuple[Tensor, ...]

    def followed_by(self, ids: Sequence[int]) -> "EncodedDialogue":
        """The dialogue with further tokens appended, all without labels."""
        return replace(
            self, input_ids=[*self.input_ids, *ids], labels=[*self.labels, *[NO_LABEL] * len(ids)]
        )


def split_chain(text: str) -> tuple[str, str]:
    """Output of a model with the chain target -> (transcript, answer); without a line break, all of
    it is the answer."""
    transcript, line_break, answer = text.strip().partition("\n")
    return (transcript.strip(), answer.strip()) if line_break else ("", transcript.strip())


def encode_prompt(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerBase,
    tools: Sequence[ToolSchema] = (),
) -> EncodedDialogue:
    """Turns so far -> token ids that end where the assistant's answer begins, or goes on after the
    results of functions.

    Args:
        tools: JSON schemas of the functions that the assistant may call.

    Raises:
        InputError: a spoken turn has no embeddings, or a user's text holds a mark of the chat
            template. In the model's text a mark is tolerated: the conversation must go on.
    """
    for turn in turns:
        if turn.role != "assistant":
            refuse_template_marks(turn.role, turn.prompt if turn.spoken else turn.content)
    turns = [_without_marks(turn) if turn.role == "assistant" else turn for turn in turns]
    ids = _rendered_ids(turns, tokenizer, tools, asks=True)
    return EncodedDialogue(ids, [NO_LABEL] * len(ids), _frames(turns))


def encode_dialogue(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase) -> EncodedDialogue:
    """A whole dialogue -> ids and labels; what the assistant writes is labelled: each answer, with
    the mark that ends its turn, and each call, with the mark that hands over to the function. What
    a function returned is not.

    Where the template asks for an answer in another way than it shows it to later turns
    (`asks_otherwise`), only the last answer is labelled: it alone follows its own prompt.

    Raises:
        InputError: there is no assistant turn, a spoken turn has no embeddings, or a turn holds a
            mark of the chat template.
    """
    try:
        return _encode_written(dialogue.turns, dialogue.tools, tokenizer)
    except InputError as error:
        raise InputError(f"dialogue {dialogue.id!r}: {error}") from None


def _encode_written(
    turns: Sequence[Turn], tools: Sequence[ToolSchema], tokenizer: PreTrainedTokenizerBase
) -> EncodedDialogue:
    for turn in turns:
        refuse_template_marks(turn.role, turn.prompt if turn.spoken else turn.content)
    ids: list[int] = []
    labels: list[int] = []
    is_asked_otherwise = False
    for begin, last in written_parts(turns):
        prompt = encode_prompt(turns[:begin], tokenizer, tools).input_ids
        written = [*turns[:last], replace(turns[last], results=())]
        rendered = render_answer(
            as_messages(turns[:begin]), as_messages(written), tokenizer, tools=tools
        )
        text = rendered.prompt + rendered.rest
        upto = _expand_audio(text_ids(tokenizer, text), written, tokenizer)
        if is_asked_otherwise or rendered.is_asked_otherwise:
            ids, labels = [], []  # what was before is no longer shown as it was asked for
        is_asked_otherwise = rendered.is_asked_otherwise
        if upto[: len(prompt)] != prompt or prompt[: len(ids)] != ids:
            raise InputError(RENDERS_OTHERWISE)
        end_id = response_id(tokenizer) if turns[last].calls else turn_end_id(tokenizer)
        end = len(prompt) + upto[len(prompt) :].index(end_id) + 1
        labels += [NO_LABEL] * (len(prompt) - len(labels))
        labels += upto[len(prompt) : end] + [NO_LABEL] * (len(upto) - end)
        ids = upto
    if not ids:
        raise InputError("it has no assistant turn")
    return EncodedDialogue(ids, labels, _frames(turns))


def has_text_before_calls(dialogue: Dialogue) -> bool:
    """Whether the assistant says something before it calls a function."""
    return any(begin != last for begin, last in written_parts(dialogue.turns))


def written_parts(turns: Sequence[Turn]) -> Iterator[tuple[int, int]]:
    """What the assistant writes at a time: the first and the last of its turns, which is an answer,
    or a call that may have text before it."""
    begin = None
    for i, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        begin = i if begin is None else begin
        if turn.calls or i + 1 == len(turns) or not turns[i + 1].calls:
            yield begin, i
            begin = None


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of Gemma's `<turn|>`, which ends every turn."""
    token_id = tokenizer.convert_tokens_to_ids("<turn|>")
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise InputError("the tokenizer has no <turn|>: not a Gemma 4 tokenizer")
    return int(token_id)


def response_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of Gemma's `<|tool_response>`, with which it hands over to a function."""
    token_id = call_token_id(tokenizer, RESPONSE)
    if token_id is None:
        raise InputError(f"the tokenizer has no {RESPONSE}: Gemma cannot call functions with it")
    return token_id


def render_example(tokenizer: PreTrainedTokenizerBase) -> str:
    """An example dialogue with every kind of turn, as the chat template renders it: stored with a
    training run, so that a different template is noticed."""
    turns = [
        Turn("system", "S"), Turn("user", "A", spoken=True), Turn("assistant", "B"),
        Turn("user", "C"),
    ]  # fmt: skip
    return render_chat(as_messages(turns), tokenizer, asks=True)


def as_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns in the form that chat templates take."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        if turn.calls:
            ids = [f"call_{number}_{i}" for i in range(len(turn.calls))]
            messages.append(as_message(turn.calls, ids))
            if turn.results:  # none until the functions were called
                messages += [
                    {"role": "tool", "tool_call_id": id_, "name": call.name, "content": result}
                    for call, id_, result in zip(turn.calls, ids, turn.results, strict=True)
                ]
            continue
        content: str | list[dict[str, str]] = turn.content
        if turn.spoken:
            content = [{"type": "audio"}, {"type": "text", "text": turn.prompt}]
        messages.append({"role": turn.role, "content": content})
    return messages


def _without_marks(turn: Turn) -> Turn:
    return replace(
        turn,
        content=without_template_marks(turn.content),
        calls=tuple(
            FunctionCall(call.name, without_marks_in(call.arguments)) for call in turn.calls
        ),
        results=tuple(map(without_template_marks, turn.results)),
    )


def _rendered_ids(
    turns: Sequence[Turn],
    tokenizer: PreTrainedTokenizerBase,
    tools: Sequence[ToolSchema],
    *,
    asks: bool,
) -> list[int]:
    text = render_chat(as_messages(turns), tokenizer, asks=asks, tools=tools)
    return _expand_audio(text_ids(tokenizer, text), turns, tokenizer)


def _expand_audio(
    ids: list[int], turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Each `<|audio|>` -> `<|audio>`, one `<|audio|>` per embedding, `<audio|>` (as
    Gemma4Processor)."""
    begin, slot, end = (
        tokenizer.convert_tokens_to_ids(token) for token in ("<|audio>", "<|audio|>", "<audio|>")
    )
    frames = iter(_frames(turns))
    expanded: list[int] = []
    for token_id in ids:
        expanded += [begin, *[slot] * len(next(frames)), end] if token_id == slot else [token_id]
    return expanded


def _frames(turns: Sequence[Turn]) -> tuple[Tensor, ...]:
    frames = []
    for turn in turns:
        if turn.spoken:
            if turn.frames_TD is None:
                raise InputError(f"a spoken turn has no speech yet: {turn.content[:40]!r}")
            frames.append(turn.frames_TD)
    return tuple(frames)
