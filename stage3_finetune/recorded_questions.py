"""Recorded questions and their reference answers: asked of a model, typed and spoken."""

# B utterances, T frames (25 per second), D embedding width

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from commands.errors import InputError
from data_manifests.manifest import Utterance, read_manifest
from data_manifests.normalization import normalize_for_scoring
from gemma4.speech_encoder import SpeechEncoder
from stage1_rvq.corpus_encoder import encode_utterances
from stage3_finetune.dialogue import Turn, split_chain
from stage3_finetune.dialogue_rows import read_dialogues


@dataclass(frozen=True)
class RecordedQuestion:
    """A held-out question, its reference answer, its category, the embeddings `[T, D]` of one
    recording, and what both say in English, "" where nobody has written it."""

    id: str
    question: str
    answer: str
    category: str
    frames_TD: Tensor
    english_question: str = ""
    english_answer: str = ""


@dataclass(frozen=True)
class Matches:
    """(dialogue id, question, answer, category, recording) for every recording of a question; what
    question and answer say in English, by dialogue id, "" where the file does not say."""

    rows: list[tuple[str, str, str, str, Utterance]]
    num_without_recording: int
    english: Mapping[str, tuple[str, str]]


def match_recordings(dialogues: Path, recordings: Path) -> Matches:
    """Find the recordings of every dialogue's first question by their normalised texts.

    Raises:
        InputError: a dialogue has no answer, or none of the questions has a recording.
    """
    by_text: dict[str, list[Utterance]] = {}
    for utterance in read_manifest(recordings):
        by_text.setdefault(normalize_for_scoring(utterance.text), []).append(utterance)
    rows, num_without = [], 0
    english: dict[str, tuple[str, str]] = {}
    for dialogue in read_dialogues(dialogues):
        first = {turn.role: turn for turn in reversed(dialogue.turns)}
        if "assistant" not in first:
            raise InputError(f"--dialogues {dialogues}: dialogue {dialogue.id!r} has no answer")
        question, answer = first["user"].content, first["assistant"].content
        english[dialogue.id] = first["user"].english, first["assistant"].english
        found = by_text.get(normalize_for_scoring(question), [])
        num_without += not found
        rows += [
            (dialogue.id, question, answer, dialogue.category, utterance) for utterance in found
        ]
    if not rows:
        raise InputError(f"--recordings {recordings}: no recording of any question in {dialogues}")
    return Matches(rows, num_without, english)


def embed_questions(
    matches: Matches, encoder: SpeechEncoder, batch_size: int
) -> list[RecordedQuestion]:
    """Encode the recordings; raises InputError if one cannot be encoded."""
    utterances = [utterance for *_, utterance in matches.rows]
    encoded = encode_utterances(utterances, encoder, batch_size=batch_size, num_workers=2)
    questions = []
    for row, (_, frames) in zip(matches.rows, encoded, strict=True):
        if isinstance(frames, InputError):
            raise frames
        id_, question, answer, category, _ = row
        english = matches.english[id_]
        questions.append(RecordedQuestion(id_, question, answer, category, frames, *english))
    return questions


def as_typed(questions: Sequence[RecordedQuestion]) -> list[list[Turn]]:
    """Conversations in which the questions are typed."""
    return [[Turn("user", q.question)] for q in questions]


def as_spoken(questions: Sequence[RecordedQuestion]) -> list[list[Turn]]:
    """Conversations in which the recordings of the questions are heard."""
    return [[Turn("user", q.question, spoken=True, frames_TD=q.frames_TD)] for q in questions]


def as_later(
    questions: Sequence[RecordedQuestion], written: Sequence[str], *, num_before: int
) -> list[list[Turn]]:
    """Conversations in which each recording is heard after others: questions that lie evenly far
    from each other in the list, with what the model wrote when it heard them.

    Args:
        written: what the model wrote to each of the questions, asked alone.
        num_before: earlier questions of a conversation; fewer where there are no others.
    """
    asked = as_spoken(questions)
    number = len(questions)
    num_before = min(num_before, number - 1)
    conversations = []
    for i in range(number):
        earlier = [(i + k * number // (num_before + 1)) % number for k in range(1, num_before + 1)]
        before = (
            turn for k in earlier for turn in (*asked[k], Turn("assistant", written[k].strip()))
        )
        conversations.append([*before, *asked[i]])
    return conversations


@dataclass(frozen=True)
class SpokenReplies:
    """Answers to spoken questions, and what the model heard: its transcripts of the questions; None
    if it was not trained to write any."""

    answers: list[str]
    transcripts: list[str] | None


def read_spoken_replies(written: Sequence[str], *, writes_transcripts: bool) -> SpokenReplies:
    """What a model wrote when questions were spoken -> answers and transcripts."""
    if not writes_transcripts:
        return SpokenReplies(list(written), None)
    chains = [split_chain(text) for text in written]
    return SpokenReplies([answer for _, answer in chains], [transcript for transcript, _ in chains])
