"""TensorBoard reads what a run writes, and a resumed run as one with what was before it."""

import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from commands.errors import WriteError
from commands.event_file import EventFile
from commands.training_log import TrainingLog


def test_tensorboard_reads_a_run_that_was_resumed(tmp_path, monkeypatch):
    with TrainingLog(tmp_path) as log:
        for step in range(1, 5):
            log.log(step, "train", loss=1 / step)
    now_s = time.time() + 1
    monkeypatch.setattr(time, "time", lambda: now_s)  # its files are told apart by the second
    with TrainingLog(tmp_path, first_step=2) as log:
        log.log(3, "train", loss=7.0)
        log.log(3, "dev", loss=8.0)
    read = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(read.Tags()["scalars"]) == ["dev/loss", "train/loss"]
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == [(1, 1), (2, 0.5), (3, 7)]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk as Linux has it")
def test_a_full_disk_is_one_error_with_the_files_name(tmp_path):
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        EventFile(tmp_path, first_step=0) as events,
    ):
        events._records = RecordWriter(full)
        with pytest.raises(WriteError, match=r"cannot write .*tfevents.*: No space left on device"):
            events.write(1, {"train/loss": 1.0})
