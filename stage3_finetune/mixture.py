"""The task mixture of stage 3: which rows Gemma is trained on, drawn from spoken dialogues.

A row is a dialogue as a task sees it ("answer", "transcribe", "typed"), or several dialogues one
after another.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data_manifests.language import language
from stage3_finetune.dialogue import Dialogue, Target, Turn, written_parts

Task = Literal["answer", "transcribe", "typed"]
Row = list[tuple[int, Task]]  # positions of dialogues, and how each is seen


@dataclass(frozen=True)
class TaskMixture:
    """Number of rows of each other task per answering row.

    Attributes:
        transcribe: speech -> its transcript: recordings, if there are any, or else spoken turns.
        typed: the same dialogue with its turns typed, so that typed chat is not unlearned.
        joined: several dialogues, one after another, so that later questions are answered as well
            as first ones. Some are typed, in the same proportion as rows.
        max_joined: dialogues of a joined row: 2 to this many, each number as often.
    """

    transcribe: float
    typed: float
    joined: float
    max_joined: int


def draw_rows(
    dialogues: Sequence[Dialogue], mixture: TaskMixture, seed: int, *, num_recordings: int = 0
) -> list[Row]:
    """The rows of a mixture: each dialogue once to be answered, the others at random.

    Args:
        dialogues: their positions are the rows'.
        mixture: how many of each there are.
        seed: draws them.
        num_recordings: of the recordings to write down, whose positions follow the dialogues'.
    """
    number = len(dialogues)
    rows: list[Row] = [[(i, "answer")] for i in range(number)]
    drawn = random.Random(seed)
    to_write = range(number, number + num_recordings) if num_recordings else range(number)
    others: list[tuple[Task, float, range]] = [
        ("transcribe", mixture.transcribe, to_write), ("typed", mixture.typed, range(number)),
    ]  # fmt: skip
    for task, share, positions in others:
        rows += [[(drawn.choice(positions), task)] for _ in range(round(share * number))]
    return rows + _draw_joined(dialogues, mixture, drawn)


def _draw_joined(
    dialogues: Sequence[Dialogue], mixture: TaskMixture, drawn: random.Random
) -> list[Row]:
    """Rows of several dialogues; those of a row have the same system turn and tools."""
    alike: dict[str, list[int]] = {}
    for i, dialogue in enumerate(dialogues):
        alike.setdefault(_system_of(dialogue), []).append(i)
    typed_share = mixture.typed / (1 + mixture.typed)
    rows: list[Row] = []
    for _ in range(round(mixture.joined * len(dialogues))):
        group = alike[_system_of(drawn.choice(dialogues))]
        number = drawn.randint(2, mixture.max_joined)
        positions = drawn.sample(group, min(number, len(group)))
        rows.append([(i, "typed" if drawn.random() < typed_share else "answer") for i in positions])
    return rows


def _system_of(dialogue: Dialogue) -> str:
    said = next((turn.content for turn in dialogue.turns if turn.role == "system"), "")
    return f"{said}{dialogue.tools}" if dialogue.tools else said


def as_task(dialogue: Dialogue, task: Task, target: Target) -> Dialogue:
    """The dialogue as one task of the mixture sees it."""
    if task == "typed":
        return replace(dialogue, turns=tuple(replace(t, spoken=False) for t in dialogue.turns))
    if task == "transcribe":
        heard = [turn for turn in dialogue.turns if turn.spoken]
        if not heard:
            return dialogue
        question = replace(heard[0], prompt=language().write)
        return replace(dialogue, turns=(question, Turn("assistant", question.content)), tools=())
    return with_chain_target(dialogue) if target == "chain" else dialogue


def with_chain_target(dialogue: Dialogue) -> Dialogue:
    """Put the transcript of each spoken question before its answer: "question line, line break,
    answer"; before a call, it is a turn of its own."""
    turns: list[Turn] = []
    for i, turn in enumerate(dialogue.turns):
        question = dialogue.turns[i - 1] if i else turn
        if not (question.spoken and turn.role == "assistant"):
            turns.append(turn)
        elif turn.calls:
            turns += [Turn("assistant", question.content), turn]
        else:
            turns.append(replace(turn, content=f"{question.content}\n{turn.content}"))
    return replace(dialogue, turns=tuple(turns))


def up_to_each_answer(dialogue: Dialogue) -> list[Dialogue]:
    """A dialogue -> itself, and each of its beginnings that ends with an answer or a call."""
    ends = [last for _, last in written_parts(dialogue.turns)]
    if len(ends) < 2:
        return [dialogue]
    return [
        replace(dialogue, id=f"{dialogue.id}#{number}", turns=dialogue.turns[: end + 1])
        for number, end in enumerate(ends)
    ]


def join_dialogues(dialogues: Sequence[Dialogue]) -> Dialogue:
    """Dialogues one after another, as one; only the first keeps its system turn."""
    first, *others = dialogues
    later = (turn for other in others for turn in other.turns if turn.role != "system")
    return replace(
        first, id="+".join(dialogue.id for dialogue in dialogues), turns=(*first.turns, *later)
    )
