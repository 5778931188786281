"""Test data of a speech head: texts it was not trained on, with recordings if there are any.

The texts are either given (a manifest's transcripts, or the lines of a file), or Gemma's own
answers to held-out questions. The latter test the head as it is used: it speaks from the states
that Gemma had while it wrote the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from commands.errors import InputError
from data_manifests.manifest import Utterance, read_manifest
from data_manifests.normalization import is_speakable, normalize_for_scoring, normalize_for_training
from data_manifests.text_lines import read_lines
from speech_head.answer import MAX_ANSWER_TOKENS, WrittenAnswer
from speech_head.answer_parts import transcript_length
from speech_head.talker import Talker, tokenize_within_limit
from speech_head.voices import Voice
from stage1_rvq.corpus_encoder import encode_utterances
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import Dialogue, EncodedDialogue, Turn, encode_prompt
from stage3_finetune.dialogue_rows import read_dialogues
from stage3_finetune.generate import generate_tokens, stop_ids


@dataclass(frozen=True)
class HeldOut:
    """An answer to speak, a recording of the same words if there is one, and the voice to speak it
    in; None for that of the talker."""

    id: str
    answer: WrittenAnswer
    recording: Utterance | None
    voice: Voice | None = None


@dataclass(frozen=True)
class HeldOutSet:
    """Answers to speak, and the ids of questions whose answers cannot be spoken because they have
    no letter or did not end."""

    rows: list[HeldOut]
    left_out: list[str]


def given_texts(
    manifest: Path | None, texts: Path | None, talker: Talker, *, limit: int | None
) -> HeldOutSet:
    """The first `limit` texts of a manifest, or of a file with one per line.

    Raises:
        InputError: the file is missing or empty, or a text cannot be spoken (its id or line is
            named).
    """
    rows: list[tuple[str, str, Utterance | None]] = []
    if manifest is not None:
        rows = [(u.id, u.text, u) for u in read_manifest(manifest)]
    elif texts is not None:
        lines = read_lines(texts, flag="--texts")
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
    dialogues: Path,
    questions: Path | None,
    manifest: Path | None,
    talker: Talker,
    *,
    limit: int | None,
    batch_size: int,
) -> HeldOutSet:
    """Gemma's answers to the last question of each dialogue.

    Args:
        dialogues: `messages` JSONL; the answers to the last questions in it are ignored.
        questions: recordings of the questions, which are then spoken; dialogues whose question was
            not recorded are skipped. With None, all questions are typed.
        manifest: recordings; an answer gets one with the same words, if there is one.
        talker: its Gemma answers, by greedy decoding, with its adapter.
        limit: number of dialogues to use, from the first.
        batch_size: questions answered together.

    Raises:
        InputError: there are no dialogues, or none has a (recorded) question.
    """
    asked = {d.id: turns for d in read_dialogues(dialogues) if (turns := _up_to_last_question(d))}
    if not asked:
        raise InputError(f"--dialogues {dialogues}: no question in it")
    if questions is None:
        asked = dict(islice(asked.items(), limit))
    else:
        recorded = _by_words(questions)
        found = [(id_, turns) for id_, turns in asked.items() if _words(turns) in recorded]
        if not found:
            raise InputError(f"--questions {questions}: none is a question of {dialogues}")
        asked = _heard(dict(found[:limit]), recorded, talker, batch_size)
    tokenizer = talker.tokenizer
    prompts = [encode_prompt(turns, tokenizer) for turns in asked.values()]
    written = generate_tokens(
        talker.conversation.model, tokenizer, prompts,
        max_new_tokens=MAX_ANSWER_TOKENS, batch_size=batch_size,
    )  # fmt: skip
    held_out = speakable_answers(
        list(asked), prompts, written, talker.conversation,
        has_transcripts=questions is not None and talker.conversation.writes_transcripts,
        recordings=_by_words(manifest) if manifest else {},
    )  # fmt: skip
    if not held_out.rows:
        raise InputError(f"--dialogues {dialogues}: no answer that can be spoken")
    return held_out


def speakable_answers(
    ids: Sequence[str],
    prompts: Sequence[EncodedDialogue],
    written: Sequence[list[int]],
    conversation: Conversation,
    *,
    has_transcripts: bool,
    recordings: Mapping[str, Utterance],
) -> HeldOutSet:
    """What Gemma wrote, as answers to speak.

    Args:
        ids: one per answer.
        prompts: what Gemma was asked.
        written: tokens of `generate_tokens`.
        conversation: whose model wrote them.
        has_transcripts: whether Gemma writes the question's transcript before the answer.
        recordings: of answers, by their normalised words.
    """
    tokenizer = conversation.tokenizer
    stops = stop_ids(tokenizer, conversation.model)
    rows, left_out = [], []
    for id_, prompt, tokens in zip(ids, prompts, written, strict=True):
        begin = transcript_length(tokens, tokenizer) if has_transcripts else 0
        text = tokenizer.decode(tokens[begin:], skip_special_tokens=True).strip()
        if tokens[-1] not in stops or not is_speakable(text):
            left_out.append(id_)
            continue
        answer = WrittenAnswer(
            text=text, prompt=prompt.followed_by(tokens[:begin]), ids_S=torch.tensor(tokens[begin:])
        )
        rows.append(HeldOut(id_, answer, recordings.get(normalize_for_scoring(text))))
    return HeldOutSet(rows, left_out)


def _up_to_last_question(dialogue: Dialogue) -> list[Turn]:
    """The turns up to the last user turn, all typed; empty if there is no user turn."""
    turns = [replace(turn, spoken=False) for turn in dialogue.turns]
    while turns and turns[-1].role != "user":
        turns.pop()
    return turns


def _by_words(manifest: Path) -> dict[str, Utterance]:
    """One recording of each text, by its normalised words."""
    return {normalize_for_scoring(u.text): u for u in read_manifest(manifest)}


def _words(turns: list[Turn]) -> str:
    """The normalised words of a conversation's last turn."""
    return normalize_for_scoring(turns[-1].content)


def _heard(
    asked: dict[str, list[Turn]],
    recorded: dict[str, Utterance],
    talker: Talker,
    batch_size: int,
) -> dict[str, list[Turn]]:
    """The conversations with their last turn spoken instead of typed."""
    utterances = [recorded[_words(turns)] for turns in asked.values()]
    encoded = encode_utterances(
        utterances, talker.conversation.encoder, batch_size=batch_size, num_workers=2
    )
    heard = {}
    for (id_, turns), (_, frames_TD) in zip(asked.items(), encoded, strict=True):
        if isinstance(frames_TD, InputError):
            raise frames_TD
        heard[id_] = [*turns[:-1], replace(turns[-1], spoken=True, frames_TD=frames_TD)]
    return heard
