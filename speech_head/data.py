"""Cached states written by `speech_head.states`, read without loading them all.

states/shard_00000.safetensors   "states" bfloat16 [N, L, D], "token_ids" int32 [N]: answers end
                                 to end; "codes" int16 [M, K]: recordings end to end;
                                 "cursor" int32 [M + utterances]: F + 1 values of each
       shard_00000.jsonl         one row per utterance: id, text, ..., where its rows are
       embeddings.safetensors    "token_ids" int64 [U], "rows" bfloat16 [U, D]: Gemma's
                                 embeddings of the tokens that occur
       format.json               widths and codebooks
"""

# S answer tokens, F Mimi frames (12.5 per second), K codebooks, L Gemma layers, D width of Gemma

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow
import torch
from torch import Tensor

from commands.errors import InputError
from commands.finished_folder import list_files, open_input, read_provenance
from commands.json_files import read_json_as, read_rows
from commands.mapped_tables import MappedRows, table_schema
from commands.setting_types import (
    CodebookSize,
    LayerPosition,
    LayerWidth,
    NonNegativeInt,
    NumCodebooks,
    PositiveFloat,
    PositiveInt,
)
from commands.table_copies import TableSource, TableWriter, open_table
from commands.tensor_files import TensorKind, read_tensors, refuse_non_finite_weights
from speech_head.alignment import MAX_ADVANCE
from speech_head.head_batch import HeadExample

INDEX_SCHEMA = table_schema(
    {
        **dict.fromkeys(("id", "text", "speaker", "dialect"), pyarrow.string()),
        "duration_s": pyarrow.float64(),
        **dict.fromkeys(("first_token", "num_tokens", "first_frame"), pyarrow.int32()),
        **dict.fromkeys(("num_frames", "shard", "position"), pyarrow.int32()),
    }
)


@dataclass(frozen=True)
class StatesFormat:
    """Properties of the states that a head must be built for.

    Attributes:
        state_width: D.
        layers: the L layers of Gemma whose states are cached, as in `gemma4.layer_states.LAYERS`.
        num_codebooks: K.
        codebook_size: codes per codebook.
        frame_rate_hz: Mimi frames per second.
    """

    state_width: LayerWidth
    layers: list[LayerPosition]
    num_codebooks: NumCodebooks
    codebook_size: CodebookSize
    frame_rate_hz: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """One utterance in the index of its shard; its tokens and frames begin where those of the
    previous row end."""

    id: str
    text: str
    speaker: str
    dialect: str
    duration_s: PositiveFloat
    first_token: NonNegativeInt
    num_tokens: PositiveInt
    first_frame: NonNegativeInt
    num_frames: PositiveInt


@dataclass(frozen=True, kw_only=True)
class CachedUtterance(IndexRow):
    """One cached utterance and its place: the shard, and the row in its index."""

    shard: NonNegativeInt
    position: NonNegativeInt


