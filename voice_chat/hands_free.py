"""A conversation by voice alone: it listens while you speak, and answers when you have ended.

    talk = HandsFree(talker, TurnSettings(), sampling_of_turn)
    while True:
        for update in talk.hear(microphone.take()): show(update)
        for update in talk.work(): show(update)  # one token, or 80 ms of speech

While somebody speaks, the audio tower runs on what has been said, and its embeddings go into
Gemma's cache. At the first short pause the answer is begun. If the speaker goes on, it is thrown
away; if the pause lasts, its first sound may be there already when the turn has ended. Whoever
speaks while an answer is heard interrupts it, unless it was only a word of assent.

One thread drives it, in turns: nothing here waits, and the same sound in the same pieces gives the
same updates. `work_together` computes the answers of several conversations in one pass.
"""

# N samples (of the microphone at 16 kHz, of the answer at 24 kHz)

from collections.abc import Callable, Sequence

import numpy as np
import torch

from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.gemma import FRAME_RATE_HZ
from gemma4.tower_stream import StreamingTower
from speech_head.generate import Talker
from speech_head.stream import Sampling
from stage3_finetune.dialogue import Turn, encode_prompt
from voice_chat.begun_answer import BegunAnswer, compute_a_little
from voice_chat.spoken_question import SpokenQuestion
from voice_chat.turn_taking import TurnDetector, TurnEvent, TurnSettings, VoiceDetector
from voice_chat.updates import Asked, Ignored, Interrupted, Said, Update

# So much sound before the first speech belongs to the turn: consonants are softer than what is
# detected.
LEAD_S = 0.25
# Speech shorter than that does not interrupt an answer: "aane", "mm".
BACKCHANNEL_S = 0.5


