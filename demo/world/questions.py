"""Choose which of the demo's questions are asked."""

from data_manifests.manifest import Split
from demo.world.grammar import Question, all_questions


def choose_questions(split: Split, count: int) -> list[Question]:
    """`count` questions of a split, spread evenly over its order and so over all relations; 0 gives
    all."""
    questions = [q for q in all_questions() if q.split == split]
    if not 0 < count < len(questions):
        return questions
    return [questions[i * len(questions) // count] for i in range(count)]
