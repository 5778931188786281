"""How questions become answers in one conversation: with which models, history and settings."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from commands.errors import InputError
from gemma4.gemma import FRAME_RATE_HZ
from gemma4.speech_encoder import live_ear
from speech_head.stream import Sampling
from speech_head.talker import Talker
from speech_head.voices import Voice
from stage3_finetune.dialogue import Turn
from voice_chat.begun_answer import BegunAnswer
from voice_chat.spoken_question import SpokenQuestion


class Answerer:
    """Begins questions and answers of one conversation.

    Attributes:
        talker: its conversation is what was said so far.
        instruction: text that Gemma is shown beside what is said from now on; "" for none.
        speaks: whether answers are said aloud, or only written.
    """

    def __init__(
        self,
        talker: Talker,
        sampling_of_turn: Callable[[Sequence[Turn]], Sampling],
        *,
        max_turn_s: float,
    ) -> None:
        """
        Args:
            sampling_of_turn: how the answer after these turns is sampled.
            max_turn_s: length of the longest spoken question.

        Raises:
            InputError: Gemma does not take questions so long.
        """
        self.talker = talker
        self.instruction = ""
        self.speaks = True
        self._sampling_of_turn = sampling_of_turn
        encoder = talker.conversation.encoder
        self._ear = live_ear(encoder)
        frames_TD = torch.zeros(round(max_turn_s * FRAME_RATE_HZ), encoder.dim)
        self._longest_question = Turn("user", "", spoken=True, frames_TD=frames_TD)
        try:
            talker.conversation.continuing([]).make_room(self._longest_question)
        except InputError as error:
            raise InputError(f"turns of up to {max_turn_s:g} s: {error}") from None

    def speak_in(self, voice: Voice) -> None:
        """Speak in another voice from the next answer on."""
        self.talker = replace(self.talker, voice=voice)

    @property
    def writes_transcripts(self) -> bool:
        """Whether answers to speech begin with its transcript."""
        return self.talker.conversation.writes_transcripts

    def begin_question(self) -> SpokenQuestion:
        """A spoken question before its first sound."""
        return SpokenQuestion(self._ear.start(), instruction=self.instruction)

    def begin_prompt(self, question: SpokenQuestion) -> None:
        """Let Gemma read the conversation so far, and what was heard of the question."""
        self.talker.conversation.make_room(self._longest_question)
        question.begin_prompt(self.talker.conversation)

    def begin_draft(self, question: SpokenQuestion) -> None:
        """Begin the transcript of what was heard of the question."""
        question.begin_draft(self.talker, self._sampling())

    def answer_speech(self, question: SpokenQuestion) -> BegunAnswer:
        """Begin the answer to what was heard of the question."""
        question.catch_up()
        return question.begin_answer(self.talker, self._sampling(), is_spoken=self.speaks)

    def refuse_long(self, question: Turn) -> None:
        """Raise InputError if a typed question alone is too long."""
        self.talker.conversation.continuing([]).make_room(question)

    def answer_typed(self, question: Turn) -> BegunAnswer:
        """Begin the answer to a typed question."""
        conversation = self.talker.conversation
        conversation.make_room(question)
        prompt = conversation.prompt([question])
        return BegunAnswer(
            self.talker, question, prompt, self._sampling(), is_wanted=True, is_spoken=self.speaks
        )

    def _sampling(self) -> Sampling:
        return self._sampling_of_turn(self.talker.conversation.turns)
