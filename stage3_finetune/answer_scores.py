"""How well answers match the reference answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sacrebleu.metrics.chrf import CHRF

from data_manifests.bootstrap import share_interval
from data_manifests.normalization import normalize_for_scoring
from data_manifests.quoted_rates import QuotedRates, quote_rates
from stage3_finetune.recorded_questions import RecordedQuestion

# Every system that may be compared, and what it is, in the order of the table.
SYSTEMS = {
    "typed": "base model, question typed: the ceiling",
    "spoken_before": "base model, question spoken",
    "cascade": "recogniser's transcript typed into the base model",
    "spoken_after": "fine-tuned, question spoken",
    "spoken_second": "the same, after another spoken question and its answer",
    "spoken_fifth": "the same, after four of them",
    "spoken_direct": "fine-tuned without the chain target, question spoken",
    "typed_after": "fine-tuned, question typed: what typed chat kept",
}

# Those that are asked later in a conversation, and the number of questions before.
LATER = {"spoken_second": 1, "spoken_fifth": 4}


@dataclass(frozen=True)
class AnswerScores:
    """Scores of the systems on the same questions; None for a system that was not asked.

    Attributes:
        num_held_out: number of questions.
        num_without_recording: dialogues left out because nobody recorded their question.
        exact_match: share of right answers, by system.
        exact_match_interval: its 95 % bootstrap interval over questions.
        chrf: chrF2 as a fraction, by system.
        by_category: as `measure_by_category`.
        wer_transcript: WER of the fine-tuned model's own transcripts; None if it writes none.
        judge: the recogniser of the cascade; None without one.
        error_rates: on the recordings of the questions, of the fine-tuned model's own transcripts
            ("gemma") and of the cascade's recogniser ("recognizer"); None where there are none.
    """

    num_held_out: int
    num_without_recording: int
    exact_match: dict[str, float | None]
    exact_match_interval: dict[str, tuple[float, float] | None]
    chrf: dict[str, float | None]
    by_category: dict[str, dict[str, float | int]]
    wer_transcript: float | None
    judge: str | None
    error_rates: dict[str, QuotedRates | None]


def score_answers(
    questions: Sequence[RecordedQuestion],
    answers: Mapping[str, Sequence[str]],
    transcripts: Sequence[str] | None,
    *,
    num_without_recording: int,
    judge: str | None = None,
    heard: Sequence[str] | None = None,
) -> AnswerScores:
    """Score the answers of several systems, and the transcripts of the questions.

    Args:
        questions: what was asked.
        answers: by system.
        transcripts: the fine-tuned model's own; None if it writes none.
        num_without_recording: as `AnswerScores`.
        judge, heard: the recogniser of the cascade, and its transcripts.
    """
    references = [q.answer for q in questions]
    asked = [q.question for q in questions]
    own = None if transcripts is None else quote_rates(asked, transcripts)
    return AnswerScores(
        num_held_out=len(questions),
        num_without_recording=num_without_recording,
        exact_match={
            name: exact_match(references, answers[name]) if name in answers else None
            for name in SYSTEMS
        },
        exact_match_interval={
            name: share_interval(right_answers(references, answers[name]))
            if name in answers
            else None
            for name in SYSTEMS
        },
        chrf={
            name: chrf(references, answers[name]) if name in answers else None for name in SYSTEMS
        },
        by_category=measure_by_category(questions, answers),
        wer_transcript=own.wer if own else None,
        judge=judge,
        error_rates={
            "gemma": own,
            "recognizer": None if heard is None else quote_rates(asked, heard),
        },
    )


def exact_match(references: Sequence[str], answers: Sequence[str]) -> float:
    """Share of answers that equal their reference after Twi scoring normalisation."""
    return sum(right_answers(references, answers)) / len(references)


def right_answers(references: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Whether each answer equals its reference after Twi scoring normalisation."""
    pairs = zip(references, answers, strict=True)
    return [normalize_for_scoring(r) == normalize_for_scoring(a) for r, a in pairs]


def chrf(references: Sequence[str], answers: Sequence[str]) -> float:
    """Corpus chrF2 of the answers (Popović, 2015; sacrebleu's), as a fraction, after Twi scoring
    normalisation: it gives partial credit to longer answers, which can be worded in many ways."""
    score = CHRF().corpus_score(
        [normalize_for_scoring(answer) for answer in answers],
        [[normalize_for_scoring(reference) for reference in references]],
    )
    return float(score.score) / 100


def measure_by_category(
    questions: Sequence[RecordedQuestion], answers: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float | int]]:
    """Exact match of each system on the questions of each category, and the number of questions;
    empty if the dialogues name no categories."""
    rows: dict[str, dict[str, float | int]] = {}
    for category in sorted({q.category for q in questions} - {""}):
        chosen = [i for i, question in enumerate(questions) if question.category == category]
        references = [questions[i].answer for i in chosen]
        rows[category] = {"num_held_out": len(chosen)} | {
            name: exact_match(references, [texts[i] for i in chosen])
            for name, texts in answers.items()
        }
    return rows
