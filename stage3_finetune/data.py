"""Training data of stage 3: spoken dialogues on disk, the task mixture, batches.

Spoken dialogues are Parquet, one a row: `id`, `messages` (role, content, spoken, codes). Codes
become embeddings when a row is used, by the quantiser they were made for.
"""

# B rows, S text positions, T frames (25 per second), D embedding width

import heapq
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow
import pyarrow.parquet
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from data_manifests.artifact import open_input
from data_manifests.config import InputError
from stage1_rvq.codes import METADATA_KEY, CodeFormat, refuse_other_format
from stage1_rvq.data import pad_frames
from stage3_finetune.dialogue import (
    NO_LABEL,
    Dialogue,
    EncodedDialogue,
    Target,
    Turn,
    encode_dialogue,
    with_chain_target,
)

Task = Literal["answer", "transcribe", "typed"]
TRANSCRIBE_PROMPT = "Kyerɛw deɛ wote."  # "Write what you hear."


@dataclass(frozen=True)
class TaskMixture:
    """Rows of each task for every answering row.

    Attributes:
        transcribe: spoken turn -> its transcript.
        typed: the same dialogue with its turns typed, so that typed chat is not unlearned.
    """

    transcribe: float
    typed: float


def write_spoken_dialogues(path: Path, dialogues: Sequence[Dialogue], fmt: CodeFormat) -> None:
    """Write spoken dialogues as one Parquet file (aside, then renamed)."""
    message = pyarrow.struct(
        {
            "role": pyarrow.string(),
            "content": pyarrow.string(),
            "spoken": pyarrow.bool_(),
            "codes": pyarrow.list_(pyarrow.list_(pyarrow.int32())),
        }
    )
    schema = pyarrow.schema(
        {"id": pyarrow.string(), "messages": pyarrow.list_(message)},
        metadata={METADATA_KEY: json.dumps(asdict(fmt))},
    )
    rows = [
        {
            "id": dialogue.id,
            "messages": [
                {
                    "role": turn.role,
                    "content": turn.content,
                    "spoken": turn.spoken,
                    "codes": None if turn.codes_TK is None else turn.codes_TK.tolist(),
                }
                for turn in dialogue.turns
            ],
        }
        for dialogue in dialogues
    ]
    aside = path.with_name(path.name + ".tmp")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), aside)
    os.replace(aside, path)


def read_spoken_dialogues(folder: Path, expected: CodeFormat) -> Iterator[Dialogue]:
    """Stream the dialogues of a folder written by `stage3_finetune.speak_dialogues`.

    Args:
        folder: the folder.
        expected: format of the quantiser that will decode them.

    Raises:
        InputError: unfinished folder, nothing in it, or codes of another format.
    """
    open_input(folder, made_by="stage3_finetune.speak_dialogues", flag="--dialogues")
    paths = sorted(folder.glob("dialogues_*.parquet"))
    if not paths:
        raise InputError(f"--dialogues {folder}: no dialogues_*.parquet in it; make it again")
    for path in paths:
        table = pyarrow.parquet.ParquetFile(path)
        found = CodeFormat(**json.loads(table.schema_arrow.metadata[METADATA_KEY]))
        refuse_other_format(found, expected, flag=f"--dialogues {folder}", expected_by="--rvq")
        for batch in table.iter_batches(batch_size=64):
            for row in batch.to_pylist():
                yield Dialogue(row["id"], tuple(_turn(message) for message in row["messages"]))


class SpokenDialogues:
    """Rows of the task mixture, encoded when they are asked for."""

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        tokenizer: PreTrainedTokenizerBase,
        decode: Callable[[Tensor], Tensor],
        *,
        target: Target,
        mixture: TaskMixture,
        seed: int,
    ) -> None:
        """
        Args:
            dialogues: with codes on every spoken turn.
            tokenizer: Gemma's.
            decode: codes `[T, K]` -> embeddings `[T, D]`.
            target: "chain" writes the transcript before the answer.
            mixture: how many rows of the other tasks.
            seed: of which dialogues those are.
        """
        if not dialogues:
            raise InputError("no dialogues to train on")
        self.dialogues = dialogues
        self.tokenizer = tokenizer
        self.decode = decode
        self.target = target
        self.rows: list[tuple[int, Task]] = [(i, "answer") for i in range(len(dialogues))]
        shuffled = random.Random(seed)
        for task, share in (("transcribe", mixture.transcribe), ("typed", mixture.typed)):
            count = round(share * len(dialogues))
            self.rows += [(shuffled.randrange(len(dialogues)), task) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.rows)

    def longest(self) -> int:
        """Positions of the longest row, S; of the likeliest few, for speed.

        A frame of speech takes one position, and a character at most one.
        """

        def bound(index: int) -> int:
            position, task = self.rows[index]
            turns = as_task(self.dialogues[position], task, self.target).turns
            return sum(
                len(turn.codes_TK)
                if turn.spoken and turn.codes_TK is not None
                else len(turn.content)
                for turn in turns
            )

        likeliest = heapq.nlargest(16, range(len(self)), key=bound)
        return max(len(self[index].input_ids) for index in likeliest)

    def __getitem__(self, index: int) -> EncodedDialogue:
        position, task = self.rows[index]
        dialogue = as_task(self.dialogues[position], task, self.target)
        turns = tuple(
            replace(turn, frames_TD=self.decode(turn.codes_TK))
            if turn.spoken and turn.codes_TK is not None
            else turn
            for turn in dialogue.turns
        )
        return encode_dialogue(replace(dialogue, turns=turns), self.tokenizer)


def as_task(dialogue: Dialogue, task: Task, target: Target) -> Dialogue:
    """The dialogue as one task of the mixture sees it."""
    if task == "typed":
        return replace(dialogue, turns=tuple(replace(t, spoken=False) for t in dialogue.turns))
    if task == "transcribe":
        heard = [turn for turn in dialogue.turns if turn.spoken]
        if not heard:
            return dialogue
        question = replace(heard[0], prompt=TRANSCRIBE_PROMPT)
        return replace(dialogue, turns=(question, Turn("assistant", question.content)))
    return with_chain_target(dialogue) if target == "chain" else dialogue


def collate(rows: Sequence[EncodedDialogue], pad_id: int) -> dict[str, Tensor]:
    """Rows -> one padded batch for Gemma.

    Returns:
        `input_ids`, `attention_mask`, `labels` `[B, S]`, padded behind; and, where any row has
        speech, `input_features` float32 `[A, T, D]` and `input_features_mask` bool `[A, T]` of the
        A spoken turns in order.
    """
    length = max(len(row.input_ids) for row in rows)

    def pad(values: list[int], fill: int) -> list[int]:
        return values + [fill] * (length - len(values))

    batch = {
        "input_ids": torch.tensor([pad(row.input_ids, pad_id) for row in rows]),
        "attention_mask": torch.tensor([pad([1] * len(row.input_ids), 0) for row in rows]),
        "labels": torch.tensor([pad(row.labels, NO_LABEL) for row in rows]),
    }
    frames = [frames_TD for row in rows for frames_TD in row.frames]
    if frames:
        batch["input_features"], batch["input_features_mask"] = pad_frames(frames)
    return batch


def _turn(message: dict) -> Turn:
    codes = message["codes"]
    return Turn(
        message["role"],
        message["content"],
        spoken=message["spoken"],
        codes_TK=None if codes is None else torch.tensor(codes, dtype=torch.long),
    )
