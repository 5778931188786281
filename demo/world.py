"""The demo's world: Twi questions about sums, with their answers.

Spelling is Asante Twi, numbers as in everyday counting. No Twi speaker has checked it yet.

    English                                   Twi
    How much are two and three?               Mmienu ne mmiɛnsa yɛ sɛn?
    If you add two to three, what is it?      Sɛ wode mmienu ka mmiɛnsa ho a, ɛyɛ sɛn?
    Two and three are five.                   Mmienu ne mmiɛnsa yɛ enum.
"""

from dataclasses import dataclass

NUMBERS = (
    "baako", "mmienu", "mmiɛnsa", "ɛnan", "enum", "nsia", "nson", "nwɔtwe", "nkron", "du",
    "dubaako", "dummienu", "dummiɛnsa", "dunan", "dunum", "dunsia", "dunson", "dunwɔtwe", "dunkron",
    "aduonu",
)  # fmt: skip
PHRASINGS = ("{a} ne {b} yɛ sɛn?", "Sɛ wode {a} ka {b} ho a, ɛyɛ sɛn?")


@dataclass(frozen=True)
class Question:
    """A question and its answer; `fact` is the sum it asks for, `phrasing` the pattern."""

    text: str
    answer: str
    fact: str
    phrasing: int


def all_questions() -> list[Question]:
    """Every sum of two numbers up to ten, in every phrasing."""
    questions = []
    for a in range(1, 11):
        for b in range(1, 11):
            first, second, total = NUMBERS[a - 1], NUMBERS[b - 1], NUMBERS[a + b - 1]
            answer = _capitalise(f"{first} ne {second} yɛ {total}.")
            for phrasing, pattern in enumerate(PHRASINGS):
                text = _capitalise(pattern.format(a=first, b=second))
                questions.append(Question(text, answer, f"{a}+{b}", phrasing))
    return questions


def is_held_out(question: Question) -> bool:
    """A fixed fifth of the (sum, phrasing) pairs; each sum and each phrasing is also seen in
    training."""
    a, b = map(int, question.fact.split("+"))
    return (a + 3 * b + 2 * question.phrasing) % 5 == 0


def _capitalise(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
