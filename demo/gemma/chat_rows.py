"""Rows the demo's Gemma is trained on: typed dialogues and transcriptions, as token ids.

The same ids as `stage3_finetune.dialogue.encode_dialogue` gives (a test checks it), put together
from pieces, because rendering the chat template takes longer than a training step.
"""

import random
from collections import Counter
from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from data_manifests.twi_text import normalize_for_scoring
from demo.gemma.tokenizer import special_token_ids, text_ids
from demo.world.grammar import Question
from stage3_finetune.data import TRANSCRIBE_PROMPT
from stage3_finetune.dialogue import NO_LABEL, EncodedDialogue

# How often the dialogues of a step have one, two or three questions.
TURN_SHARES = (0.7, 0.2, 0.1)
# Questions typed in lower case without punctuation.
CARELESS_SHARE = 0.15
# Relations count by this power of their number of questions; 0 would make all equal.
BALANCE = 0.8


class RowMaker:
    """Token ids of dialogues, from cached pieces."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """
        Args:
            tokenizer: of the demo's Gemma.
        """
        self.tokenizer = tokenizer
        self.special = special_token_ids(tokenizer)
        self.cache: dict[str, list[int]] = {}
        turn, turn_end = self.special["turn"], self.special["turn_end"]
        self.user = [turn, *self.ids("user\n")]
        self.turn_end = [turn_end, *self.ids("\n")]
        self.model = [turn, *self.ids("model\n")]

    def ids(self, text: str) -> list[int]:
        """Token ids of a text by itself."""
        if text not in self.cache:
            self.cache[text] = text_ids(self.tokenizer, text)
        return self.cache[text]

    def typed(self, turns: Sequence[tuple[str, str]]) -> EncodedDialogue:
        """Typed questions with their answers; learned are the answers."""
        return self._row([(self.ids(question), answer) for question, answer in turns], ())

    def transcription(self, text: str, frames_TD: Tensor) -> EncodedDialogue:
        """A spoken sentence, the request to write it, and the sentence."""
        slots = [self.special["audio"]] * len(frames_TD)
        heard = [self.special["boa"], *slots, self.special["eoa"]]
        return self._row([(heard + self.ids(TRANSCRIBE_PROMPT), text)], (frames_TD,))

    def _row(
        self, turns: Sequence[tuple[list[int], str]], frames: tuple[Tensor, ...]
    ) -> EncodedDialogue:
        ids = [self.special["bos"]]
        labels = [NO_LABEL]
        for question, answer in turns:
            prompt = [*self.user, *question, *self.turn_end, *self.model]
            written = [*self.ids(answer), self.turn_end[0]]
            after = self.turn_end[1:]
            ids += prompt + written + after
            labels += [NO_LABEL] * len(prompt) + written + [NO_LABEL] * len(after)
        return EncodedDialogue(ids, labels, frames)


class TypedDialogues:
    """Random typed dialogues about the demo's world, each relation with its fair share."""

    def __init__(self, questions: Sequence[Question], rows: RowMaker) -> None:
        """
        Args:
            questions: to draw from: those of one split.
            rows: turns them into ids.
        """
        self.questions = questions
        self.rows = rows
        counts = Counter(q.relation for q in questions)
        self.weights = [counts[q.relation] ** (BALANCE - 1) for q in questions]

    def draw(self, num_questions: int, generator: random.Random) -> list[EncodedDialogue]:
        """Dialogues of one, two or three questions, all of a length, so that little is padding.

        Args:
            num_questions: in all dialogues together, about.
            generator: of the length, the questions and the typing.
        """
        (length,) = generator.choices((1, 2, 3), TURN_SHARES)
        count = max(1, num_questions // length)
        return [self.rows.typed(self._turns(length, generator)) for _ in range(count)]

    def _turns(self, length: int, generator: random.Random) -> list[tuple[str, str]]:
        turns = []
        for question in generator.choices(self.questions, self.weights, k=length):
            is_careless = generator.random() < CARELESS_SHARE
            text = normalize_for_scoring(question.text) if is_careless else question.text
            turns.append((text, question.answer))
        return turns
