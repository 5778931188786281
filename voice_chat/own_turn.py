"""Our own turn in a conversation: the answer that is being computed, and what is heard of it."""

from collections.abc import Callable

from speech_head.talker import Talker
from voice_chat.begun_answer import BegunAnswer
from voice_chat.own_voice import OwnVoice
from voice_chat.updates import Held, Resumed, Said, Update


class OwnTurn:
    """The answer to the last question, from its beginning until its last sound has been played.

    Attributes:
        answer: what is being computed; None when all is, or nothing was asked. It may have been
            begun in a pause of the question: then it is not wanted yet.
        voice: what is played of it.
    """

    def __init__(self, talker: Talker, clock_s: Callable[[], float]) -> None:
        """
        Args:
            talker: whose conversation is continued by every answer.
            clock_s: seconds, by which answers are played.
        """
        self.answer: BegunAnswer | None = None
        self.voice = OwnVoice(talker.mimi.sample_rate_hz, clock_s)
        self._turns = talker.conversation.turns
        self._before = list(self._turns)

    @property
    def is_going_on(self) -> bool:
        """Whether an answer is being computed for the speaker, or is still heard."""
        is_computed = self.answer is not None and self.answer.is_wanted
        return is_computed or self.voice.is_heard

    @property
    def is_begun_early(self) -> bool:
        """Whether an answer is being computed although the question may go on."""
        return self.answer is not None and not self.answer.is_wanted

    def begin(self, answer: BegunAnswer) -> None:
        """Begin an answer; there is none."""
        assert self.answer is None
        self.answer, self._before = answer, list(self._turns)

    def take_back(self) -> BegunAnswer | None:
        """End the answer since its question goes on: neither is remembered. Returns what is left of
        it, to be closed."""
        answer, self.answer = self.answer, None
        self._turns[:] = self._before
        self.voice.stop()
        return answer

    def cut_off(self) -> None:
        """End the answer: what it wrote is remembered, if its question had ended."""
        if self.answer is not None:
            self.answer.close()
            if self.answer.is_wanted:
                self._turns[:] = self.answer.turns
            self.answer = None
        self.voice.stop()

    def hold(self) -> list[Update]:
        """Play no more for now, as somebody speaks."""
        if self.voice.is_held or not self.is_going_on:
            return []
        self.voice.hold()
        return [Held()]

    def go_on(self) -> list[Update]:
        """Play on, if it was held."""
        if not self.voice.is_held:
            return []
        self.voice.go_on()
        return [Resumed()]

    def pass_on(self) -> list[Update]:
        """What of the answer may be heard by now."""
        answer = self.answer
        if answer is None or not answer.is_wanted:
            return []
        updates = answer.take()
        for update in updates:
            if isinstance(update, Said):
                self.voice.say(update.samples_N)
        if answer.is_complete:
            self._turns[:] = answer.turns
            self.answer = None
        return updates
