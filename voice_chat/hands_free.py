"""A conversation by voice alone: it listens while you speak, and answers when you have ended.

    talk = HandsFree(talker, TurnSettings(), sampling_of_turn)
    while True:
        for update in talk.hear(microphone.take()): show(update)
        for update in talk.work(): show(update)  # one token, or 80 ms of speech

While somebody speaks, the audio tower runs on what has been said, and its embeddings go into
Gemma's cache. At the first short pause the answer is begun. If the speaker goes on, it is thrown
away; if the pause lasts, its first sound may be there already when the turn has ended.

Whoever speaks while an answer is heard holds it up at once. Half a second of speech, or a word such
as "gyae", interrupts it; after a word of assent it is played on. Who speaks within a second after a
turn has ended was only thinking: the answer is taken back, and the question goes on.

One thread drives it, in turns: nothing here waits, and the same sound in the same pieces gives the
same updates. `work_together` computes the answers of several conversations in one pass.
"""

# N samples (of the microphone at 16 kHz, of the answer at 24 kHz)

from collections.abc import Callable, Sequence

import numpy as np

from data_manifests.language import language
from data_manifests.normalization import normalize_for_scoring
from speech_head.stream import Sampling
from speech_head.talker import Talker
from stage3_finetune.dialogue import Turn
from voice_chat.answerer import Answerer
from voice_chat.begun_answer import BegunAnswer, compute_a_little
from voice_chat.listener import Listener
from voice_chat.own_turn import OwnTurn
from voice_chat.spoken_question import SpokenQuestion, catch_up_together
from voice_chat.turn_taking import TurnEvent, TurnSettings, VoiceDetector
from voice_chat.updates import Asked, Ignored, Interrupted, Update

# Speech shorter than that does not interrupt an answer: "aane", "mm"; the language's `stop_words`
# do.
BACKCHANNEL_S = 0.5
# Who speaks again so soon after a turn has ended goes on with it.
CONTINUE_S = 1.0


