"""Training rows of the demo's Gemma: typed dialogues and transcriptions, as token ids.

The ids equal those of `stage3_finetune.dialogue.encode_dialogue` (a test checks it), but are built
from cached pieces, because rendering the chat template takes longer than a training step.
"""

import random
from collections import Counter
from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from data_manifests.language import language
from data_manifests.normalization import normalize_for_scoring
from demo.gemma.tokenizer import special_token_ids
from demo.world.grammar import Question
from gemma4.chat_template import EMPTY_THOUGHT, asks_otherwise, text_ids
from stage3_finetune.dialogue import NO_LABEL, EncodedDialogue

# Probabilities that the dialogues of a step have one, two or three questions.
TURN_SHARES = (0.7, 0.2, 0.1)
# Share of questions typed in lower case without punctuation.
CARELESS_SHARE = 0.15
# A relation's weight is its number of questions to this power; 0 would weight all equally.
BALANCE = 0.8


class RowMaker:
    """Token ids of dialogues, from cached pieces."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.special = special_token_ids(tokenizer)
        self.cache: dict[str, list[int]] = {}
        turn, turn_end = self.special["turn"], self.special["turn_end"]
        self.user = [turn, *self.ids("user\n")]
        self.turn_end = [turn_end, *self.ids("\n")]
        self.model = [turn, *self.ids("model\n")]
        # With which the last answer is asked for, and which earlier ones are shown without.
        self.thought = self.ids(EMPTY_THOUGHT) if asks_otherwise(tokenizer) else []

    def ids(self, text: str) -> list[int]:
        """Token ids of a text by itself."""
        if text not in self.cache:
            self.cache[text] = text_ids(self.tokenizer, text)
        return self.cache[text]

    def typed(self, turns: Sequence[tuple[str, str]]) -> EncodedDialogue:
        """Typed questions with their answers; only the answers are labelled, or only the last one
        where the template asks for it in another way than it shows the others."""
        return self._row([(self.ids(question), answer) for question, answer in turns], ())

    def transcription(self, text: str, frames_TD: Tensor) -> EncodedDialogue:
        """A spoken sentence, the request to write it, and the sentence."""
        slots = [self.special["audio"]] * len(frames_TD)
        heard = [self.special["boa"], *slots, self.special["eoa"]]
        return self._row([(heard + self.ids(language().write), text)], (frames_TD,))

    def _row(
        self, turns: Sequence[tuple[list[int], str]], frames: tuple[Tensor, ...]
    ) -> EncodedDialogue:
        ids = [self.special["bos"]]
        labels = [NO_LABEL]
        for number, (question, answer) in enumerate(turns, 1):
            is_last = number == len(turns)
            prompt = [*self.user, *question, *self.turn_end, *self.model]
            prompt += self.thought if is_last else []
            written = [*self.ids(answer), self.turn_end[0]]
            after = self.turn_end[1:]
            ids += prompt + written + after
            learnt = written if is_last or not self.thought else [NO_LABEL] * len(written)
            labels += [NO_LABEL] * len(prompt) + learnt + [NO_LABEL] * len(after)
        return EncodedDialogue(ids, labels, frames)


class TypedDialogues:
    """Random typed dialogues about the demo's world, balanced over its relations."""

    def __init__(self, questions: Sequence[Question], rows: RowMaker) -> None:
        self.questions = questions
        self.rows = rows
        counts = Counter(q.relation for q in questions)
        self.weights = [counts[q.relation] ** (BALANCE - 1) for q in questions]

    def draw(self, num_questions: int, generator: random.Random) -> list[EncodedDialogue]:
        """Dialogues with the same number of questions (one to three), to reduce padding.

        Args:
            num_questions: approximate number of questions in all dialogues together.
            generator: draws the length, the questions and the style of typing.
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
