"""Cached embeddings: what `stage1_rvq.embed` wrote, read without loading it whole.

    embeddings/shard_00000.safetensors   "frames": bfloat16 [N, D], utterances end to end
               shard_00000.jsonl         one row an utterance: id, text, ..., start, num_frames
               encoder.safetensors       "frame_scale": weight of the tower's last norm, float32 [D]

safetensors maps tensors into memory, so 100 hours (18 GB) train on a laptop: only frames that are
used are ever read.
"""

# B utterances, T frames (25 per second), D embedding width, N frames

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from data_manifests.artifact import open_input
from data_manifests.config import InputError
from stage1_rvq.device import derive_seed


@dataclass(frozen=True)
class EmbeddedUtterance:
    """Index row of one cached utterance."""

    id: str
    text: str
    speaker: str
    dialect: str
    duration_s: float
    shard: int
    start: int
    num_frames: int


class EmbeddingFolder:
    """Read access to a folder of cached embeddings.

    Attributes:
        utterances: index rows in the manifest's order.
        num_frames: frames in all.
        dim: embedding width.
        frame_scale_D: float32, weight of the tower's last norm.

    Raises:
        InputError: unfinished, or not an embeddings folder.
    """

    def __init__(self, folder: Path, *, flag: str = "--embeddings") -> None:
        open_input(folder, made_by="stage1_rvq.embed", flag=flag)
        self.folder = folder
        self.frame_scale_D = load_file(folder / "encoder.safetensors")["frame_scale"]
        self.dim = len(self.frame_scale_D)
        self.utterances = [
            EmbeddedUtterance(shard=shard, **json.loads(line))
            for shard, index in enumerate(sorted(folder.glob("shard_*.jsonl")))
            for line in index.read_text(encoding="utf-8").splitlines()
        ]
        self.num_frames = sum(u.num_frames for u in self.utterances)

    def read(self, utterance: EmbeddedUtterance) -> Tensor:
        """One utterance's embeddings, float32 `[T, D]`."""
        shard_ND = self._shards[utterance.shard]
        return shard_ND[utterance.start : utterance.start + utterance.num_frames].float()

    def gather(self, positions_N: Tensor) -> Tensor:
        """Frames at positions counted over all shards: int64 `[N]` -> float32 `[N, D]`."""
        frames_ND = torch.empty(len(positions_N), self.dim)
        shard_of_N = torch.bucketize(positions_N, self._shard_ends, right=True)
        for shard in shard_of_N.unique().tolist():
            here_N = shard_of_N == shard
            first = 0 if shard == 0 else int(self._shard_ends[shard - 1])
            frames_ND[here_N] = self._shards[shard][positions_N[here_N] - first].float()
        return frames_ND

    def sample(self, num_frames: int, seed: int) -> Tensor:
        """Distinct frames drawn over the whole corpus, float32 `[min(num_frames, all), D]`."""
        generator = torch.Generator().manual_seed(seed)
        positions_N = torch.randperm(self.num_frames, generator=generator)[:num_frames]
        return self.gather(positions_N.sort().values)

    @cached_property
    def _shards(self) -> list[Tensor]:
        shards = []
        for path in sorted(self.folder.glob("shard_*.safetensors")):
            with safe_open(path, framework="pt") as file:
                shards.append(file.get_tensor("frames"))
        return shards

    @cached_property
    def _shard_ends(self) -> Tensor:
        return torch.tensor([len(shard) for shard in self._shards]).cumsum(0)


class ShuffledBatches:
    """Which items make up the batch of a given step: every item once an epoch, shuffled by the
    seed.

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
