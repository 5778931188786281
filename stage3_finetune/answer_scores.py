"""How well answers match the reference answers."""

from collections.abc import Mapping, Sequence

from sacrebleu.metrics.chrf import CHRF

from data_manifests.twi_text import normalize_for_scoring
from stage3_finetune.recorded_questions import RecordedQuestion


def exact_match(references: Sequence[str], answers: Sequence[str]) -> float:
    """Share of answers that equal their reference after Twi scoring normalisation."""
    pairs = zip(references, answers, strict=True)
    return sum(normalize_for_scoring(r) == normalize_for_scoring(a) for r, a in pairs) / len(
        references
    )


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
