"""Dialogues: on disk, and as the token ids that Gemma is trained on and prompted with.

    {"id": "sum-1", "messages": [
        {"role": "user", "content": "Baako ne baako yɛ sɛn?", "spoken": true},
        {"role": "assistant", "content": "Baako ne baako yɛ mmienu."}]}

Optional keys are `category`, `corpus` and `license`, and in a message `english`: what it says in
English, for readers of reports.

Gemma receives a spoken turn as audio, not text: it is replaced by `<|audio|>` slots, one per
embedding. `content` is then its transcript, which the model is trained to write before its answer
(the "chain" target), so that its skill with typed questions is reused instead of relearned.
"""

# S text positions, T frames (25 per second), D embedding width

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from commands.json_files import read_lines
from commands.schema import parse_json, shorten
from gemma4.chat_template import render_chat, text_ids
from stage3_finetune.template_marks import refuse_template_marks, without_template_marks

Target = Literal["chain", "direct"]
ROLES = ("system", "user", "assistant")
# Label of positions without loss (torch's cross entropy).
NO_LABEL = -100
MAX_NAME_CHARACTERS = 200  # of a corpus or a licence, as in manifests


@dataclass(frozen=True)
class Turn:
    """One turn of a dialogue.

    Attributes:
        role: "system", "user" or "assistant".
        content: its text; for a spoken turn, its transcript.
        spoken: whether this is a user turn that Gemma receives as audio, not text.
        codes_TK: semantic codes of a spoken turn, int64 `[T, K]`.
        frames_TD: embeddings of a spoken turn, float32 `[T, D]`: from codes or a real recording.
        prompt: text shown beside the speech, e.g. to ask for a transcript.
        english: what it says in English, which no model is shown; "" if the file does not say.
    """

    role: str
    content: str
    spoken: bool = False
    codes_TK: Tensor | None = None
    frames_TD: Tensor | None = None
    prompt: str = ""
    english: str = ""


@dataclass(frozen=True)
class Dialogue:
    """Turns in order.

    Attributes:
        id: unique in its file.
        turns: an optional system turn, then user and assistant turns alternately.
        category: its topic, by which results are grouped; "" if none is given.
        corpus, license: where it is from, and its licence; "" if none is given.
    """

    id: str
    turns: tuple[Turn, ...]
    category: str = ""
    corpus: str = ""
    license: str = ""


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


def read_dialogues(path: Path, *, flag: str = "--dialogues") -> Iterator[Dialogue]:
    """Stream a `messages` JSONL file.

    Raises:
        InputError: the file is missing or empty, a row is not a dialogue, or an id is used twice
            (codes are matched to dialogues by id). File and line are named.
    """
    seen: dict[str, str] = {}
    for where, line in read_lines(path, flag=flag):
        try:
            dialogue = parse_dialogue(
                parse_json(line, where=where), default_id=where.rpartition(":")[2]
            )
        except InputError as error:
            said = str(error)
            raise InputError(said if said.startswith(where) else f"{where}: {said}") from None
        if dialogue.id in seen:
            raise InputError(f"{where}: id {dialogue.id!r} is that of {seen[dialogue.id]} too")
        seen[dialogue.id] = where
        yield dialogue
    if not seen:
        raise InputError(f"{flag} {path}: no dialogues in it")


def parse_dialogue(row: Any, default_id: str) -> Dialogue:
    """A JSON row -> `Dialogue`; raises InputError that says what is wrong with the row."""
    if not isinstance(row, dict):
        raise InputError(f"expected a JSON object, got {type(row).__name__}")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("has no 'messages'")
    turns = [_parse_turn(message) for message in messages]
    conversation = [turn for turn in turns if turn.role != "system"]
    if not conversation:
        raise InputError("has no user turn")
    if any(turn.role != ("user", "assistant")[i % 2] for i, turn in enumerate(conversation)):
        raise InputError("turns must alternate, user first")
    if any(turn.spoken and turn.role != "user" for turn in turns):
        raise InputError("only user turns can be spoken")
    named = {key: row.get(key, "") for key in ("category", "corpus", "license")}
    for key, value in named.items():
        if not isinstance(value, str):
            raise InputError(f"{key!r} must be a string, got {shorten(value)}")
        if key != "category" and len(value) > MAX_NAME_CHARACTERS:
            raise InputError(f"{key!r} has {len(value)} characters, at most {MAX_NAME_CHARACTERS}")
    id_ = row.get("id", default_id)
    if isinstance(id_, bool) or not isinstance(id_, str | int) or not str(id_).strip():
        raise InputError(f"'id' must be a string or an integer, got {shorten(id_)}")
    return Dialogue(str(id_), tuple(turns), **named)


