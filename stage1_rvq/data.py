"""Read cached embeddings, written by `stage1_rvq.embed`, without loading them whole.

    embeddings/shard_00000.safetensors   "frames": bfloat16 [N, D], utterances end to end
               shard_00000.jsonl         one row per utterance: id, text, ..., start, num_frames
               encoder.safetensors       float32 weights of the tower's last norm and of its
                                         projection: "frame_scale" [D], "output_proj" [P, D]

safetensors maps tensors into memory, so 100 hours (18 GB) can be used for training on a laptop:
only frames that are used are read. The rows of a large corpus are checked once, and read from a
copy that is mapped into memory too (`commands/table_copies.py`).
"""

# B utterances, T frames (25 per second), D embedding width, N frames

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow
import torch
from torch import Tensor

from commands.errors import InputError
from commands.finished_folder import list_files, open_input, read_provenance
from commands.json_files import read_rows
from commands.mapped_tables import MappedRows, table_schema
from commands.origins import Origin
from commands.seeds import derive_seed
from commands.setting_types import NonNegativeInt, PositiveFloat
from commands.sources import SourceOfShard, Sources, known, merge
from commands.table_copies import TableSource, TableWriter, open_table
from commands.tensor_files import TensorKind, read_tensors, refuse_non_finite_weights
from gemma4.tower_identity import norm_fingerprint
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.random_order import RandomOrder

INDEX_SCHEMA = table_schema(
    {
        **dict.fromkeys(("id", "text", "speaker", "dialect"), pyarrow.string()),
        "duration_s": pyarrow.float64(),
        **dict.fromkeys(("start", "num_frames", "shard"), pyarrow.int32()),
    }
)


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """One utterance in the index of its shard; its frames begin where those of the previous row
    end."""

    id: str
    text: str
    speaker: str
    dialect: str
    duration_s: PositiveFloat
    start: NonNegativeInt
    num_frames: NonNegativeInt


@dataclass(frozen=True, kw_only=True)
class EmbeddedUtterance(IndexRow):
    """One cached utterance, and the shard it is in."""

    shard: NonNegativeInt


class EmbeddingFolder:
    """Read access to a folder of cached embeddings.

    Attributes:
        utterances: index rows in the manifest's order, each read when it is asked for.
        table: the same as columns.
        num_frames_N: int32, frames of each utterance.
        num_frames: total number of frames.
        dim: embedding width.
        metric: how frames are compared; float32 weights of the tower's last norm and projection.
        name: flag and folder, for messages.
        origin: the audio tower that made them.
        sources: what they were made from.

    Raises:
        InputError: unfinished or no longer intact, not an embeddings folder, an index that does not
            fit its frames, or a repeated id.
    """

    def __init__(self, folder: Path, *, flag: str = "--embeddings") -> None:
        open_input(folder, made_by="stage1_rvq.embed", flag=flag)
        self.folder = folder
        self.name = f"{flag} {folder}"
        self.metric = _read_metric(folder / "encoder.safetensors")
        self.dim = len(self.metric.frame_scale_D)
        provenance = read_provenance(folder)
        self.sources = provenance.made_from()
        self.origin = Origin(provenance.tower, norm=norm_fingerprint(self.metric.frame_scale_D))
        self._index_paths = list_files(folder, "shard_*.jsonl", flag=flag)
        self.table = open_table(
            TableSource(folder, flag, self._index_paths, made_by=None, schema=INDEX_SCHEMA,
                        fill=partial(_fill_index, paths=self._index_paths))
        )  # fmt: skip
        self.utterances = MappedRows(self.table, lambda row: EmbeddedUtterance(**row))
        self.num_frames_N: npt.NDArray[np.int32] = self.table.numbers("num_frames", low=0)
        num_shards = len(self._index_paths)
        shard_N = self.table.numbers("shard", low=0, limit=num_shards)
        in_shard_N = np.bincount(shard_N, self.num_frames_N, minlength=num_shards)
        self._shard_ends = torch.from_numpy(in_shard_N.astype(np.int64)).cumsum(0)
        self.num_frames = int(self._shard_ends[-1])
        self._opened: dict[int, Tensor] = {}

    def read(self, utterance: EmbeddedUtterance) -> Tensor:
        """One utterance's embeddings, float32 `[T, D]`."""
        shard_ND = self._shard(utterance.shard)
        frames_TD = shard_ND[utterance.start : utterance.start + utterance.num_frames].float()
        if len(frames_TD) != utterance.num_frames:
            raise self.table.damaged()
        self._refuse_non_finite(frames_TD)
        return frames_TD

    def sources_by_shard(self) -> dict[int, Sources]:
        """What the embeddings of each shard were made from."""
        path = self.folder / "sources.jsonl"
        found: dict[int, list[SourceOfShard]] = {n: [] for n in range(len(self._index_paths))}
        if not path.exists():  # of an older version
            return dict.fromkeys(found, known(None))
        for source in read_rows(path, SourceOfShard):
            found.setdefault(source.shard, []).append(source)
        return {shard: merge(sources or known(None)) for shard, sources in found.items()}

    def gather(self, positions_N: Tensor) -> Tensor:
        """Frames at positions that are counted over all shards: int64 `[N]` -> float32 `[N, D]`."""
        frames_ND = torch.empty(len(positions_N), self.dim)
        sorted_N, order_N = positions_N.sort()
        ends = torch.searchsorted(sorted_N, self._shard_ends)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        for shard in (ends > starts).nonzero().flatten().tolist():
            here = slice(int(starts[shard]), int(ends[shard]))
            shard_ND, end = self._shard(shard), int(self._shard_ends[shard])
            rows_N = sorted_N[here] - (end - len(shard_ND))
            frames_ND[order_N[here]] = shard_ND[rows_N].float()
        self._refuse_non_finite(frames_ND)
        return frames_ND

    def _refuse_non_finite(self, frames_ND: Tensor) -> None:
        refuse_non_finite_weights([("a frame", frames_ND)], where=str(self.folder))

    def sample(self, num_frames: int, seed: int) -> Tensor:
        """Distinct frames sampled from the whole corpus, float32 `[min(num_frames, all), D]`."""
        order = RandomOrder(self.num_frames, seed)
        return self.gather(order.part(0, min(num_frames, self.num_frames)).sort().values)

    def _shard(self, shard: int) -> Tensor:
        """A shard's frames, mapped into memory when they are first needed."""
        if shard not in self._opened:
            before = int(self._shard_ends[shard - 1]) if shard else 0
            kind = TensorKind(torch.bfloat16, (int(self._shard_ends[shard]) - before, self.dim))
            path = self._index_paths[shard].with_suffix(".safetensors")
            self._opened[shard] = read_tensors(path, {"frames": kind})["frames"]
        return self._opened[shard]


