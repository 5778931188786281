"""An answer of Gemma while it is written: a transcript, calls of functions, and what is spoken."""

# S answer tokens

from collections.abc import Callable, Generator, Sequence
from itertools import takewhile

import torch
from transformers import PreTrainedTokenizerBase

from data_manifests.normalization import is_speakable
from gemma4.function_calls import FunctionCall
from speech_head.answer import AnswerTokens, WrittenAnswer, answer_states, stream_answer
from stage3_finetune.calling import WrittenPart, begins_call, read_part, refuse_further_round
from stage3_finetune.conversation import Conversation
from stage3_finetune.decoding import Decoding
from stage3_finetune.dialogue import Turn, split_chain
from stage3_finetune.prompt_limits import refuse_long_results
from stage3_finetune.tools import CallResult


class AnswerInParts:
    """An answer that is being written: its parts end where functions are called."""

    def __init__(
        self,
        conversation: Conversation,
        question: Turn,
        decoding: Decoding,
        *,
        layers: Sequence[int],
        cut_long_answers: bool,
        on_transcript: Callable[[str], None],
    ) -> None:
        """
        Args:
            conversation: what was said before the question.
            question: the user's turn; if spoken, with embeddings.
            decoding: of the answer, with the states of some layers.
            layers: those layers, indexed as in `LAYERS`.
            cut_long_answers: close an answer at the longest allowed, instead of raising an error.
            on_transcript: called with the transcript of the question, if there is one.
        """
        self._conversation = conversation
        self._tokenizer = conversation.tokenizer
        self._question = question
        self._decoding = decoding
        self._layers = layers
        self._cut_long_answers = cut_long_answers
        self._on_transcript = on_transcript
        self._known = list(decoding.ids)
        self._written = list(self._known)  # tokens of this part
        self._may_be_transcript = question.spoken and conversation.writes_transcripts
        self._called: list[Turn] = []
        self._num_rounds = 0
        self._last: AnswerTokens | None = None

    def nothing(self) -> AnswerTokens:
        """A piece without tokens."""
        assert self._last is not None
        return self._last.first(0)

    def write_part(self) -> Generator[AnswerTokens, None, tuple[FunctionCall, ...]]:
        """Write until functions are to be called, or to the end, and yield the tokens that are to
        be spoken, as `Talker.answer`. Returns the calls."""
        held_back: list[AnswerTokens] = []
        for tokens in stream_answer(
            self._conversation.model,
            self._tokenizer,
            [*self._conversation.turns, self._question],
            layers=self._layers,
            max_tokens=self._conversation.max_new_tokens,
            cut_long_answers=self._cut_long_answers,
            decoding=self._decoding,
        ):
            self._last = tokens
            self._written += tokens.ids_S.tolist()
            is_call = begins_call(self._written, self._tokenizer)
            if not self._may_be_transcript:
                yield tokens.first(0) if is_call else tokens
                continue
            if transcript_length(tokens.ids_S.tolist(), self._tokenizer):
                self._may_be_transcript, held_back = False, []
                self._on_transcript(self._text().partition("\n")[0].strip())
            else:
                held_back.append(tokens)
            yield self.nothing()
        if self._may_be_transcript and self._known:
            yield self._known_tokens()
        yield from held_back
        return self._written_part().calls

    def _written_part(self) -> WrittenPart:
        return read_part(self._written, self._tokenizer, self._conversation.model)

    def go_on_after(self, results: Sequence[CallResult]) -> None:
        """Let Gemma read what its calls returned; raises InputError as `Talker.answer`."""
        self._num_rounds += 1
        refuse_further_round(self._num_rounds)
        self._called += self._written_part().as_turns(results)
        prompt = self._conversation.prompt([self._question, *self._called])
        refuse_long_results(prompt, self._conversation.model, self._conversation.max_new_tokens)
        self._decoding.go_on_with(prompt)
        self._written, self._known = [], []

    def remember(self) -> None:
        """Add question and answer to the conversation, as far as it is written."""
        text = self._text().strip()
        has_transcript = self._question.spoken and self._conversation.writes_transcripts
        answer = split_chain(text)[1] if has_transcript and not self._called else text
        if is_speakable(answer):
            self._conversation.remember(self._question, text, self._called)

    def _text(self) -> str:
        """Text of this part, up to its first call."""
        ids = list(takewhile(lambda id_: not begins_call([id_], self._tokenizer), self._written))
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _known_tokens(self) -> AnswerTokens:
        """The first tokens of the answer, which were known before it was decoded."""
        ids = self._known
        answer = WrittenAnswer(
            text=self._tokenizer.decode(ids),
            prompt=self._conversation.prompt([self._question]),
            ids_S=torch.tensor(ids),
        )
        [tokens] = answer_states(self._conversation.model, [answer], self._layers)
        return tokens


def transcript_length(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """How many of the tokens written in reply to a spoken question are its transcript and what ends
    it, a line break or the mark of a call (the chain target); 0 without: then all of it is the
    answer."""
    for i, id_ in enumerate(ids):
        if "\n" in tokenizer.decode([id_]) or begins_call([id_], tokenizer):
            return i + 1
    return 0
