"""Training logs: whole lines, the best so far, and the end of a run at the first number that is
none."""

import json
import math

import pytest

from commands.errors import InputError
from commands.training_log import TrainingLog, refuse_non_finite


def test_a_resumed_log_reads_as_if_the_run_had_never_stopped(tmp_path):
    with TrainingLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.log(step, "train", loss=1.0 / step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "split": "tr')  # killed while it wrote
    with TrainingLog(tmp_path, first_step=2) as log:
        log.log(3, "train", loss=0.25)
        assert log.lowest("train", "loss") == 0.25 and log.lowest("dev", "loss") == math.inf
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 0.25)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_never_logged(tmp_path, value):
    with (
        TrainingLog(tmp_path) as log,
        pytest.raises(InputError, match=r"step 7: dev cer is (nan|inf): training has diverged"),
    ):
        log.log(7, "dev", cer=value)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_message_names_step_and_batch():
    refuse_non_finite(3, ["a", "b"], loss=1.0, gradient_norm=0.0)
    with pytest.raises(InputError, match=r"step 3: gradient norm is nan \(batch: a, b, \.\.\.\)"):
        refuse_non_finite(3, ["a", "b"], loss=1.0, gradient_norm=math.nan)
