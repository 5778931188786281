"""States that Gemma computes on demand, instead of a cache on disk.

A cache takes 30.7 kB per token of E4B: 30 GB for the hundred hours of a large corpus, read once per
epoch. Computed during training, states take no disk space, but Gemma's memory and time at every
step. They equal those that `speech_head.states` would have written, including rounding: a folder
made with `--no-states` records its Gemma, adapter, layers and questions.
"""

# S answer tokens, L Gemma layers, D width of Gemma

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from commands.errors import InputError
from commands.json_files import read_json_as
from commands.origins import refuse_mixture
from commands.setting_types import LocalPath, ModelName, Seed
from gemma4.layer_states import LayersName, pick_layers
from gemma4.weight_quantization import QuantizeName
from speech_head.answer import answer_states
from speech_head.data import CachedUtterance, StatesFolder
from speech_head.head_batch import HeadExample
from speech_head.questions import load_questions, put_after_question
from stage3_finetune.conversation import Conversation, load_conversation


@dataclass(frozen=True)
class MadeWith:
    """The settings of `speech_head.states` that determine its states."""

    gemma: ModelName
    layers: LayersName
    seed: Seed
    finetune: LocalPath | None
    dialogues: LocalPath | None
    rvq: ModelName | None
    quantize: QuantizeName = "none"  # not recorded by older folders, which had no other


def read_made_with(folder: Path) -> MadeWith:
    """Read the settings that determine a folder's states; raises InputError if any is missing."""
    return read_json_as(folder / "config.json", MadeWith, ignore_unknown=True)


class LiveStates(StatesFolder):
    """A folder of `speech_head.states --no-states`, read as if its states were there."""

    def __init__(self, folder: Path, conversation: Conversation, *, flag: str = "--states") -> None:
        """
        Args:
            conversation: the Gemma the folder was made with, and its adapter if there is one.

        `origins` is what all of them belong to, for `refuse_mixture`.

        Raises:
            InputError: as `StatesFolder`; the folder already has states; its questions are gone.
        """
        super().__init__(folder, flag=flag)
        if self.format.layers:
            raise InputError(f"{flag} {folder} has states: omit --on-the-fly")
        made_with = read_made_with(folder)
        layers = pick_layers(made_with.layers, conversation.model)
        self.format = replace(self.format, layers=layers)
        self._conversation = conversation
        self._questions = None
        self.origins = {self.name: self.origin, **conversation.origins}
        if made_with.dialogues:
            dialogues = Path(made_with.dialogues)
            self._questions = load_questions(dialogues, made_with.rvq, seed=made_with.seed)
            self.origins |= self._questions.origins

    def read_all(self, utterances: Sequence[CachedUtterance]) -> list[HeadExample]:
        """As `StatesFolder.read_all`, in one forward pass of Gemma; raises InputError if its
        tokenizer is not the one that the folder was made with."""
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


def load_live_states(
    folder: Path,
    dev_folder: Path | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    allow_mixture: bool,
) -> tuple[LiveStates, LiveStates | None]:
    """Load the Gemma that a folder was made with; open the folder, and the dev folder, with it.

    Both were made by `speech_head.states --no-states`, with the same Gemma and adapter.

    Raises:
        InputError: as `LiveStates`; the two folders were made with different Gemmas; or what they
            were made with is no longer what it was then (unless `allow_mixture`).
    """
    StatesFolder(folder)  # refuse any other folder before Gemma is loaded
    made_with = read_made_with(folder)
    finetune = Path(made_with.finetune) if made_with.finetune else None
    conversation = load_conversation(
        made_with.gemma, finetune, device=device, dtype=dtype, quantize=made_with.quantize
    )
    states = LiveStates(folder, conversation)
    refuse_mixture(states.origins, allowed=allow_mixture)
    if dev_folder is None:
        return states, None
    dev_states = LiveStates(dev_folder, conversation, flag="--dev-states")
    dev_made_with = read_made_with(dev_folder)
    for name in ("gemma", "finetune", "quantize"):
        dev_value, value = getattr(dev_made_with, name), getattr(made_with, name)
        if dev_value != value:
            raise InputError(f"--dev-states has {name} = {dev_value}, --states has {value}")
    return states, dev_states
