"""An answer that is computed a little at a time, perhaps before its question has ended.

    answer = BegunAnswer(talker, question, prompt, sampling, is_wanted=True)
    while not answer.is_complete:
        compute_a_little([answer, ...])  # for all who are answered, in one pass
    for update in answer.take(): ...

It has a conversation of its own, a copy of the real one, so that it can be thrown away.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

from commands.errors import InputError
from speech_head.answer_parts import transcript_length
from speech_head.speech import Speech, speak_together
from speech_head.stream import Sampling
from speech_head.talker import Talker
from stage3_finetune.decoding import BegunPrompt, compute_together
from stage3_finetune.dialogue import EncodedDialogue, Turn
from stage3_finetune.generate import stop_ids
from stage3_finetune.tools import CallResult
from voice_chat.updates import Called, Ended, Heard, Said, Update, Wrote


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
        prompt: EncodedDialogue | BegunPrompt,
        sampling: Sampling,
        *,
        is_wanted: bool,
        is_spoken: bool = True,
    ) -> None:
        """
        Args:
            talker: with the conversation before the question, which is left as it is.
            question: a user's turn; if spoken, with embeddings.
            prompt: the conversation with the question, for which there is room.
            sampling: how frames are sampled.
            is_spoken: whether it is said aloud, or only written.
        """
        conversation = talker.conversation.continuing(list(talker.conversation.turns))
        self.turns = conversation.turns
        self.is_wanted = is_wanted
        self.is_complete = False
        self._talker = replace(talker, conversation=conversation)
        self._question = question
        self._decoding = talker.begin(prompt)
        self._stops = stop_ids(talker.tokenizer, talker.conversation.model)
        self._speech = Speech(talker, sampling)
        self._is_spoken = is_spoken
        self._is_written = False  # Gemma has written all of it
        self._wants_to_call = False  # a function, as soon as the answer is wanted
        self._updates: list[Update] = []
        self._steps = self._compute()

    @property
    def draft(self) -> list[int]:
        """Tokens of the question's transcript so far; a later answer may begin with them, if the
        speaker goes on."""
        if not (self._question.spoken and self._talker.conversation.writes_transcripts):
            return []
        ids = [id_ for id_ in self._decoding.ids if id_ not in self._stops]
        length = transcript_length(ids, self._talker.tokenizer)
        return ids[: length - 1] if length else ids

    @property
    def wants_token(self) -> bool:
        """Whether the next to be computed is a token, not a frame."""
        ids = self._decoding.ids
        has_stopped = self._is_written or (bool(ids) and ids[-1] in self._stops)
        return not self._speech.can_speak and not has_stopped

    @property
    def is_waiting(self) -> bool:
        """Whether nothing can be computed before the question has ended: functions are called for
        whole questions only."""
        return self._wants_to_call and not self.is_wanted

    @property
    def has_transcript(self) -> bool:
        """Whether all of the transcript is written, or there will be none."""
        return self._is_written or len(self.draft) < len(self._decoding.ids)

    def take(self) -> list[Update]:
        """What was computed since the last call."""
        updates, self._updates = self._updates, []
        return updates

    def close(self) -> None:
        """Compute no more."""
        self._steps.close()

    def _compute(self) -> Generator[Update | None]:
        """A token or a frame at a time, at last `Ended`; `None` for a token not spoken yet."""
        speech = self._speech
        transcripts: list[str] = []
        called: list[CallResult] = []
        answer = self._talker.answer(
            self._question, self._decoding, on_transcript=transcripts.append,
            on_call=called.append, may_call=self._may_call,
        )  # fmt: skip
        try:
            with closing(answer):
                for tokens in answer:
                    if self._is_spoken:
                        speech.add(tokens)
                    else:
                        speech.ids += tokens.ids_S.tolist()
                    yield Heard(transcripts.pop()) if transcripts else None
                    while called:
                        yield Called(called.pop(0))
                    yield from self._tell()
            self._is_written = True
            if self._is_spoken:
                speech.close()
                yield None  # so that the first frame of the rest is not computed alone either
                yield from self._tell()
        except InputError as error:
            yield Ended(speech.text, str(error))
        else:
            yield Ended(speech.text)

    def _may_call(self) -> bool:
        self._wants_to_call = True
        return self.is_wanted

    def _tell(self) -> Generator[Update]:
        """What can be said of the tokens so far, or has been written."""
        if self._is_spoken:
            for samples_N in self._speech.speak():
                yield Said(samples_N, self._speech.text)
        elif self._speech.ids:
            yield Wrote(self._speech.text)


def compute_a_little(answers: Sequence[BegunAnswer]) -> None:
    """Compute the next token, or the next frame, of every answer: all tokens in one pass, and all
    frames in another.

    Args:
        answers: of the same models, sampled in the same way but for the seed; none is complete.
    """
    speaking = [answer for answer in answers if answer._speech.can_speak]
    writing = [answer for answer in answers if answer.wants_token]
    if speaking:
        speak_together([answer._speech for answer in speaking])
    compute_together([answer._decoding for answer in writing])
    for answer in answers:
        update = next(answer._steps)
        if update is not None:
            answer._updates.append(update)
            answer.is_complete = isinstance(update, Ended)