class HandsFree:
    """One speaker's conversation with a talker.

    Attributes:
        answerer: says how questions are answered; it may be told otherwise at any time.
    """

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
        self.answerer = Answerer(talker, sampling_of_turn, max_turn_s=settings.max_turn_s)
        self._listener = Listener(settings, voice or VoiceDetector())
        self._own = OwnTurn(talker, clock_s or self._heard_s)
        self._question: SpokenQuestion | None = None
        self._is_aside = False  # the question is spoken while our answer is heard
        self._asked: SpokenQuestion | None = None  # may go on, until the time below
        self._goes_on_until_s = 0.0

    def hear(self, samples_N: np.ndarray) -> list[Update]:
        """Hear the microphone.

        Args:
            samples_N: float32 in [-1, 1], mono, 16 kHz; any number, also none.

        Returns:
            What happened.
        """
        heard_N = self._own.voice.take_echo_out(samples_N)
        if self._question:
            self._listen(self._question, heard_N)
        if self._asked:
            self._asked.wait(heard_N)
        updates: list[Update] = []
        is_echo = self._own.voice.is_beginning and self._question is None
        for event in self._listener.hear(heard_N, may_be_speech=not is_echo):
            if event:
                updates += [event, *self._take(event)]
            if self._question and self._is_aside:
                updates += self._judge_aside(self._question)
        if not self._is_aside and self._heard_s() > self._goes_on_until_s:
            self._asked = None
        return updates

    def end_turn(self) -> list[Update]:
        """End the speaker's turn now: a button was released, say.

        Returns:
            What happened; nothing where no turn has begun.
        """
        event = self._listener.turns.end()
        return [event, *self._take(event)] if event else []

    def typed_turn(self, text: str) -> Turn:
        """A typed question; raises InputError as `Conversation.typed_turn`."""
        return self.answerer.talker.conversation.typed_turn(text)

    def ask(self, question: Turn) -> list[Update]:
        """Ask a typed question, which interrupts whatever is said or computed.

        Raises:
            InputError: it is too long.
        """
        self.answerer.refuse_long(question)
        updates = self.stop()
        self._own.begin(self.answerer.answer_typed(question))
        return [*updates, Asked(question.content)]

    def stop(self) -> list[Update]:
        """End the answer as if the speaker had interrupted it; forget a turn that has begun."""
        was_answering = self.is_answering
        self._listener.turns.end()
        self._question = self._asked = None
        self._is_aside = False
        self._own.cut_off()
        return [Interrupted()] if was_answering else []

    def work(self) -> list[Update]:
        """Compute a little: some speech that was heard, and one token or one frame.

        Returns:
            What may be heard of the answer by now.
        """
        return work_together([self])[0]

    @property
    def is_busy(self) -> bool:
        """Whether `work` has anything to do."""
        wants_step = self._question is not None and self._question.wants_step
        return wants_step or self._computed is not None

    @property
    def _computed(self) -> BegunAnswer | None:
        """What is being computed: an answer, or a draft."""
        drafting = self._question.drafting if self._question else None
        if drafting and (self._own.answer is None or self._is_aside):
            return None if drafting.is_waiting else drafting
        answer = self._own.answer
        return None if answer is None or answer.is_complete or answer.is_waiting else answer

    @property
    def is_answering(self) -> bool:
        """Whether an answer is being computed for the speaker, or is still heard."""
        return self._own.is_going_on

    def _heard_s(self) -> float:
        return self._listener.heard_s

    def _take(self, event: TurnEvent) -> list[Update]:
        """Do what an event asks for."""
        if event.kind == "began":
            return self._begin_question(event.time_s)
        question = self._question
        if question is None:  # a word asked to stop
            return [Ignored()] if event.kind == "ended" else []
        if self._is_aside:
            return self._take_aside(event, question)
        if event.kind == "paused":
            self._own.begin(self.answerer.answer_speech(question))
        elif event.kind == "resumed":
            answer = self._own.take_back()
            if answer is not None:
                question.keep_draft(answer)
            question.go_on()
        elif event.kind == "ended":
            if self._own.answer is None:
                self._own.begin(self.answerer.answer_speech(question))
            assert self._own.answer is not None
            self._own.answer.is_wanted = True
            self._question, self._asked = None, question
            self._goes_on_until_s = self._heard_s() + CONTINUE_S
            return self._own.pass_on()
        return []

    def _begin_question(self, time_s: float) -> list[Update]:
        question = self._question = self.answerer.begin_question()
        question.listen(self._listener.sound_of_turn(time_s))
        self._is_aside = self.is_answering
        if self._is_aside:
            return self._own.hold()
        self._asked = None
        self.answerer.begin_prompt(question)
        return []

    def _take_aside(self, event: TurnEvent, question: SpokenQuestion) -> list[Update]:
        """What was said while our answer is heard has paused, gone on or ended."""
        if event.kind == "resumed":
            question.go_on()
            return self._own.hold()
        if event.kind == "paused" and self.answerer.writes_transcripts:
            self.answerer.begin_prompt(question)
            self.answerer.begin_draft(question)  # for `_judge_word`
            return []
        if event.kind == "ended":
            self._question, self._is_aside = None, False
            return [*self._own.go_on(), Ignored()]
        return self._own.go_on()

    def _judge_aside(self, question: SpokenQuestion) -> list[Update]:
        """Interrupt the answer, if what is said meanwhile is more than a word."""
        if self.is_answering and self._listener.turns.speech_s < BACKCHANNEL_S:
            return []
        self._is_aside = False
        was_answering, asked = self.is_answering, self._asked
        if asked is not None:
            self._question, self._asked = asked, None
            answer = self._own.take_back()
            if answer is not None:
                asked.keep_draft(answer)
            asked.go_on()
            return [Interrupted(is_continued=True)]
        self._own.cut_off()
        self.answerer.begin_prompt(question)
        return [Interrupted()] if was_answering else []

    def _judge_word(self, question: SpokenQuestion) -> list[Update]:
        """Interrupt the answer if the word that was said meanwhile asks for it; else play on."""
        text = self.answerer.talker.tokenizer.decode(question.end_draft(), skip_special_tokens=True)
        if normalize_for_scoring(text) not in language().stop_words:
            return self._own.go_on()
        self._question, self._is_aside = None, False
        self._own.cut_off()
        return [Interrupted()]

    def _listen(self, question: SpokenQuestion, samples_N: np.ndarray) -> None:
        if self._own.is_begun_early:  # a pause
            question.wait(samples_N)
        else:
            question.listen(samples_N)

    def _begin_draft(self) -> None:
        """Begin the transcript of a question while it is being asked, if it is time."""
        question = self._question
        is_due = question is not None and question.wants_draft and not self._is_aside
        if question and is_due and self._own.answer is None and self.answerer.writes_transcripts:
            self.answerer.begin_draft(question)

    def _follow_up(self) -> list[Update]:
        """Take what was computed."""
        question = self._question
        if question and question.drafting and question.drafting.has_transcript:
            if self._is_aside:
                return [*self._judge_word(question), *self._own.pass_on()]
            question.end_draft()
        return self._own.pass_on()


def work_together(conversations: Sequence[HandsFree]) -> list[list[Update]]:
    """Compute a little for each conversation that has anything to do, as `work`, in one pass.

    Args:
        conversations: with the same models, sampled in the same way but for the seed.

    Returns:
        What may be heard by now in each.
    """
    catch_up_together([c._question for c in conversations if c._question is not None])
    for conversation in conversations:
        conversation._begin_draft()
    compute_a_little([c._computed for c in conversations if c._computed is not None])
    return [conversation._follow_up() for conversation in conversations]