class StatesFolder:
    """Read access to a folder of cached states.

    Attributes:
        name: flag and folder, for messages.
        origin: the audio tower of the Gemma that made them, and the quantiser of its adapter or of
            the questions.
        sources: what they were made from.
        format: widths and codebooks.
        utterances: index rows in the manifest's order, each read when it is asked for.
        table: the same as columns.
        num_frames_N: int32, Mimi frames of each utterance.
        num_frames: Mimi frames in all.

    Raises:
        InputError: the folder is unfinished or incomplete, or is not a states folder, an index and
            its tensors do not match, or an id is used twice.
    """

    def __init__(self, folder: Path, *, flag: str = "--states") -> None:
        open_input(folder, made_by="speech_head.states", flag=flag)
        self.folder = folder
        self.name = f"{flag} {folder}"
        provenance = read_provenance(folder)
        self.origin, self.sources = provenance.origin, provenance.made_from()
        self.format = read_json_as(folder / "format.json", StatesFormat)
        # As on disk; states that are computed when needed may be of other layers.
        self._num_cached_layers = len(self.format.layers)
        self._index_paths = list_files(folder, "shard_*.jsonl", flag=flag)
        self.table = open_table(
            TableSource(folder, flag, self._index_paths, made_by=None, schema=INDEX_SCHEMA,
                        fill=partial(_fill_index, paths=self._index_paths))
        )  # fmt: skip
        self.utterances = MappedRows(self.table, lambda row: CachedUtterance(**row))
        self.num_frames_N: npt.NDArray[np.int32] = self.table.numbers("num_frames", low=1)
        self.num_frames = int(self.num_frames_N.sum(dtype=np.int64))
        num_shards = len(self._index_paths)
        shard_N = self.table.numbers("shard", low=0, limit=num_shards)
        num_tokens_N = self.table.numbers("num_tokens", low=1)
        # Tokens, frames and rows of each shard.
        self._sizes = [
            np.bincount(shard_N, weights_N, minlength=num_shards).astype(np.int64).tolist()
            for weights_N in (num_tokens_N, self.num_frames_N, None)
        ]
        self._opened: dict[int, dict[str, Tensor]] = {}

    def read_all(self, utterances: Sequence[CachedUtterance]) -> list[HeadExample]:
        """The given utterances, in order, with states and embeddings as float32."""
        return [self.read(utterance) for utterance in utterances]

    def read(self, utterance: CachedUtterance) -> HeadExample:
        """One utterance, in the precision stored on disk."""
        shard = self._shard(utterance.shard)
        tokens = slice(utterance.first_token, utterance.first_token + utterance.num_tokens)
        frames = slice(utterance.first_frame, utterance.first_frame + utterance.num_frames)
        # The cursor has one value more per utterance than there are frames.
        first = utterance.first_frame + utterance.position
        token_ids_U, rows_UD = self._embeddings
        token_ids_S = shard["token_ids"][tokens].long()
        row_S = torch.searchsorted(token_ids_U, token_ids_S).clamp(max=len(token_ids_U) - 1)
        if not torch.equal(token_ids_U[row_S], token_ids_S):
            raise InputError(f"{self.folder}: {utterance.id!r} has a token without an embedding")
        example = HeadExample(
            states_SLD=shard["states"][tokens].float(),
            embeddings_SD=rows_UD[row_S].float(),
            codes_FK=shard["codes"][frames].long(),
            cursor_F=shard["cursor"][first : first + utterance.num_frames + 1].long(),
        )
        where = f"{self.folder}: {utterance.id!r}"
        refuse_non_finite_weights(vars(example).items(), where=where)
        advance_F = example.cursor_F.diff()
        if not 0 <= advance_F.min() <= advance_F.max() <= MAX_ADVANCE:
            raise InputError(f"{where}: a cursor that moves by {advance_F.tolist()}")
        if example.cursor_F[-1] > utterance.num_tokens:
            raise InputError(f"{where}: a cursor beyond its last token")
        return example

    def read_codes(self, utterance: CachedUtterance) -> Tensor:
        """Mimi codes `[F, K]` of an utterance, int64."""
        first = utterance.first_frame
        codes_NK = self._shard(utterance.shard)["codes"]
        return codes_NK[first : first + utterance.num_frames].long()

    def _shard(self, shard: int) -> dict[str, Tensor]:
        """A shard's tensors, mapped into memory when they are first needed."""
        if shard not in self._opened:
            path = self._index_paths[shard].with_suffix(".safetensors")
            self._opened[shard] = self._read_shard(path, *(sizes[shard] for sizes in self._sizes))
        return self._opened[shard]

    def _read_shard(
        self, path: Path, num_tokens: int, num_frames: int, num_rows: int
    ) -> dict[str, Tensor]:
        fmt = self.format
        states = (num_tokens, self._num_cached_layers, fmt.state_width)
        shard = read_tensors(
            path,
            {
                "states": TensorKind(torch.bfloat16, states),
                "token_ids": TensorKind(torch.int32, (num_tokens,)),
                "codes": TensorKind(torch.int16, (num_frames, fmt.num_codebooks)),
                "cursor": TensorKind(torch.int32, (num_frames + num_rows,)),
            },
        )
        for name, limit in (("codes", fmt.codebook_size), ("cursor", num_tokens)):
            low, high = int(shard[name].min()), int(shard[name].max())
            if low < 0 or high >= limit:
                raise InputError(f"{path}: {name!r} has {low} to {high}, expected 0 to {limit - 1}")
        return shard

    @cached_property
    def _embeddings(self) -> tuple[Tensor, Tensor]:
        path = self.folder / "embeddings.safetensors"
        rows = TensorKind(torch.bfloat16, (None, self.format.state_width))
        table = read_tensors(path, {"token_ids": TensorKind(torch.int64, (None,)), "rows": rows})
        if len(table["token_ids"]) != len(table["rows"]):
            raise InputError(f"{path}: not as many rows as token ids")
        if not len(table["rows"]):
            raise InputError(f"{path}: no embedding in it")
        return table["token_ids"], table["rows"]


def refuse_other_states(found: StatesFormat, expected: StatesFormat, *, flag: str) -> None:
    """Raise InputError if a second folder of states does not match the first."""
    for name, value in asdict(expected).items():
        if asdict(found)[name] != value:
            raise InputError(f"{flag} has {name} = {asdict(found)[name]}, --states has {value}")


def _fill_index(writer: TableWriter, *, paths: Sequence[Path]) -> str:
    for shard, path in enumerate(paths):
        rows = [
            {**vars(row), "shard": shard, "position": position}
            for position, row in enumerate(_read_index(path))
        ]
        writer.write([[row[name] for row in rows] for name in INDEX_SCHEMA.names])
        writer.progress.update(path.stat().st_size)
    return "{}"


def _read_index(path: Path) -> list[IndexRow]:
    """The rows of a shard's index; raises InputError if their tokens or frames leave gaps."""
    rows = list(read_rows(path, IndexRow))
    token, frame = 0, 0
    for number, row in enumerate(rows, start=1):
        if (row.first_token, row.first_frame) != (token, frame):
            raise InputError(
                f"{path}:{number}: begins at token {row.first_token} and frame {row.first_frame}, "
                f"expected {token} and {frame}"
            )
        token, frame = token + row.num_tokens, frame + row.num_frames
    return rows