class ShuffledBatches:
    """The items in the batch of a given step: every item once an epoch, shuffled by the seed.

    A pure function of (seed, step), so that a resumed run continues with the batches it would have
    seen.
    """

    def __init__(self, num_items: int, batch_size: int, seed: int) -> None:
        if num_items == 0:
            raise InputError("nothing to train on: no items")
        self.num_items = num_items
        self.batch_size = min(batch_size, num_items)
        self.seed = seed
        self._epoch = -1
        self._order = RandomOrder(0, 0)

    def at_step(self, step: int) -> Tensor:
        """Positions of the items of step 0, 1, 2, ...: int64 `[batch_size]`."""
        batches_per_epoch = self.num_items // self.batch_size
        epoch, batch = divmod(step, batches_per_epoch)
        if epoch != self._epoch:
            self._order = RandomOrder(self.num_items, derive_seed(self.seed, "epoch", epoch))
            self._epoch = epoch
        return self._order.part(batch * self.batch_size, (batch + 1) * self.batch_size)


def pad_frames(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Utterances `[T_i, D]` -> padded `[B, T, D]` and mask `[B, T]`, True at real frames."""
    lengths_B = torch.tensor([len(f) for f in frames])
    padded_BTD = torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    mask_BT = torch.arange(padded_BTD.shape[1]) < lengths_B[:, None]
    return padded_BTD, mask_BT


def iterate_batches(num_items: int, batch_size: int) -> Iterator[range]:
    """Consecutive ranges of at most `batch_size` items."""
    for start in range(0, num_items, batch_size):
        yield range(start, min(start + batch_size, num_items))


def _read_metric(path: Path) -> FrameMetric:
    kinds = {
        "frame_scale": TensorKind(torch.float32, (None,)),
        # Folders of earlier versions lack it.
        "output_proj": TensorKind(torch.float32, (None, None), is_optional=True),
    }
    tensors = read_tensors(path, kinds)
    refuse_non_finite_weights(tensors.items(), where=str(path))
    scale_D, proj_PD = tensors["frame_scale"], tensors.get("output_proj")
    if proj_PD is not None and proj_PD.shape[1] != len(scale_D):
        raise InputError(f"{path}: output_proj takes {proj_PD.shape[1]}, frames are {len(scale_D)}")
    return FrameMetric(scale_D, proj_PD)


def _fill_index(writer: TableWriter, *, paths: Sequence[Path]) -> str:
    for shard, path in enumerate(paths):
        rows = [{**vars(row), "shard": shard} for row in _read_index(path)]
        writer.write([[row[name] for row in rows] for name in INDEX_SCHEMA.names])
        writer.progress.update(path.stat().st_size)
    return "{}"


def _read_index(path: Path) -> list[IndexRow]:
    """The rows of a shard's index, in order; InputError if their frames are not contiguous."""
    rows = list(read_rows(path, IndexRow))
    start = 0
    for number, row in enumerate(rows, start=1):
        if row.start != start:
            raise InputError(f"{path}:{number}: 'start' is {row.start}, expected {start}")
        start += row.num_frames
    return rows
