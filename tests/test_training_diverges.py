"""A training run that diverges stops at that step, in one line; what was best before stays."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from conftest import run
from head_world import SMALL

from commands import training
from commands.checkpoint import list_checkpoints
from commands.errors import InputError
from speech_head import train as head_train
from stage1_rvq import train as rvq_train
from stage1_rvq import train_recognizer

STEPS = ("--steps", 4, "--save-every", 2, "--device", "cpu")


def rvq_words(world):
    folder = world / "embedded"
    return (
        "--embeddings", folder, "--dev-embeddings", folder, "--codebook-size", 8,
        "--num-codebooks", 2, "--batch-frames", 64, *STEPS,
    )  # fmt: skip


def rvq_with_task_words(world):
    return (*rvq_words(world), "--recognizer", world / "recognizer")


def recognizer_words(world):
    folder = world / "embedded"
    sizes = ("--num-units", 64, "--width", 16, "--batch-size", 4)
    return ("--embeddings", folder, "--dev-embeddings", folder, *sizes, *STEPS)


def head_words(world):
    folder = world / "states"
    return ("--states", folder, "--dev-states", folder, *SMALL, *STEPS)


# Command, its flags, and the function whose dev figure it is judged by.
COMMANDS = [
    (rvq_train, rvq_words, "measure_on_dev"),
    (train_recognizer, recognizer_words, "read_embeddings"),
    (head_train, head_words, "measure_loss"),
]


def spoil(metrics):
    """The same figures, NaN."""
    if isinstance(metrics, dict):
        return dict.fromkeys(metrics, math.nan)
    names = {"wer", "cer", "relative_error"} & vars(metrics).keys()
    return replace(metrics, **dict.fromkeys(names, math.nan))


@pytest.mark.parametrize(("command", "words", "measure"), COMMANDS)
def test_a_dev_figure_that_is_no_number_does_not_replace_the_best_model(
    command, words, measure, head_world, tmp_path, monkeypatch
):
    measured = getattr(command, measure)
    kept = []

    def measure_then_diverge(*arguments, **keywords):
        path = tmp_path / "run" / "model" / "model.safetensors"
        if (tmp_path / "run" / "checkpoints" / "step_000002").exists():
            kept.append(path.read_bytes())
            return spoil(measured(*arguments, **keywords))
        return measured(*arguments, **keywords)

    monkeypatch.setattr(command, measure, measure_then_diverge)
    with pytest.raises(InputError, match=r"step 4: dev [\w ]+ is nan: training has diverged"):
        run(command.main, *words(head_world), "--out", tmp_path / "run")
    out = tmp_path / "run"
    assert not (out / "done").exists()
    assert [(out / "model" / "model.safetensors").read_bytes()] == kept
    assert [path.name for path in list_checkpoints(out)] == ["step_000002"]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").open(encoding="utf-8")]
    assert all(math.isfinite(row["step"]) for row in rows)


@pytest.mark.parametrize(
    ("command", "words"),
    [(rvq_train, rvq_with_task_words), *((command, words) for command, words, _ in COMMANDS[1:])],
)
def test_a_gradient_that_is_no_number_spoils_no_weight(
    command, words, head_world, tmp_path, monkeypatch
):
    """The loss is sound, the gradient is not: as with some attention kernels in bfloat16."""
    clip, steps = training.clip_grad_norm_, []

    def clip_spoilt(parameters, limit):
        parameters = list(parameters)
        steps.append(None)
        if len(steps) == 3:
            parameters[0].grad[...] = torch.nan
        return clip(parameters, limit)

    monkeypatch.setattr(training, "clip_grad_norm_", clip_spoilt)
    with pytest.raises(InputError) as caught:
        run(command.main, *words(head_world), "--out", tmp_path / "run")
    message = str(caught.value)
    assert re.search(r"step 3: gradient norm is nan \(batch: ", message) and "\n" not in message
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step_000002"]
    assert not (tmp_path / "run" / "done").exists()
