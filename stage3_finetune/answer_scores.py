"""How well answers match the ones that were expected."""

from collections.abc import Mapping, Sequence

from sacrebleu.metrics import CHRF

from data_manifests.twi_text import normalize_for_scoring
from stage3_finetune.recorded_questions import RecordedQuestion


def exact_match(references: Sequence[str], answers: Sequence[str]) -> float:
    """Share of answers that equal their reference after Twi scoring normalisation."""
    pairs = zip(references, answers, strict=True)
    return sum(normalize_for_scoring(r) == normalize_for_scoring(a) for r, a in pairs) / len(
        references
    )


def chrf(references: Sequence[str], answers: Sequence[str]) -> float:
    """chrF2 of all answers together (Popović, 2015; sacrebleu's), as a fraction, after Twi scoring
    normalisation: what is right of longer answers that no one words alike."""
    score = CHRF().corpus_score(
        [normalize_for_scoring(answer) for answer in answers],
        [[normalize_for_scoring(reference) for reference in references]],
    )
    return float(score.score) / 100


def measure_by_category(
    questions: Sequence[RecordedQuestion], answers: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float | int]]:
    """Exact match of each system on the questions of each category, and how many those are; empty
    where the dialogues name none."""
    rows: dict[str, dict[str, float | int]] = {}
    for category in sorted({q.category for q in questions} - {""}):
        chosen = [i for i, question in enumerate(questions) if question.category == category]
        references = [questions[i].answer for i in chosen]
        rows[category] = {"num_held_out": len(chosen)} | {
            name: exact_match(references, [texts[i] for i in chosen])
            for name, texts in answers.items()
        }
    return rows
