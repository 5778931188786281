"""Answers that were spoken to be judged: what of them is shown and can be listened to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.json_files import read_json_lines


@dataclass(frozen=True)
class SpokenSample:
    """A spoken answer.

    Attributes:
        question: what was asked; "" where the answer is a text that was read aloud.
        english: what the question says in English, and the reference answer; "" where nobody has
            written it.
        answer: what was to be said.
        heard: the judge's transcript; "" if nothing judged it.
        wav: its recording.
        ceiling: a recording of the answer as the codec gives it back; None if nobody recorded it.
    """

    question: str
    answer: str
    heard: str
    wav: Path
    ceiling: Path | None = None
    english: str = ""


def read_spoken_samples(head_test: Path, finetune_test: Path, number: int) -> list[SpokenSample]:
    """Up to so many spoken answers, evenly from all of them; none where there is no such folder.

    Args:
        head_test: folder of `speech_head.evaluate`.
        finetune_test: folder of `stage3_finetune.evaluate`, which knows the questions.
        number: of samples.
    """
    asked = {row["id"]: row for row in read_json_lines(finetune_test / "answers.jsonl")}
    spoken = [row for row in read_json_lines(head_test / "utterances.jsonl") if row.get("audio")]
    number = min(number, len(spoken))
    return [
        SpokenSample(
            asked.get(row["id"], {}).get("question", ""), row["text"], row.get("heard") or "",
            head_test / row["audio"],
            head_test / row["audio_through_mimi"] if row.get("audio_through_mimi") else None,
            _english_of(asked.get(row["id"], {})),
        )
        for row in (spoken[i * len(spoken) // number] for i in range(number))
    ]  # fmt: skip


def _english_of(row: Mapping[str, Any]) -> str:
    """The English of a question and of its reference answer, as far as it was written."""
    texts = (row.get("english_question", ""), row.get("english_reference", ""))
    return " - ".join(text for text in texts if text)
