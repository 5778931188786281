"""What Gemma writes at a time, where it may call functions: text, then calls, or an answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from gemma4.function_calls import CALL, FunctionCall, call_token_id, read_calls
from gemma4.kinds import AnyGemma
from stage3_finetune.dialogue import Turn
from stage3_finetune.generate import stop_ids
from stage3_finetune.tools import CallResult

# A model that calls again and again, and never answers, is stopped after so many times.
MAX_ROUNDS = 4


@dataclass(frozen=True)
class WrittenPart:
    """What a model wrote before it stopped.

    Attributes:
        text: its text, without special tokens.
        calls: what it then called; none if the text is the answer, or its rest.
    """

    text: str
    calls: tuple[FunctionCall, ...] = ()

    def as_turns(self, results: Sequence[CallResult]) -> list[Turn]:
        """The part as turns of the conversation, with what its calls returned."""
        text = [Turn("assistant", self.text)] if self.text else []
        texts = tuple(result.text for result in results)
        return [*text, Turn("assistant", "", calls=self.calls, results=texts)]


def begins_call(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether tokens hold the mark with which a call begins."""
    call = call_token_id(tokenizer, CALL)
    return call is not None and call in ids


def read_part(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, model: AnyGemma
) -> WrittenPart:
    """What a model wrote, as text and calls.

    Args:
        ids: its tokens; the one that ended them may be among them.
        tokenizer: its tokenizer.
        model: it, which names tokens that end what it writes.

    Raises:
        InputError: a call that cannot be read whole.
    """
    stops = stop_ids(tokenizer, model)
    ids = [id_ for id_ in ids if id_ not in stops]
    call = call_token_id(tokenizer, CALL)
    begin = ids.index(call) if call in ids else len(ids)
    text = tokenizer.decode(ids[:begin], skip_special_tokens=True).strip()
    if begin == len(ids):
        return WrittenPart(text)
    written = tokenizer.decode(
        ids[begin:], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    try:
        return WrittenPart(text, tuple(read_calls(written)))
    except InputError as error:
        raise InputError(
            f"Gemma called a function in a wrong way, so none was called: {error}"
        ) from None


def refuse_further_round(num_rounds: int) -> None:
    """Raise InputError if a model has called functions too often without an answer."""
    if num_rounds > MAX_ROUNDS:
        raise InputError(f"Gemma called functions {num_rounds} times and gave no answer")
