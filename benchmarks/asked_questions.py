"""Recorded questions with the answers that are expected, for benchmarks that ask them."""

from dataclasses import dataclass
from pathlib import Path

from data_manifests.manifest import Utterance
from data_manifests.normalization import normalize_for_scoring
from stage3_finetune.recorded_questions import match_recordings


@dataclass(frozen=True)
class AskedQuestion:
    """A recorded question and the answer that is expected."""

    text: str
    answer: str
    recording: Utterance


def choose_questions(dialogues: Path, questions: Path, limit: int) -> list[AskedQuestion]:
    """The first recorded questions; raises InputError as `match_recordings`.

    Args:
        dialogues: the questions with their answers, as text (`messages` JSONL).
        questions: manifest of the recordings.
    """
    matches = match_recordings(dialogues, questions)
    return [
        AskedQuestion(question, answer, recording)
        for _, question, answer, _, recording in matches.rows[:limit]
    ]


def is_same(text: str, other: str) -> bool:
    """Whether two texts are equal as exact match compares them."""
    return normalize_for_scoring(text) == normalize_for_scoring(other)
