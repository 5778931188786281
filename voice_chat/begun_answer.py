"""An answer that is computed a little at a time, perhaps before its question has ended.

    answer = BegunAnswer(talker, question, begun, sampling)
    while not answer.is_complete:
        answer.compute()
    for update in answer.take(): ...

It has a conversation of its own, a copy of the real one, so that it can be thrown away.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from commands.errors import InputError
from speech_head.generate import Speech, Talker
from speech_head.stream import Sampling
from stage3_finetune.dialogue import Turn
from stage3_finetune.generate import BegunPrompt
from voice_chat.updates import Ended, Heard, Said, Update


class BegunAnswer:
    """The answer to one question.

    Attributes:
        turns: the conversation with the question and what is written of the answer; complete once
            all is computed, or after `close`.
        is_wanted: the question has ended, so that the answer may be heard.
        is_complete: nothing is left to compute.
    """

    def __init__(
        self,
        talker: Talker,
        question: Turn,
        begun: BegunPrompt | None,
        sampling: Sampling,
        *,
        is_wanted: bool,
    ) -> None:
        """
        Args:
            talker: with the conversation before the question, which is left as it is.
            question: a user's turn; if spoken, with embeddings.
            begun: the prompt, if a part of it is in Gemma's cache already.
            sampling: how frames are sampled.
        """
        conversation = talker.conversation.continuing(list(talker.conversation.turns))
        self.turns = conversation.turns
        self.is_wanted = is_wanted
        self.is_complete = False
        self._updates: list[Update] = []
        self._steps = _steps(replace(talker, conversation=conversation), question, begun, sampling)

    def compute(self) -> None:
        """Compute one token, or one frame."""
        update = next(self._steps)
        if update is not None:
            self._updates.append(update)
            self.is_complete = isinstance(update, Ended)

    def take(self) -> list[Update]:
        """What was computed since the last call."""
        updates, self._updates = self._updates, []
        return updates

    def close(self) -> None:
        """Compute no more."""
        self._steps.close()


def _steps(
    talker: Talker, question: Turn, begun: BegunPrompt | None, sampling: Sampling
) -> Generator[Update | None]:
    """A token or a frame at a time, at last `Ended`; `None` for a token that is not spoken yet."""
    speech = Speech(talker, sampling)
    transcripts: list[str] = []
    try:
        with closing(talker.answer(question, begun, on_transcript=transcripts.append)) as answer:
            for tokens in answer:
                yield Heard(transcripts.pop()) if transcripts else None
                for samples_N in speech.add(tokens):
                    yield Said(samples_N, speech.text)
        for samples_N in speech.close():
            yield Said(samples_N, speech.text)
    except InputError as error:
        yield Ended(speech.text, str(error))
    else:
        yield Ended(speech.text)
