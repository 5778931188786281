"""Folders of embeddings, and any number of frames: rows, frames and batches as in memory."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from commands import table_copies
from commands.errors import InputError
from commands.run_folder import run_folder
from commands.seeds import derive_seed
from data_manifests.manifest import Utterance
from stage1_rvq import data, embed, random_order
from stage1_rvq.data import EmbeddingFolder, ShuffledBatches
from stage1_rvq.random_order import RandomOrder

LENGTHS = ((3, 8, 5), (), (4,), (1, 2, 0, 9))  # frames of the utterances of each shard


def write_folder(out: Path, frames_ND: torch.Tensor, ids: str = "abcdefgh") -> Path:
    config = embed.EmbedConfig(manifest=out / "train.jsonl", out=out)
    first, names = 0, iter(ids)
    with run_folder(out, config, "stage1_rvq.embed"):
        save_file({"frame_scale": torch.ones(4)}, out / "encoder.safetensors")
        for shard, lengths in enumerate(LENGTHS):
            rows = []
            for length in lengths:
                utterance = Utterance(
                    id=next(names), audio="x.wav", text="Ɛyɛ", duration_s=1.0, speaker="s",
                    dialect="asante", corpus="c", split="train", license="CC0-1.0",
                )  # fmt: skip
                rows.append((utterance, frames_ND[first : first + length].bfloat16()))
                first += length
            embed._write_shard(out / f"shard_{shard:05d}.jsonl", rows, dim=4)
    return out


@pytest.fixture
def frames_ND() -> torch.Tensor:
    return torch.randn(sum(map(sum, LENGTHS)), 4).bfloat16().float()


@pytest.mark.parametrize("in_memory_bytes", [0, 10**9])
def test_embeddings_are_read_by_row_and_by_frame(
    tmp_path: Path, frames_ND: torch.Tensor, monkeypatch: pytest.MonkeyPatch, in_memory_bytes: int
) -> None:
    monkeypatch.setattr(table_copies, "IN_MEMORY_BYTES", in_memory_bytes)
    folder = EmbeddingFolder(write_folder(tmp_path / "train", frames_ND))
    assert len(list(tmp_path.glob("train.*.arrow"))) == (in_memory_bytes == 0)
    assert [(u.id, u.shard, u.start, u.num_frames) for u in folder.utterances] == [
        ("a", 0, 0, 3), ("b", 0, 3, 8), ("c", 0, 11, 5), ("d", 2, 0, 4),
        ("e", 3, 0, 1), ("f", 3, 1, 2), ("g", 3, 3, 0), ("h", 3, 3, 9),
    ]  # fmt: skip
    assert folder.utterances[0].text == "Ɛyɛ" and folder.utterances[0].duration_s == 1.0
    assert folder.num_frames == len(frames_ND)
    read_ND = torch.cat([folder.read(u) for u in folder.utterances])
    assert torch.equal(read_ND, frames_ND)
    positions_N = torch.tensor([31, 0, 16, 15, 15, 20, 22, 2])
    assert torch.equal(folder.gather(positions_N), frames_ND[positions_N])
    picks_N = torch.randperm(32, generator=torch.Generator().manual_seed(5))[:10].sort().values
    assert torch.equal(folder.sample(10, seed=5), frames_ND[picks_N])
    assert torch.equal(folder.sample(99, seed=5), frames_ND)


def test_only_shards_that_are_needed_are_opened(
    tmp_path: Path, frames_ND: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    read = data.read_tensors
    monkeypatch.setattr(data, "read_tensors", lambda path, kinds: opened.append(path.stem)
                        or read(path, kinds))  # fmt: skip
    folder = EmbeddingFolder(write_folder(tmp_path / "train", frames_ND))
    folder.gather(torch.tensor([17, 3, 18]))
    folder.gather(torch.tensor([16]))
    assert opened == ["encoder", "shard_00000", "shard_00002"]


def test_a_repeated_id_is_refused(tmp_path: Path, frames_ND: torch.Tensor) -> None:
    with pytest.raises(InputError, match="train: id 'b' is used twice"):
        EmbeddingFolder(write_folder(tmp_path / "train", frames_ND, ids="abcdbfgh"))


@pytest.mark.parametrize("num_items", [1, 2, 5, 1000, 4096, 4097])
def test_a_random_order_holds_every_item_once(
    num_items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random_order, "MAX_LISTED", 0)
    order = RandomOrder(num_items, seed=3)
    whole = order.part(0, num_items)
    assert whole.dtype == torch.int64 and whole.sort().values.tolist() == list(range(num_items))
    assert torch.equal(order.part(num_items // 3, num_items), whole[num_items // 3 :])
    assert torch.equal(RandomOrder(num_items, seed=3).part(0, num_items), whole)
    if num_items >= 1000:
        assert not torch.equal(RandomOrder(num_items, seed=4).part(0, num_items), whole)
        # As uneven as a random order is: neither follows the numbers nor clusters.
        places = torch.arange(num_items, dtype=torch.double)
        assert abs(float(torch.corrcoef(torch.stack([places, whole.double()]))[0, 1])) < 0.1
        steps = whole.diff().abs().double() / num_items
        assert float(steps.mean()) == pytest.approx(1 / 3, abs=0.03)


def test_batches_of_more_items_than_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_order, "MAX_LISTED", 0)
    batches = ShuffledBatches(100, 8, seed=0)
    epochs = [[batches.at_step(12 * epoch + i) for i in range(12)] for epoch in (0, 1)]
    for epoch in epochs:
        assert len(torch.cat(epoch).unique()) == 96
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert torch.equal(ShuffledBatches(100, 8, seed=0).at_step(15), epochs[1][3])


def test_batches_of_few_items_are_those_of_a_drawn_order() -> None:
    generator = torch.Generator().manual_seed(derive_seed(7, "epoch", 1))
    order = torch.randperm(10, generator=generator)
    batches = ShuffledBatches(10, 3, seed=7)
    assert [batches.at_step(3 + i).tolist() for i in range(3)] == [
        order[:3].tolist(), order[3:6].tolist(), order[6:9].tolist(),
    ]  # fmt: skip
