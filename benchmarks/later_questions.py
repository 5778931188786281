"""Are later questions of a conversation answered as well as the first?

    python -m demo.world.make_corpus --num-questions 1 --num-held-out 100 --out runs/asked
    python -m benchmarks.later_questions --questions runs/asked/test.jsonl \
        --dialogues runs/asked/dialogues_test.jsonl

Recorded questions are asked as files, several in each conversation, in an order that is drawn once:
none has to do with the one before. A row for each number of earlier questions that Gemma is shown
with their answers: the share answered right as the first question, the second, and so on. The
ceiling of every row is its first question's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.asked_questions import AskedQuestion, choose_questions, is_same
from benchmarks.demo_talker import DemoTalkerConfig, ask_sound
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import PositiveInt
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import read_utterance_audio
from stage3_finetune.conversation import Conversation

REMEMBERED = (None, 2, 1, 0)  # None: as many as fit


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(DemoTalkerConfig):
    """Ask several recorded questions in one conversation."""

    questions: Path
    """manifest of recorded held-out questions"""
    dialogues: Path
    """the same questions with their answers, as text (`messages` JSONL)"""
    num_questions: PositiveInt = 100
    """questions asked, in whole conversations"""
    num_turns: PositiveInt = 5
    """questions in a conversation"""


def main(argv: list[str] | None = None) -> None:
    """Print the table, a row as soon as it is known."""
    config = parse_config(BenchmarkConfig, argv)
    conversations = draw_conversations(config)
    talk = config.load().conversation
    places = "".join(f"{f'question {place + 1}':>12}" for place in range(config.num_turns))
    print(f"{len(conversations)} conversations; % answered exactly\n{'remembered':12}{places}")
    for num_remembered in REMEMBERED:
        talk.num_remembered = num_remembered
        right = [ask_all(talk, one) for one in tqdm(conversations, unit=" conversations")]
        name = "all" if num_remembered is None else str(num_remembered)
        print(f"{name:12}" + "".join(f"{100 * share:12.0f}" for share in np.mean(right, axis=0)))


def draw_conversations(config: BenchmarkConfig) -> list[list[AskedQuestion]]:
    """Put questions together to conversations; raises InputError if there are too few."""
    questions = choose_questions(config.dialogues, config.questions, config.num_questions)
    order = np.random.default_rng(config.seed).permutation(len(questions))
    firsts = range(0, len(order) - config.num_turns + 1, config.num_turns)
    if not firsts:
        raise InputError(f"{len(questions)} questions are too few for a conversation")
    return [[questions[i] for i in order[first : first + config.num_turns]] for first in firsts]


def ask_all(talk: Conversation, questions: Sequence[AskedQuestion]) -> list[bool]:
    """Ask questions one after another; whether each was answered exactly."""
    talk.turns.clear()
    return [
        is_same(
            ask_sound(talk, read_utterance_audio(one.recording, GEMMA_SAMPLE_RATE_HZ)).answer,
            one.answer,
        )
        for one in questions
    ]


if __name__ == "__main__":
    run_command(main)
