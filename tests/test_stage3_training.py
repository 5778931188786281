"""Stage 3 is trained: killed at any change of its folder it ends with the same bytes, and what goes
wrong is one line."""

import math
import resource
import shutil

import pytest
import torch
from conftest import run
from safetensors.torch import load_file

from commands.errors import InputError, WriteError
from commands.json_files import read_json, read_json_lines
from stage3_finetune import evaluate, export, train, trainer


def content(folder):
    """Every file of a run, by its name, but those that hold times."""
    with_times = ("events.out", "provenance.json", "config.json", "done")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(with_times)
    }


@pytest.mark.parametrize(
    "moment",
    [
        "half optimizer.pt of checkpoint-4",
        "before checkpoints/step_000002",
        "before done",
    ],
)
def test_killed_and_resumed_equals_straight(finetune_flags, straight, moment, tmp_path):
    folder, camera = straight
    killed = shutil.copytree(camera.last(moment), tmp_path / "killed")
    assert not (killed / "done").exists()
    run(train.main, *finetune_flags, "--out", killed, "--resume")
    assert content(killed) == content(folder)
    assert not list(killed.rglob("*.tmp"))
    steps = [row["step"] for row in read_json_lines(killed / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4]


def test_a_run_keeps_its_newest_two_checkpoints(straight):
    names = [path.name for path in sorted((straight[0] / "checkpoints").iterdir())]
    assert names == ["step_000003", "step_000004"]


def test_a_full_disk_is_one_line_and_the_run_goes_on_from_its_last_checkpoint(
    finetune_flags, straight, tmp_path, monkeypatch
):
    out, save = tmp_path / "run", torch.save

    def save_until_full(value, path, *args, **settings):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        is_last = "checkpoint-4" in str(path)
        try:
            if is_last:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            save(value, path, *args, **settings)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_until_full)
        with pytest.raises(WriteError, match=r"cannot write .*step_000004: ") as caught:
            run(train.main, *finetune_flags, "--out", out)
    assert "\n" not in str(caught.value)
    names = [path.name for path in sorted((out / "checkpoints").iterdir())]
    assert names == ["step_000002", "step_000003"]
    with pytest.raises(InputError, match="is unfinished: --resume continues it"):
        run(train.main, *finetune_flags, "--out", out)
    run(train.main, *finetune_flags, "--out", out, "--resume")
    assert content(out) == content(straight[0])


def test_training_ends_at_the_first_number_that_is_not_finite(
    finetune_flags, tmp_path, monkeypatch
):
    """Although transformers would log a NaN loss as the mean of those before it, and train on."""
    build = trainer.build_trainer

    def build_and_spoil(*args, **settings):
        built = build(*args, **settings)
        trained = next(p for p in built.model.parameters() if p.requires_grad)
        trained.register_hook(
            lambda gradient: gradient * math.nan if built.state.global_step == 2 else gradient
        )
        return built

    monkeypatch.setattr(trainer, "build_trainer", build_and_spoil)
    out = tmp_path / "run"
    diverged = r"step 3: train grad norm is nan \(batch: d\d, d\d, ...\): training has diverged"
    with pytest.raises(InputError, match=diverged) as caught:
        run(train.main, *finetune_flags, "--out", out)
    assert "\n" not in str(caught.value) and "--learning-rate" in str(caught.value)
    checkpoints = sorted((out / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step_000001", "step_000002"]
    assert [row["step"] for row in read_json_lines(out / "metrics.jsonl")] == [1, 2]
    assert not (out / "done").exists() and not (out / "adapter").exists()
    tensors = load_file(checkpoints[-1] / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_damaged_checkpoint_is_refused_in_one_line(finetune_flags, straight, tmp_path):
    killed = shutil.copytree(straight[1].last("before done"), tmp_path / "killed")
    state = killed / "checkpoints" / "step_000004" / "optimizer.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"optimizer\.pt: cannot be read, cut short\?"):
        run(train.main, *finetune_flags, "--out", killed, "--resume")


def test_where_nothing_can_be_written_is_one_line(finetune_flags, straight, tiny_models, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "run"
    with pytest.raises(InputError, match=r"--out .*run cannot be written: .*(Not a|File exists)"):
        run(train.main, *finetune_flags, "--out", out)
    words = ("--gemma", tiny_models / "gemma", "--finetune", straight[0])
    with pytest.raises(InputError, match=r"--out .*run cannot be written: .*(Not a|File exists)"):
        run(export.main, *words, "--out", out)


@pytest.mark.parametrize("limit", [20_000, 500_000])
def test_a_disk_that_fills_up_leaves_no_half_export(straight, tiny_models, tmp_path, limit):
    """At the tokenizer, at the weights."""
    words = ("--gemma", tiny_models / "gemma", "--finetune", straight[0])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*[Ff]ile too large") as caught:
            run(export.main, *words, "--out", tmp_path / "repository")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_evaluate_looks_at_the_adapter_before_it_asks_the_base_model(
    finetune_flags, straight, tiny_models, tmp_path
):
    missing = tmp_path / "none"
    words = ("--gemma", tiny_models / "gemma", "--dialogues", missing, "--recordings", missing)
    with pytest.raises(InputError, match=r"--direct-finetune .*none: no such folder"):
        run(
            evaluate.main, *words, "--finetune", straight[0], "--direct-finetune", missing,
            "--out", tmp_path / "metrics",
        )  # fmt: skip
    assert not (tmp_path / "metrics").exists()
    assert read_json(straight[0] / "config.json")["target"] == "chain"


def test_attention_of_cudnn_takes_no_part_in_training(finetune_flags, tmp_path, monkeypatch):
    """Its backward pass gives NaN on H100."""
    step, enabled = trainer.SpeechTrainer.training_step, []

    def note_and_step(*arguments):
        enabled.append(torch.backends.cuda.cudnn_sdp_enabled())
        return step(*arguments)

    monkeypatch.setattr(trainer.SpeechTrainer, "training_step", note_and_step)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    run(train.main, *finetune_flags, "--steps", 1, "--out", tmp_path / "run")
    assert enabled == [False] and torch.backends.cuda.cudnn_sdp_enabled() == before
