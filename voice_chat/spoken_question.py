"""A question while it is being asked: its sound goes through the ear, and into Gemma's cache.

    question = SpokenQuestion(ear.start())
    question.begin_prompt(talker.conversation)
    question.listen(samples_N)               # again and again, as it comes
    catch_up_together([question, ...])       # now and then, for all who speak
    answer = question.begin_answer(talker, sampling)

An adapter that writes a transcript before it answers begins with it every two seconds of speech.
What it wrote is the draft of the next, so that little of it is left to write at the end.
"""

# N samples at 16 kHz

from collections.abc import Sequence

import numpy as np

from gemma4.gemma import FRAME_RATE_HZ
from gemma4.speech_encoder import EarStream
from speech_head.stream import Sampling
from speech_head.talker import Talker
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import Turn
from stage3_finetune.live_prompt import LivePrompt, hear_together
from voice_chat.begun_answer import BegunAnswer

# What was said goes through tower and decoder in steps: fewer, larger ones take less time together.
# A question takes part in another's step if it has a third of one.
STEP_S = 0.48
MIN_STEP_FRAMES = 4
DRAFT_EVERY_S = 2.0


class SpokenQuestion:
    """One question being asked.

    Attributes:
        drafting: the transcript that is being written meanwhile; None if there is none.
    """

    def __init__(self, ear: EarStream, *, instruction: str = "") -> None:
        """
        Args:
            ear: what Gemma hears with, on its sound.
            instruction: text shown to Gemma beside the speech.
        """
        self.drafting: BegunAnswer | None = None
        self._ear = ear
        self._instruction = instruction
        self._prompt: LivePrompt | None = None
        self._pause: list[np.ndarray] = []
        self._draft: list[int] = []
        self._drafted_s = 0.0

    @property
    def has_prompt(self) -> bool:
        """Whether what is heard goes into Gemma's cache. It does not while an answer is heard, and
        this may be a word of assent only: then its sound waits."""
        return self._prompt is not None

    @property
    def wants_step(self) -> bool:
        """Whether enough was heard for a step of tower and decoder."""
        return self.has_prompt and self._ear.num_waiting >= STEP_S * FRAME_RATE_HZ

    @property
    def wants_draft(self) -> bool:
        """Whether it is time to begin the transcript."""
        is_due = self._ear.num_frames >= (self._drafted_s + DRAFT_EVERY_S) * FRAME_RATE_HZ
        return self.has_prompt and self.drafting is None and is_due

    def begin_prompt(self, conversation: Conversation) -> None:
        """Let Gemma read the conversation so far, and what was heard of the question."""
        before = self._prompt
        self._prompt = LivePrompt(
            conversation.model, conversation.tokenizer, conversation.turns,
            prompt=self._instruction, tools=conversation.tools.schemas,
        )  # fmt: skip
        if before is not None:
            self._prompt.hear(before.frames_TD)
        self.catch_up()

    def listen(self, samples_N: np.ndarray) -> None:
        """Hear more, float32 in [-1, 1], mono, 16 kHz; after a pause, that too."""
        self._ear.add(np.concatenate([*self._pause, samples_N]))
        self._pause = []

    def go_on(self) -> None:
        """The pause is over: it belongs to the question."""
        self.listen(np.zeros(0, np.float32))

    def wait(self, samples_N: np.ndarray) -> None:
        """Keep sound of a pause: it belongs to the question only if speech follows."""
        self._pause.append(samples_N)

    def catch_up(self) -> None:
        """Put all that was heard through the tower and into Gemma's cache."""
        if self._prompt is not None:
            self._prompt.hear(self._ear.push(np.zeros(0, np.float32)))

    def begin_draft(self, talker: Talker, sampling: Sampling) -> None:
        """Begin the transcript of what was heard so far."""
        self._drafted_s = self._ear.num_frames / FRAME_RATE_HZ
        self.drafting = self.begin_answer(talker, sampling)

    def end_draft(self) -> list[int]:
        """Keep what is written of the transcript; returns it."""
        if self.drafting is not None:
            self.keep_draft(self.drafting)
            self.drafting = None
        return self._draft

    def begin_answer(
        self, talker: Talker, sampling: Sampling, *, is_spoken: bool = True
    ) -> BegunAnswer:
        """Begin the answer to what went into Gemma's cache so far.

        Args:
            talker: with the conversation before the question.
            is_spoken: whether it will be said aloud, or only written.
        """
        assert self._prompt is not None
        self.end_draft()
        turn = Turn(
            "user", "[spoken]", spoken=True, frames_TD=self._prompt.frames_TD,
            prompt=self._instruction,
        )  # fmt: skip
        prompt = self._prompt.begun(self._draft)
        return BegunAnswer(talker, turn, prompt, sampling, is_wanted=False, is_spoken=is_spoken)

    def keep_draft(self, answer: BegunAnswer) -> None:
        """End an answer whose question goes on; its transcript is the next draft."""
        answer.close()
        self._draft = answer.draft


def catch_up_together(questions: Sequence[SpokenQuestion]) -> None:
    """Put what was heard of several questions through the tower and into Gemma's cache, in one pass
    each: as much as all of them have, if that is enough for a step of one."""
    if not any(question.wants_step for question in questions):
        return
    able = [q for q in questions if q.has_prompt and q._ear.num_waiting >= MIN_STEP_FRAMES]
    num_frames = min(question._ear.num_waiting for question in able)
    first, *others = [question._ear for question in able]
    frames = first.encode_with(others, num_frames)
    hear_together([q._prompt for q in able if q._prompt is not None], frames)
