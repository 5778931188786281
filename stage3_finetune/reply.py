"""What the model writes in reply to a question: its transcript, what it calls, its answer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from stage3_finetune.dialogue import split_chain


@dataclass(frozen=True)
class Reply:
    """What the model wrote: its transcript of a spoken question ("" if none), and the answer."""

    transcript: str
    answer: str


class WrittenReply:
    """What is written in reply to one question, part by part.

    Attributes:
        written: the last part.
        num_rounds: how many parts before it called functions.
    """

    def __init__(self, has_transcript: bool, on_text: Callable[[str], None]) -> None:
        """
        Args:
            has_transcript: whether the model writes a transcript first.
            on_text: called with the answer, piece by piece.
        """
        self._has_transcript = has_transcript
        self._may_be_transcript = has_transcript  # what is written now
        self._on_text = on_text
        self._transcript = self._answer = ""
        self.written = ""
        self.num_rounds = 0

    def begin_part(self) -> None:
        """The model begins to write."""
        self.written = ""

    def add(self, piece: str) -> None:
        """It wrote this."""
        self.written += piece
        if not self._may_be_transcript:
            self._show(piece)
        elif "\n" in self.written.lstrip():
            self._may_be_transcript = False
            transcript, _, rest = self.written.lstrip().partition("\n")
            self._transcript = transcript.strip()
            self._show(rest)

    def end_part(self, text: str, *, is_answer: bool) -> None:
        """It has stopped. Without a line break, what it wrote before a call was a transcript; as an
        answer there was none, and all of the text is shown now.

        Args:
            text: all that it wrote, which may differ from its pieces where they are no valid text.
            is_answer: whether no call follows.
        """
        self.written = text
        if self._may_be_transcript:
            self._may_be_transcript = False
            if is_answer:
                self._show(self.written)
            else:
                self._transcript = self.written.strip()

    def whole(self) -> Reply:
        """All of it."""
        if self.num_rounds:
            return Reply(self._transcript, self._answer.strip())
        split = self._has_transcript
        return Reply(*split_chain(self.written)) if split else Reply("", self.written.strip())

    def _show(self, text: str) -> None:
        self._answer += text
        self._on_text(text)


def text_pieces(tokens: Iterator[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Tokens -> text, once it is final: a character split over byte tokens waits for its last
    one."""
    ids: list[int] = []
    shown = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(shown) :]
            shown = text
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if text != shown:
        yield text[len(shown) :]
