"""A question while it is being asked: its sound goes through the tower, and into Gemma's cache.

    question = SpokenQuestion(tower.start())
    question.begin_prompt(talker.conversation)
    question.listen(samples_N)               # again and again, as it comes
    answer = question.begin_answer(talker, sampling)

An adapter that writes a transcript before it answers begins with it every two seconds of speech.
What it wrote is the draft of the next, so that little of it is left to write at the end.
"""

# N samples at 16 kHz

import numpy as np

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.tower_stream import TowerStream
from speech_head.generate import Talker
from speech_head.stream import Sampling
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import Turn
from stage3_finetune.live_prompt import LivePrompt
from voice_chat.begun_answer import BegunAnswer

# What was said goes through tower and decoder in steps: fewer, larger ones take less time together.
STEP_S = 0.16
DRAFT_EVERY_S = 2.0


class SpokenQuestion:
    """One question being asked.

    Attributes:
        has_prompt: whether what is heard goes into Gemma's cache. It does not while an answer is
            heard, and this may be a word of assent only: then its sound waits.
        drafting: the transcript that is being written meanwhile; None if there is none.
    """

    def __init__(self, ear: TowerStream, *, instruction: str = "") -> None:
        """
        Args:
            ear: the tower on its sound.
            instruction: text shown to Gemma beside the speech.
        """
        self.drafting: BegunAnswer | None = None
        self._ear = ear
        self._instruction = instruction
        self._prompt: LivePrompt | None = None
        self._waiting: list[np.ndarray] = []
        self._draft: list[int] = []
        self._drafted_s = 0.0

    @property
    def has_prompt(self) -> bool:
        return self._prompt is not None

    def begin_prompt(self, conversation: Conversation) -> None:
        """Let Gemma read the conversation so far, and what was heard of the question."""
        self._prompt = LivePrompt(
            conversation.model, conversation.tokenizer, conversation.turns,
            prompt=self._instruction,
        )  # fmt: skip
        self.catch_up()

    def wait(self, samples_N: np.ndarray) -> None:
        """Keep sound of a pause: it belongs to the question only if speech follows."""
        self._waiting.append(samples_N)

    def listen(self, samples_N: np.ndarray) -> None:
        """Hear more, float32 in [-1, 1], mono, 16 kHz."""
        self.wait(samples_N)
        if sum(map(len, self._waiting)) >= STEP_S * GEMMA_SAMPLE_RATE_HZ:
            self.catch_up()

    def catch_up(self) -> None:
        """Put all that was heard through the tower and into Gemma's cache."""
        if self._prompt is not None and self._waiting:
            self._prompt.hear(self._ear.push(np.concatenate(self._waiting)))
            self._waiting = []

    @property
    def wants_draft(self) -> bool:
        """Whether it is time to begin the transcript."""
        is_due = self._ear.duration_s >= self._drafted_s + DRAFT_EVERY_S
        return self.has_prompt and self.drafting is None and is_due

    def begin_draft(self, talker: Talker, sampling: Sampling) -> None:
        """Begin the transcript of what was heard so far."""
        self._drafted_s = self._ear.duration_s
        self.drafting = self.begin_answer(talker, sampling)

    def end_draft(self) -> None:
        """Keep what is written of the transcript."""
        if self.drafting is not None:
            self.keep_draft(self.drafting)
            self.drafting = None

    def begin_answer(self, talker: Talker, sampling: Sampling) -> BegunAnswer:
        """Begin the answer to what was heard so far.

        Args:
            talker: with the conversation before the question.
        """
        assert self._prompt is not None
        self.end_draft()
        turn = Turn(
            "user", "[spoken]", spoken=True, frames_TD=self._prompt.frames_TD,
            prompt=self._instruction,
        )  # fmt: skip
        prompt = self._prompt.begun(self._draft)
        return BegunAnswer(talker, turn, prompt, sampling, is_wanted=False)

    def keep_draft(self, answer: BegunAnswer) -> None:
        """End an answer whose question goes on; its transcript is the next draft."""
        answer.close()
        self._draft = answer.draft
