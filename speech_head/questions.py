"""What the user says before the texts that a head is trained on.

Gemma's states at an answer depend on all that stands before it. A head trained after one prompt
only knows the states of that prompt; one that is to speak answers has to be trained after
questions, put as users put them: typed, or spoken. No dialogue has to be recorded for it: any
recording can stand where an answer stands, and spoken questions are those that stage 2 made of
text.
"""

# T frames (25 per second), D embedding width

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from commands.device import derive_seed
from commands.errors import InputError
from data_manifests.twi_text import normalize_for_scoring, normalize_for_training
from speech_head.answer import SPEAK, SpokenText, tokenize_spoken_text
from stage1_rvq.codes import code_format
from stage1_rvq.model import load_rvq
from stage3_finetune.data import read_spoken_dialogues
from stage3_finetune.dialogue import Dialogue, Turn, read_dialogues


class Questions:
    """Questions to put before texts; the same for the same text and id, run after run."""

    def __init__(
        self, dialogues: Sequence[Dialogue], decode: Callable[[Tensor], Tensor] | None, seed: int
    ) -> None:
        """
        Args:
            dialogues: their first questions are asked; those with codes half of the time aloud.
            decode: codes `[T, K]` -> embeddings `[T, D]`; None where no question has codes.
            seed: of what is drawn.

        Raises:
            InputError: no question among the dialogues.
        """
        self._decode = decode
        self._seed = seed
        self._asked: list[Turn] = []
        self._by_answer: dict[str, list[Turn]] = {}
        for dialogue in dialogues:
            turns = [turn for turn in dialogue.turns if turn.role != "system"]
            if not turns or turns[0].role != "user":
                continue
            self._asked.append(turns[0])
            if len(turns) > 1:
                answer = normalize_for_scoring(turns[1].content)
                self._by_answer.setdefault(answer, []).append(turns[0])
        if not self._asked:
            raise InputError("--dialogues: no question in any of them")

    def before(self, text: str, id_: str) -> Turn:
        """The question that a text is put after.

        The text of an answer comes after a question it answers. Any other comes after some question
        or after "Kasa." ("Speak."), one or the other by chance, so that a head can also say what it
        is given.
        """
        drawn = random.Random(derive_seed(self._seed, id_))
        fitting = self._by_answer.get(normalize_for_scoring(text))
        if fitting is None:
            if drawn.random() < 0.5:
                return SPEAK
            fitting = self._asked
        question = drawn.choice(fitting)
        is_heard = question.codes_TK is not None and drawn.random() < 0.5
        if not is_heard:
            return replace(question, spoken=False)
        assert question.codes_TK is not None and self._decode is not None
        return replace(question, frames_TD=self._decode(question.codes_TK))


def put_after_question(
    text: str,
    id_: str,
    tokenizer: PreTrainedTokenizerBase,
    questions: Questions | None,
    *,
    has_transcripts: bool,
) -> SpokenText:
    """A transcript where Gemma would have written it.

    Args:
        text: of a manifest.
        id_: of the utterance.
        tokenizer: Gemma's.
        questions: what to put it after; None puts all after "Kasa." ("Speak.").
        has_transcripts: Gemma writes the transcript of a question it hears before its answer.

    Raises:
        InputError: as `tokenize_spoken_text`.
    """
    text = normalize_for_training(text)
    question = questions.before(text, id_) if questions else SPEAK
    return tokenize_spoken_text(
        text, tokenizer, question, has_transcript=question.spoken and has_transcripts
    )


def load_questions(dialogues: Path, rvq: str | None, *, seed: int) -> Questions:
    """Questions of a `messages` file, or of a folder of spoken dialogues and the quantiser it was
    made for.

    Raises:
        InputError: missing, unfinished, or a folder without its quantiser.
    """
    if not dialogues.is_dir():
        typed = [
            replace(d, turns=tuple(replace(turn, spoken=False) for turn in d.turns))
            for d in read_dialogues(dialogues)
        ]
        return Questions(typed, None, seed)
    if rvq is None:
        raise InputError(f"--dialogues {dialogues} is a folder of codes: give --rvq to decode them")
    quantiser = load_rvq(rvq, device=torch.device("cpu"))
    spoken = list(read_spoken_dialogues(dialogues, code_format(quantiser.config)))
    return Questions(spoken, quantiser.decode, seed)