class HandsFree:
    """One speaker's conversation with a talker."""

    def __init__(
        self,
        talker: Talker,
        settings: TurnSettings,
        sampling_of_turn: Callable[[Sequence[Turn]], Sampling],
        *,
        voice: VoiceDetector | None = None,
        clock_s: Callable[[], float] | None = None,
    ) -> None:
        """
        Args:
            talker: its conversation is continued.
            settings: how turns are told from silence.
            sampling_of_turn: how the answer after these turns is sampled.
            voice: tells speech from other sound; Silero's detector where not given.
            clock_s: seconds, by which answers are played; where not given, those of the sound that
                was heard, which stand still while the microphone is off.

        Raises:
            InputError: Gemma does not take turns as long as the settings allow.
        """
        self._talker = talker
        self._settings = settings
        self._sampling_of_turn = sampling_of_turn
        self._voice = voice or VoiceDetector()
        self._clock_s = clock_s or self._heard_s
        self._turns = TurnDetector(settings)
        self._tower = StreamingTower(talker.conversation.encoder)
        self._recent_N = np.zeros(0, np.float32)  # the end of what was heard
        self._num_heard = 0  # samples
        self._played_until_s = 0.0  # by the clock, if all is played at once
        self._question: SpokenQuestion | None = None
        self._answer: BegunAnswer | None = None
        num_frames = round(settings.max_turn_s * FRAME_RATE_HZ)
        frames_TD = torch.zeros(num_frames, self._tower.encoder.dim)
        self._longest_question = Turn("user", "", spoken=True, frames_TD=frames_TD)
        try:
            talker.conversation.continuing([]).make_room(self._longest_question)
        except InputError as error:
            raise InputError(f"turns of up to {settings.max_turn_s:g} s: {error}") from None

    def hear(self, samples_N: np.ndarray) -> list[Update]:
        """Hear the microphone.

        Args:
            samples_N: float32 in [-1, 1], mono, 16 kHz; any number, also none.

        Returns:
            What happened.
        """
        self._num_heard += len(samples_N)
        self._recent_N = np.concatenate([self._recent_N, samples_N])
        if self._question:
            self._listen(self._question, samples_N)
        updates: list[Update] = []
        for probability in self._voice.push(samples_N):
            event = self._turns.step(probability)
            if event:
                updates += [event, *self._take(event)]
            if self._question and not self._question.has_prompt:
                updates += self._judge_interruption(self._question)
        self._recent_N = self._recent_N[self._first_recent(self._turns.may_have_begun_s) :].copy()
        return updates

    def end_turn(self) -> list[Update]:
        """End the speaker's turn now: a button was released, say.

        Returns:
            What happened; nothing where no turn has begun.
        """
        event = self._turns.end()
        return [event, *self._take(event)] if event else []

    def typed_turn(self, text: str) -> Turn:
        """A typed question; raises InputError as `Conversation.typed_turn`."""
        return self._talker.conversation.typed_turn(text)

    def ask(self, question: Turn) -> list[Update]:
        """Ask a typed question, which interrupts whatever is said or computed.

        Raises:
            InputError: it is too long.
        """
        self._talker.conversation.continuing([]).make_room(question)
        updates = self.stop()
        conversation = self._talker.conversation
        conversation.make_room(question)
        prompt = encode_prompt([*conversation.turns, question], conversation.tokenizer)
        self._answer = BegunAnswer(
            self._talker, question, prompt, self._next_sampling(), is_wanted=True
        )
        return [*updates, Asked(question.content)]

    def stop(self) -> list[Update]:
        """End the answer as if the speaker had interrupted it; forget a turn that has begun."""
        was_answering = self.is_answering
        self._turns.end()
        self._question = None
        self._end_answer()
        return [Interrupted()] if was_answering else []

    def work(self) -> list[Update]:
        """Compute a little: one token, or one frame.

        Returns:
            What may be heard of the answer by now.
        """
        return work_together([self])[0]

    @property
    def is_busy(self) -> bool:
        """Whether `work` has anything to do."""
        return self._computed is not None

    @property
    def _computed(self) -> BegunAnswer | None:
        """What is being computed: an answer, or a draft."""
        if self._answer is not None:
            return None if self._answer.is_complete else self._answer
        return self._question.drafting if self._question else None

    @property
    def is_answering(self) -> bool:
        """Whether an answer is being computed for the speaker, or is still heard."""
        is_computed = self._answer is not None and self._answer.is_wanted
        return is_computed or self.now_s < self._played_until_s

    @property
    def now_s(self) -> float:
        """The time by the clock that answers are played by."""
        return self._clock_s()

    def _heard_s(self) -> float:
        return self._num_heard / GEMMA_SAMPLE_RATE_HZ

    def _take(self, event: TurnEvent) -> list[Update]:
        """Do what an event asks for."""
        if event.kind == "began":
            self._question = SpokenQuestion(self._tower.start())
            self._listen(self._question, self._recent_N[self._first_recent(event.time_s) :])
            if not self.is_answering:
                self._begin_prompt(self._question)
        question = self._question
        if question is None or not question.has_prompt:
            if event.kind == "ended":
                self._question = None
                return [Ignored()]
            return []
        if event.kind == "paused":
            self._answer_speech(question)
        elif event.kind == "resumed":
            if self._answer is not None:
                question.keep_draft(self._answer)
                self._answer = None
            question.catch_up()
        elif event.kind == "ended":
            if self._answer is None:
                self._answer_speech(question)
            assert self._answer is not None
            self._answer.is_wanted, self._question = True, None
            return self._pass_on()
        return []

    def _first_recent(self, time_s: float) -> int:
        """Where in the recent sound a turn would begin whose first speech is at that time."""
        start = round((time_s - LEAD_S) * GEMMA_SAMPLE_RATE_HZ)
        return max(0, start - self._num_heard + len(self._recent_N))

    def _listen(self, question: SpokenQuestion, samples_N: np.ndarray) -> None:
        if self._answer is not None and not self._answer.is_wanted:  # a pause
            question.wait(samples_N)
            return
        question.listen(samples_N)
        if self._talker.conversation.writes_transcripts and question.wants_draft:
            question.begin_draft(self._talker, self._next_sampling())

    def _begin_prompt(self, question: SpokenQuestion) -> None:
        self._talker.conversation.make_room(self._longest_question)
        question.begin_prompt(self._talker.conversation)

    def _judge_interruption(self, question: SpokenQuestion) -> list[Update]:
        """Interrupt the answer, if what is said meanwhile is more than assent."""
        if self.is_answering and self._turns.speech_s < BACKCHANNEL_S:
            return []
        was_answering = self.is_answering
        self._end_answer()
        self._begin_prompt(question)
        return [Interrupted()] if was_answering else []

    def _answer_speech(self, question: SpokenQuestion) -> None:
        question.catch_up()
        self._answer = question.begin_answer(self._talker, self._next_sampling())

    def _next_sampling(self) -> Sampling:
        return self._sampling_of_turn(self._talker.conversation.turns)

    def _end_answer(self) -> None:
        """Cut the answer off: what it wrote is remembered, if its question had ended."""
        if self._answer is not None:
            self._answer.close()
            if self._answer.is_wanted:
                self._talker.conversation.turns[:] = self._answer.turns
            self._answer = None
        self._played_until_s = self.now_s

    def _pass_on(self) -> list[Update]:
        """What of the answer may be heard by now."""
        answer = self._answer
        if answer is None or not answer.is_wanted:
            return []
        updates = answer.take()
        rate_hz = self._talker.mimi.sample_rate_hz
        for update in updates:
            if isinstance(update, Said):
                begin_s = max(self.now_s, self._played_until_s)
                self._played_until_s = begin_s + len(update.samples_N) / rate_hz
        if answer.is_complete:
            self._talker.conversation.turns[:] = answer.turns
            self._answer = None
        return updates

    def _follow_up(self) -> list[Update]:
        """Take what was computed."""
        question = self._question
        if self._answer is None and question and question.drafting:
            if question.drafting.has_transcript:
                question.end_draft()
            return []
        return self._pass_on()


def work_together(conversations: Sequence[HandsFree]) -> list[list[Update]]:
    """Compute a little for each conversation that has anything to do, as `work`, in one pass.

    Args:
        conversations: with the same models, sampled in the same way but for the seed.

    Returns:
        What may be heard by now in each.
    """
    compute_a_little([c._computed for c in conversations if c._computed is not None])
    return [conversation._follow_up() for conversation in conversations]
