"""The order of stage 3's rows: of similar length in a step, another in each epoch, and the same
where a run goes on in a later one."""

import json
import shutil

import numpy as np
import torch
from conftest import run
from safetensors.torch import load_file

from stage3_finetune import train
from stage3_finetune.row_order import RowsByLength

WHOLE_EPOCH = ("--batch-size", 8, "--joined-share", 0.3)  # a step's rows are all there are
LENGTHS = np.random.default_rng(0).permutation(np.arange(203)).tolist()


def order_of(epoch, seed=0):
    order = RowsByLength(LENGTHS, 4, seed)
    order.set_epoch(epoch)
    rows = list(order)
    assert len(rows) == len(order) == 200
    return rows


def test_rows_of_a_step_are_similar_in_length_and_each_comes_once():
    rows = order_of(0)
    assert len(set(rows)) == 200
    lengths = np.array([LENGTHS[row] for row in rows]).reshape(-1, 4)
    assert np.ptp(lengths, axis=1).max() < 20  # of 203
    assert (np.diff(lengths.mean(axis=1)) < 0).any()  # but steps are not sorted


def test_epochs_and_seeds_differ_and_come_again():
    assert order_of(0) != order_of(1) != order_of(2)
    assert order_of(1) == order_of(1) and order_of(1) != order_of(1, seed=1)


def test_a_run_that_goes_on_in_a_later_epoch_takes_the_same_rows(finetune_flags, tmp_path):
    """An epoch is one step here, so that every step is one of another epoch."""
    words = (*finetune_flags, *WHOLE_EPOCH, "--steps", 3, "--save-every", 1)
    run(train.main, *words, "--out", tmp_path / "straight")
    run(train.main, *words, "--out", tmp_path / "cut")
    for name in ("adapter", "checkpoints/step_000003"):
        shutil.rmtree(tmp_path / "cut" / name)
    (tmp_path / "cut" / "done").unlink()
    run(train.main, *words, "--out", tmp_path / "cut", "--resume")
    straight, cut = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("straight", "cut")
    )
    assert all(torch.equal(straight[name], cut[name]) for name in straight)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open("rb")]
        for name in ("straight", "cut")
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 3


def test_the_trainer_asks_for_the_order_of_each_epoch(finetune_flags, tmp_path, monkeypatch):
    asked = []
    set_epoch = RowsByLength.set_epoch

    def note(self, epoch):
        asked.append(epoch)
        set_epoch(self, epoch)

    monkeypatch.setattr(RowsByLength, "set_epoch", note)
    run(train.main, *finetune_flags, *WHOLE_EPOCH, "--steps", 3, "--out", tmp_path / "run")
    assert sorted({*asked}) == [0, 1, 2]
