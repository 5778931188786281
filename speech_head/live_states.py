"""States that Gemma computes when they are asked for, instead of a cache on disk.

A cache holds 30.7 kB a token of E4B: 30 GB for the hundred hours of a large corpus, read once an
epoch. Computed as training goes, states take no disk, but Gemma's memory and time at every step.
They are the ones that `speech_head.states` would have written, rounded alike.
"""

# S answer tokens, L Gemma layers, D width of Gemma

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_manifests.config import InputError
from speech_head.answer import LayersName, answer_states, pick_layers
from speech_head.data import CachedUtterance, HeadExample, StatesFolder
from speech_head.questions import Questions, put_after_question
from stage3_finetune.chat import Conversation


class LiveStates(StatesFolder):
    """A folder of `speech_head.states --no-states`, read as if its states were there."""

    def __init__(
        self,
        folder: Path,
        conversation: Conversation,
        *,
        layers: LayersName = "last_six",
        questions: Questions | None = None,
        flag: str = "--states",
    ) -> None:
        """
        Args:
            folder: tokens, codes and alignment, without states.
            conversation: the Gemma they are of, with its adapter where there is one.
            layers: as `pick_layers`.
            questions: what the texts are put after; None puts all after "Kasa." ("Speak.").
            flag: that named the folder, for messages.

        Raises:
            InputError: as `StatesFolder`; or the folder has states already.
        """
        super().__init__(folder, flag=flag)
        if self.format.layers:
            raise InputError(f"{flag} {folder} has states: leave --on-the-fly away")
        self.format = replace(self.format, layers=pick_layers(layers, conversation.model))
        self._conversation = conversation
        self._questions = questions

    def read_all(self, utterances: Sequence[CachedUtterance]) -> list[HeadExample]:
        """As `StatesFolder.read_all`, in one forward pass of Gemma; InputError where its tokenizer
        is not the one the folder was made with."""
        conversation = self._conversation
        texts = [
            put_after_question(
                utterance.text, utterance.id, conversation.tokenizer, self._questions,
                has_transcripts=conversation.writes_transcripts,
            )
            for utterance in utterances
        ]  # fmt: skip
        answers = answer_states(conversation.model, texts, self.format.layers)
        examples = super().read_all(utterances)
        for utterance, answer, example in zip(utterances, answers, examples, strict=True):
            if len(answer.ids_S) != len(example.embeddings_SD):
                raise InputError(
                    f"--gemma has {len(answer.ids_S)} tokens for {utterance.id}, the Gemma that "
                    f"--states was made with had {len(example.embeddings_SD)}"
                )
        return [
            replace(example, states_SLD=answer.states_SLD.bfloat16().float().cpu())
            for example, answer in zip(examples, answers, strict=True)
        ]
