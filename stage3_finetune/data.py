"""Training data of stage 3: the rows of spoken dialogues, and batches of them.

When a row is used, its speech becomes frames: codes by the quantiser that they were made for,
recordings by what Gemma hears with.
"""

# B rows, S text positions, T frames (25 per second), D embedding width

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from gemma4.chat_template import asks_otherwise
from gemma4.gemma import FRAME_RATE_HZ
from stage1_rvq.data import pad_frames
from stage3_finetune.dialogue import (
    NO_LABEL,
    Dialogue,
    EncodedDialogue,
    Target,
    Turn,
    encode_dialogue,
)
from stage3_finetune.mixture import (
    TaskMixture,
    as_task,
    draw_rows,
    join_dialogues,
    up_to_each_answer,
)

CHARACTERS_A_TOKEN = 2  # of Twi, about


class SpokenDialogues:
    """Rows of the task mixture, encoded on access."""

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        tokenizer: PreTrainedTokenizerBase,
        hear: Callable[[Turn], Tensor],
        *,
        target: Target,
        mixture: TaskMixture,
        seed: int,
        recordings: Sequence[Dialogue] = (),
    ) -> None:
        """
        Args:
            dialogues: with codes or a recording on every spoken turn. Where the template asks for
                answers in another way than it shows them to later turns, each answer is learnt in
                a row of its own.
            hear: a spoken turn -> its frames `[T, D]`.
            target: "chain" writes the transcript before the answer.
            recordings: a spoken turn each, without an answer, to write down.
        """
        if not dialogues:
            raise InputError("no dialogues to train on")
        for dialogue in dialogues:
            if not any(turn.role == "assistant" for turn in dialogue.turns):
                raise InputError(f"dialogue {dialogue.id!r} has no assistant turn")
        if asks_otherwise(tokenizer):
            dialogues = [part for dialogue in dialogues for part in up_to_each_answer(dialogue)]
        self.dialogues = [*dialogues, *recordings]
        self.tokenizer = tokenizer
        self.hear = hear
        self.target = target
        self.rows = draw_rows(dialogues, mixture, seed, num_recordings=len(recordings))

    def __len__(self) -> int:
        return len(self.rows)

    def id_of(self, index: int) -> str:
        """The id of a row's dialogue; of several, their ids joined by "+"."""
        return "+".join(self.dialogues[position].id for position, _ in self.rows[index])

    def longest(self) -> int:
        """Number of positions S of the longest row.

        For speed, only the 16 rows with the highest upper bound are encoded. The bound counts one
        position per frame of speech and one per character, which takes at most one. Nothing is
        heard: of a recording, the length in its manifest counts.
        """

        likeliest = heapq.nlargest(16, range(len(self)), key=lambda i: self._count(i, 1))
        return max(
            len(self._encode(index, lambda turn: torch.zeros(num_frames(turn), 1)).input_ids)
            for index in likeliest
        )

    def lengths(self) -> list[int]:
        """About how many positions each row takes: none is encoded for it."""
        return [round(self._count(i, CHARACTERS_A_TOKEN)) for i in range(len(self))]

    def __getitem__(self, index: int) -> EncodedDialogue:
        return self._encode(index, self.hear)

    def _encode(self, index: int, hear: Callable[[Turn], Tensor]) -> EncodedDialogue:
        dialogue = self._dialogue(index)
        turns = tuple(
            replace(turn, frames_TD=hear(turn)) if num_frames(turn) else turn
            for turn in dialogue.turns
        )
        return encode_dialogue(replace(dialogue, turns=turns), self.tokenizer)

    def _count(self, index: int, characters_a_token: float) -> float:
        """Positions of a row's turns and tools, without what the chat template adds."""
        dialogue = self._dialogue(index)
        called = [(turn.calls, turn.results) for turn in dialogue.turns if turn.calls]
        of_calls = len(str(called)) + len(str(dialogue.tools)) if dialogue.tools else 0
        return of_calls / characters_a_token + sum(
            num_frames(turn) or len(turn.content) / characters_a_token for turn in dialogue.turns
        )

    def _dialogue(self, index: int) -> Dialogue:
        return join_dialogues(
            [as_task(self.dialogues[i], task, self.target) for i, task in self.rows[index]]
        )


def num_frames(turn: Turn) -> int:
    """How many frames a spoken turn has, of a recording by its manifest at most; 0 if it is not
    spoken."""
    if turn.spoken and turn.codes_TK is not None:
        return len(turn.codes_TK)
    if turn.spoken and turn.recording is not None:
        return math.ceil(turn.recording.duration_s * FRAME_RATE_HZ) + 1
    return 0


def collate(rows: Sequence[EncodedDialogue], pad_id: int) -> dict[str, Tensor]:
    """Rows -> one padded batch for Gemma.

    Returns:
        `input_ids`, `attention_mask`, `labels` `[B, S]`, padded at the end; and, if any row has
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
