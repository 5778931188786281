"""Training data of stage 3: spoken dialogues on disk, their rows, batches.

Spoken dialogues are stored as Parquet, one per row: `id`, `messages` (role, content, spoken,
codes). When a row is used, the quantiser that its codes were made for decodes them to embeddings.
Where dialogues call functions, the rows have `tools` too, and the messages `tool_calls` and what
belongs to them; in JSON, because arguments differ from call to call.
"""

# B rows, S text positions, T frames (25 per second), D embedding width

import heapq
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from commands.finished_folder import list_files, open_input, read_provenance
from commands.origins import UNKNOWN, Origin
from commands.parquet_files import (
    CodeFormat,
    read_batches,
    read_codes_column,
    read_origins,
    read_parquet_format,
    write_parquet,
)
from commands.sources import Sources, known
from gemma4.chat_template import asks_otherwise
from gemma4.gemma import FRAME_RATE_HZ
from stage1_rvq.codes import refuse_other_format
from stage1_rvq.data import pad_frames
from stage3_finetune.dialogue import (
    NO_LABEL,
    Dialogue,
    EncodedDialogue,
    Target,
    Turn,
    as_messages,
    encode_dialogue,
)
from stage3_finetune.dialogue_rows import parse_dialogue
from stage3_finetune.mixture import (
    TaskMixture,
    as_task,
    draw_rows,
    join_dialogues,
    up_to_each_answer,
)

DIALOGUES_NAME = "dialogues_{:05d}.parquet"  # of a shard, by its number

TOOLS = "tools"  # the column of declared functions, where there are any
CHARACTERS_A_TOKEN = 2  # of Twi, about


def dialogue_schema(
    fmt: CodeFormat,
    origin: Origin = UNKNOWN,
    sources: Sources | None = None,
    *,
    has_tools: bool = False,
) -> pyarrow.Schema:
    """Columns of a file of spoken dialogues, and what it says of their codes; with those of calls
    of functions, as JSON, if any dialogue of its folder declares tools."""
    called = ("tool_calls", "tool_call_id", "name") if has_tools else ()
    message = pyarrow.struct(
        {
            "role": pyarrow.string(),
            "content": pyarrow.string(),
            "spoken": pyarrow.bool_(),
            "codes": pyarrow.list_(pyarrow.list_(pyarrow.int32())),
            **dict.fromkeys(called, pyarrow.string()),
        }
    )
    columns = {"id": pyarrow.string(), "messages": pyarrow.list_(message)}
    fields = [pyarrow.field(name, type_, nullable=False) for name, type_ in columns.items()]
    fields += [pyarrow.field(TOOLS, pyarrow.string())] if has_tools else []
    return pyarrow.schema(fields, metadata=fmt.as_metadata(origin, known(sources)))


def write_spoken_dialogues(
    path: Path,
    dialogues: Sequence[Dialogue],
    fmt: CodeFormat,
    origin: Origin = UNKNOWN,
    sources: Sources | None = None,
    *,
    has_tools: bool = False,
) -> None:
    """Write spoken dialogues as one Parquet file (to a temporary file, then renamed).

    Args:
        origin: the audio tower and the quantiser that the codes belong to.
        sources: what the dialogues and their codes were made from; None if that is not known.
        has_tools: whether any dialogue of the folder declares tools.
    """
    rows = [
        {"id": d.id, "messages": _as_rows(d), TOOLS: json.dumps(d.tools, ensure_ascii=False)}
        for d in dialogues
    ]
    schema = dialogue_schema(fmt, origin, sources, has_tools=has_tools)
    write_parquet(path, pyarrow.Table.from_pylist(rows, schema=schema))


def _as_rows(dialogue: Dialogue) -> list[dict[str, Any]]:
    """A dialogue's messages as `dialogue_schema` has them."""
    rows: list[dict[str, Any]] = []
    for turn in dialogue.turns:
        codes = None if turn.codes_TK is None else turn.codes_TK.tolist()
        said = {"role": turn.role, "content": turn.content, "spoken": turn.spoken, "codes": codes}
        if not turn.calls:
            rows.append(said)
            continue
        calling, *results = as_messages([turn])
        calls = json.dumps(calling["tool_calls"], ensure_ascii=False)
        rows += [said | {"tool_calls": calls}, *({"spoken": False, **row} for row in results)]
    return rows


def read_spoken_dialogues(folder: Path, expected: CodeFormat) -> Iterator[Dialogue]:
    """Stream the dialogues of a folder written by `stage3_finetune.speak_dialogues`.

    Args:
        expected: format of the quantiser that will decode them.

    Raises:
        InputError: the folder is unfinished, changed or empty, the codes have another format, a row
            is not a dialogue, a spoken turn has no codes, or an id is used twice.
    """
    open_input(folder, made_by="stage3_finetune.speak_dialogues", flag="--dialogues")
    ids: set[str] = set()
    for path in list_files(folder, "dialogues_*.parquet", flag="--dialogues"):
        found = read_parquet_format(path, flag="--dialogues")
        refuse_other_format(found, expected, flag=f"--dialogues {folder}", expected_by="--rvq")
        has_tools = TOOLS in pyarrow.parquet.read_schema(path).names
        schema = dialogue_schema(expected, has_tools=has_tools)
        for batch in read_batches(path, schema, flag="--dialogues"):
            codes = _read_codes_of_turns(batch.column("messages"), expected, where=str(path))
            for row in batch.to_pylist():
                where = f"--dialogues {path}: {row['id']!r}"
                if row["id"] in ids:
                    raise InputError(f"{where} is the id of an earlier dialogue too")
                ids.add(row["id"])
                yield _with_codes(row, codes, where=where)


def read_dialogues_origins(folder: Path) -> dict[str, Origin]:
    """What the codes of such a folder were made with, as `read_origins` gives it."""
    files = list_files(folder, "dialogues_*.parquet", flag="--dialogues")
    return read_origins(files, flag="--dialogues", path=folder)


def read_dialogues_sources(folder: Path) -> Sources:
    """What the dialogues of such a folder, and their codes, were made from."""
    return read_provenance(folder).made_from()


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


def _read_codes_of_turns(
    messages: pyarrow.ListArray, fmt: CodeFormat, *, where: str
) -> Iterator[Tensor | None]:
    """Yield the codes of each turn of a batch of dialogues; None for a turn without codes."""
    codes = pyarrow.compute.struct_field(messages.flatten(), "codes")
    present = iter(read_codes_column(codes.drop_null(), fmt, where=f"--dialogues {where}"))
    return (next(present) if is_there else None for is_there in codes.is_valid().to_pylist())


def _with_codes(row: dict[str, Any], codes: Iterator[Tensor | None], *, where: str) -> Dialogue:
    messages = [{k: v for k, v in (m or {}).items() if k != "codes"} for m in row["messages"]]
    try:
        dialogue = parse_dialogue(
            {"id": row["id"], "messages": messages, TOOLS: row.get(TOOLS)}, default_id=""
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    of_messages = [next(codes) for _ in messages]
    of_turns = (
        codes_TK
        for codes_TK, message in zip(of_messages, messages, strict=True)
        if message["role"] != "tool"  # a result of a function, which is part of another turn
    )
    turns = tuple(
        replace(turn, codes_TK=codes_TK)
        for turn, codes_TK in zip(dialogue.turns, of_turns, strict=True)
    )
    if any(turn.spoken and (turn.codes_TK is None or not len(turn.codes_TK)) for turn in turns):
        raise InputError(f"{where} has a spoken turn without codes")
    return replace(dialogue, turns=turns)