def _parse_turn(message: Any) -> Turn:
    if not isinstance(message, dict):
        raise InputError(f"a message must be a JSON object, got {shorten(message)}")
    role, content, spoken = message.get("role"), message.get("content"), message.get("spoken")
    if not isinstance(role, str) or role not in ROLES:
        raise InputError(f"'role' must be one of {', '.join(ROLES)}, got {shorten(role)}")
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"a {role} turn without text")
    if spoken is not None and not isinstance(spoken, bool):
        raise InputError(f"'spoken' must be true or false, got {shorten(spoken)}")
    english = message.get("english", "")
    if not isinstance(english, str):
        raise InputError(f"'english' must be a string, got {shorten(english)}")
    refuse_template_marks(role, content)
    return Turn(role, content.strip(), spoken=bool(spoken), english=english.strip())


def with_chain_target(dialogue: Dialogue) -> Dialogue:
    """Put the transcript of each spoken question before its answer: "question line, line break,
    answer"."""
    turns = list(dialogue.turns)
    for i, (question, answer) in enumerate(pairwise(turns)):
        if question.spoken and answer.role == "assistant":
            turns[i + 1] = replace(answer, content=f"{question.content}\n{answer.content}")
    return replace(dialogue, turns=tuple(turns))


def split_chain(text: str) -> tuple[str, str]:
    """Output of a model with the chain target -> (transcript, answer); without a line break, all of
    it is the answer."""
    transcript, line_break, answer = text.strip().partition("\n")
    return (transcript.strip(), answer.strip()) if line_break else ("", transcript.strip())


def encode_prompt(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> EncodedDialogue:
    """Turns so far -> token ids that end where the assistant's answer begins.

    Raises:
        InputError: a spoken turn has no embeddings, or a user's text holds a mark of the chat
            template. In the model's text a mark is tolerated: the conversation must go on.
    """
    for turn in turns:
        if turn.role != "assistant":
            refuse_template_marks(turn.role, turn.prompt if turn.spoken else turn.content)
    turns = [
        replace(turn, content=without_template_marks(turn.content))
        if turn.role == "assistant"
        else turn
        for turn in turns
    ]
    text = render_chat(as_messages(turns), tokenizer, asks=True)
    ids = _expand_audio(text_ids(tokenizer, text), turns, tokenizer)
    return EncodedDialogue(ids, [NO_LABEL] * len(ids), _frames(turns))


def encode_dialogue(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase) -> EncodedDialogue:
    """A whole dialogue -> ids and labels; each answer is labelled, with the mark that ends its
    turn.

    Raises:
        InputError: there is no assistant turn, a spoken turn has no embeddings, or a turn holds a
            mark of the chat template.
    """
    turns = dialogue.turns
    for turn in turns:
        try:
            refuse_template_marks(turn.role, turn.prompt if turn.spoken else turn.content)
        except InputError as error:
            raise InputError(f"dialogue {dialogue.id!r}: {error}") from None
    turn_end = turn_end_id(tokenizer)
    ids: list[int] = []
    labels: list[int] = []
    for i, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        prompt = encode_prompt(turns[:i], tokenizer).input_ids
        text = render_chat(as_messages(turns[: i + 1]), tokenizer, asks=False)
        upto = _expand_audio(text_ids(tokenizer, text), turns[: i + 1], tokenizer)
        if upto[: len(prompt)] != prompt or prompt[: len(ids)] != ids:
            raise InputError(
                f"dialogue {dialogue.id!r}: the chat template renders earlier turns differently "
                "when later turns follow, so that the answers cannot be located for training"
            )
        end = len(prompt) + upto[len(prompt) :].index(turn_end) + 1
        labels += [NO_LABEL] * (len(prompt) - len(labels))
        labels += upto[len(prompt) : end] + [NO_LABEL] * (len(upto) - end)
        ids = upto
    if not ids:
        raise InputError(f"dialogue {dialogue.id!r} has no assistant turn")
    return EncodedDialogue(ids, labels, _frames(turns))


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of Gemma's `<turn|>`, which ends every turn."""
    token_id = tokenizer.convert_tokens_to_ids("<turn|>")
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise InputError("the tokenizer has no <turn|>: not a Gemma 4 tokenizer")
    return int(token_id)


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
    for turn in turns:
        content: str | list[dict[str, str]] = turn.content
        if turn.spoken:
            content = [{"type": "audio"}, {"type": "text", "text": turn.prompt}]
        messages.append({"role": turn.role, "content": content})
    return messages


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
