"""What a speech head is judged on: texts it was not trained on, with their recordings where there
are any.

Either texts as they are (a manifest's transcripts, or the lines of a file), or the answers that
Gemma itself writes to held-out questions: then the head speaks in the very condition it is for,
from the states Gemma had while it wrote.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data_manifests.config import InputError
from data_manifests.manifest import Utterance, read_manifest
from data_manifests.twi_text import is_speakable, normalize_for_scoring, normalize_for_training
from speech_head.answer import MAX_ANSWER_TOKENS, WrittenAnswer
from speech_head.generate import Talker, tokenize_within_limit
from stage3_finetune.dialogue import Dialogue, Turn, encode_prompt, read_dialogues
from stage3_finetune.generate import generate_tokens, stop_ids


@dataclass(frozen=True)
class HeldOut:
    """An answer to speak, and a recording of the same words where there is one."""

    id: str
    answer: WrittenAnswer
    recording: Utterance | None


@dataclass(frozen=True)
class HeldOutSet:
    """What is spoken, and the ids of questions whose answers cannot be: no letter in them, or no
    end."""

    rows: list[HeldOut]
    left_out: list[str]


def given_texts(
    manifest: Path | None, texts: Path | None, talker: Talker, *, limit: int | None
) -> HeldOutSet:
    """The first `limit` texts of a manifest or of a file, one a line.

    Raises:
        InputError: missing, empty, or a text that cannot be spoken (its id or line is named).
    """
    rows: list[tuple[str, str, Utterance | None]] = []
    if manifest is not None:
        rows = [(u.id, u.text, u) for u in read_manifest(manifest)]
    elif texts is not None:
        try:
            lines = texts.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"--texts {texts}: {error.strerror or error}") from None
        rows = [(f"line_{i:05d}", line, None) for i, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"--texts {texts}: no text in it")
    held_out = []
    for id_, text, recording in rows[:limit]:
        try:
            answer = tokenize_within_limit(normalize_for_training(text), talker.tokenizer)
        except InputError as error:
            raise InputError(f"{id_}: {error}") from None
        held_out.append(HeldOut(id_, answer, recording))
    return HeldOutSet(held_out, [])


def gemma_answers(
    dialogues: Path, manifest: Path | None, talker: Talker, *, limit: int | None, batch_size: int
) -> HeldOutSet:
    """What Gemma answers to the last question of each dialogue, all turns typed.

    Args:
        dialogues: `messages` JSONL; its own last answers are not looked at.
        manifest: recordings; one of the same words, if any, goes with an answer.
        talker: whose Gemma answers, greedily, with its adapter.
        limit: the first so many dialogues.
        batch_size: questions answered together.

    Raises:
        InputError: no dialogues, or none that has a question.
    """
    asked = [d for d in list(read_dialogues(dialogues))[:limit] if _up_to_last_question(d)]
    if not asked:
        raise InputError(f"--dialogues {dialogues}: no question in it")
    tokenizer = talker.tokenizer
    prompts = [encode_prompt(_up_to_last_question(dialogue), tokenizer) for dialogue in asked]
    written = generate_tokens(
        talker.conversation.model, tokenizer, prompts,
        max_new_tokens=MAX_ANSWER_TOKENS, batch_size=batch_size,
    )  # fmt: skip
    recordings = {}
    for utterance in read_manifest(manifest) if manifest else ():
        recordings[normalize_for_scoring(utterance.text)] = utterance
    stops = stop_ids(tokenizer)
    rows, left_out = [], []
    for dialogue, prompt, ids in zip(asked, prompts, written, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        if ids[-1] not in stops or not is_speakable(text):
            left_out.append(dialogue.id)
            continue
        answer = WrittenAnswer(
            text=text, prompt_P=torch.tensor(prompt.input_ids), ids_S=torch.tensor(ids)
        )
        rows.append(HeldOut(dialogue.id, answer, recordings.get(normalize_for_scoring(text))))
    if not rows:
        raise InputError(f"--dialogues {dialogues}: no answer that can be spoken")
    return HeldOutSet(rows, left_out)


def _up_to_last_question(dialogue: Dialogue) -> list[Turn]:
    """The turns up to the last of the user, all typed; none where there is no such turn."""
    turns = [replace(turn, spoken=False) for turn in dialogue.turns]
    while turns and turns[-1].role != "user":
        turns.pop()
    return turns
