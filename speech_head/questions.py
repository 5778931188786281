"""The user's turns before the texts that a head is trained on.

Gemma's states at an answer depend on everything before it. A head trained after a single prompt
knows only the states that follow that prompt. A head that is to speak answers must be trained after
questions as users ask them, typed or spoken. No dialogues have to be recorded for this: any
recording can take the place of an answer, and stage 2 makes the spoken questions from text.
"""

# T frames (25 per second), D embedding width

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from commands.origins import Origin
from commands.seeds import derive_seed
from commands.sources import QUESTIONS, Sources, count_sources, merge, used_for
from data_manifests.normalization import normalize_for_scoring, normalize_for_training
from speech_head.answer import TeacherForcedAnswer, ask_to_speak, teacher_forced_answer
from stage1_rvq.codes import code_format
from stage1_rvq.model import load_rvq
from stage3_finetune.dialogue import Dialogue, Turn
from stage3_finetune.dialogue_files import (
    read_dialogues_origins,
    read_dialogues_sources,
    read_spoken_dialogues,
)
from stage3_finetune.dialogue_rows import read_dialogues


class Questions:
    """Questions to put before texts; the same text and id get the same question in every run."""

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        decode: Callable[[Tensor], Tensor] | None,
        seed: int,
        origins: Mapping[str, Origin],
        sources: Sources = (),
    ) -> None:
        """
        Args:
            dialogues: their first questions are used; those with codes are spoken half of the time.
            decode: codes `[T, K]` -> embeddings `[T, D]`; None if no question has codes.
            seed: seed for choosing questions.
            origins: what the codes and their quantiser belong to, by flag and value; callers pass
                it to `refuse_mixture`, with what else they use.
            sources: what the questions were made from.

        Raises:
            InputError: the dialogues have no questions.
        """
        self.origins = origins
        self.sources = used_for(sources, QUESTIONS)
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
        """The question to put before a text.

        The text of an answer gets a question that it answers. Any other text gets, at random, some
        question or "Kasa." ("Speak."), so that a head can also speak a given text.
        """
        drawn = random.Random(derive_seed(self._seed, id_))
        fitting = self._by_answer.get(normalize_for_scoring(text))
        if fitting is None:
            if drawn.random() < 0.5:
                return ask_to_speak()
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
) -> TeacherForcedAnswer:
    """Put a transcript where Gemma would have written it.

    Args:
        questions: questions to put before it; None puts every text after "Kasa." ("Speak.").
        has_transcripts: whether Gemma writes the transcript of a spoken question before its answer.

    Raises:
        InputError: as `teacher_forced_answer`.
    """
    text = normalize_for_training(text)
    question = questions.before(text, id_) if questions else ask_to_speak()
    return teacher_forced_answer(
        text, tokenizer, question, has_transcript=question.spoken and has_transcripts
    )


def load_questions(dialogues: Path, rvq: str | None, *, seed: int) -> Questions:
    """Load questions from a `messages` file, or from a folder of spoken dialogues and the quantiser
    it was made for.

    Raises:
        InputError: missing or unfinished, or a folder without its quantiser.
    """
    if not dialogues.is_dir():
        typed = [
            replace(d, turns=tuple(replace(turn, spoken=False) for turn in d.turns))
            for d in read_dialogues(dialogues)
        ]
        texts = count_sources((d.corpus, d.license, 0) for d in typed)
        return Questions(typed, None, seed, origins={}, sources=texts)
    if rvq is None:
        raise InputError(f"--dialogues {dialogues} is a folder of codes: give --rvq to decode them")
    quantiser = load_rvq(rvq, device=torch.device("cpu"))
    spoken = list(read_spoken_dialogues(dialogues, code_format(quantiser.config)))
    origins = {f"--rvq {rvq}": quantiser.origin(), **read_dialogues_origins(dialogues)}
    sources = merge(read_dialogues_sources(dialogues), quantiser.made_from())
    return Questions(spoken, quantiser.decode, seed, origins, sources)
