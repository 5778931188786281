"""Read cached embeddings, written by `stage1_rvq.embed`, without loading them whole.

    embeddings/shard_00000.safetensors   "frames": bfloat16 [N, D], utterances end to end
               shard_00000.jsonl         one row per utterance: id, text, ..., start, num_frames
               encoder.safetensors       float32 weights of the tower's last norm and of its
                                         projection: "frame_scale" [D], "output_proj" [P, D]

safetensors maps tensors into memory, so 100 hours (18 GB) can be used for training on a laptop:
only frames that are used are read.
"""

# B utterances, T frames (25 per second), D embedding width, N frames

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from commands.device import derive_seed
from commands.errors import InputError
from commands.finished_folder import list_files, open_input, read_provenance
from commands.json_files import read_rows
from commands.origins import Origin
from commands.setting_types import NonNegativeInt, PositiveFloat
from commands.tensor_files import TensorKind, read_tensors, refuse_non_finite_weights
from data_manifests.hash_set import HashSet, hash_text
from gemma4.tower_identity import norm_fingerprint
from stage1_rvq.frame_metric import FrameMetric


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
        utterances: index rows in the manifest's order.
        num_frames: total number of frames.
        dim: embedding width.
        metric: how frames are compared; float32 weights of the tower's last norm and projection.
        name: flag and folder, for messages.
        origin: the audio tower that made them.

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
        self.origin = Origin(
            read_provenance(folder).tower, norm=norm_fingerprint(self.metric.frame_scale_D)
        )
        self._index_paths = list_files(folder, "shard_*.jsonl", flag=flag)
        self.utterances = [
            EmbeddedUtterance(shard=shard, **vars(row))
            for shard, path in enumerate(self._index_paths)
            for row in _read_index(path)
        ]
        refuse_repeated_ids((u.id for u in self.utterances), where=f"{flag} {folder}")
        self.num_frames = sum(u.num_frames for u in self.utterances)

    def read(self, utterance: EmbeddedUtterance) -> Tensor:
        """One utterance's embeddings, float32 `[T, D]`."""
        shard_ND = self._shards[utterance.shard]
        frames_TD = shard_ND[utterance.start : utterance.start + utterance.num_frames].float()
        self._refuse_non_finite(frames_TD)
        return frames_TD

    def gather(self, positions_N: Tensor) -> Tensor:
        """Frames at positions that are counted over all shards: int64 `[N]` -> float32 `[N, D]`."""
        frames_ND = torch.empty(len(positions_N), self.dim)
        shard_of_N = torch.bucketize(positions_N, self._shard_ends, right=True)
        for shard in shard_of_N.unique().tolist():
            here_N = shard_of_N == shard
            first = 0 if shard == 0 else int(self._shard_ends[shard - 1])
            frames_ND[here_N] = self._shards[shard][positions_N[here_N] - first].float()
        self._refuse_non_finite(frames_ND)
        return frames_ND

    def _refuse_non_finite(self, frames_ND: Tensor) -> None:
        refuse_non_finite_weights([("a frame", frames_ND)], where=str(self.folder))

    def sample(self, num_frames: int, seed: int) -> Tensor:
        """Distinct frames sampled from the whole corpus, float32 `[min(num_frames, all), D]`."""
        generator = torch.Generator().manual_seed(seed)
        positions_N = torch.randperm(self.num_frames, generator=generator)[:num_frames]
        return self.gather(positions_N.sort().values)

    @cached_property
    def _shards(self) -> list[Tensor]:
        shards = []
        for shard, index_path in enumerate(self._index_paths):
            num_frames = sum(u.num_frames for u in self.utterances if u.shard == shard)
            kind = TensorKind(torch.bfloat16, (num_frames, self.dim))
            path = index_path.with_suffix(".safetensors")
            shards.append(read_tensors(path, {"frames": kind})["frames"])
        return shards

    @cached_property
    def _shard_ends(self) -> Tensor:
        return torch.tensor([len(shard) for shard in self._shards]).cumsum(0)


def refuse_repeated_ids(ids: Iterable[str], *, where: str) -> None:
    """Raise InputError for a repeated id, because data joined by id would be mixed up."""
    seen = HashSet()
    for id_ in ids:
        if (hashed := hash_text(id_)) in seen:
            raise InputError(f"{where}: id {id_!r} is used twice")
        seen.add(hashed)


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
        self._order = torch.empty(0, dtype=torch.long)

    def at_step(self, step: int) -> Tensor:
        """Positions of the items of step 0, 1, 2, ...: int64 `[batch_size]`."""
        batches_per_epoch = self.num_items // self.batch_size
        epoch, batch = divmod(step, batches_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
            self._order = torch.randperm(self.num_items, generator=generator)
            self._epoch = epoch
        return self._order[batch * self.batch_size : (batch + 1) * self.batch_size]


def pad_frames(frames: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Utterances `[T_i, D]` -> padded `[B, T, D]` and mask `[B, T]`, True at real frames."""
    lengths_B = torch.tensor([len(f) for f in frames])
    padded_BTD = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
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


def _read_index(path: Path) -> list[IndexRow]:
    """The rows of a shard's index, in order; InputError if their frames are not contiguous."""
    rows = list(read_rows(path, IndexRow))
    start = 0
    for number, row in enumerate(rows, start=1):
        if row.start != start:
            raise InputError(f"{path}:{number}: 'start' is {row.start}, expected {start}")
        start += row.num_frames
    return rows
