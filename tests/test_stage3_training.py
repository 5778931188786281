"""Stage 3 is trained: killed at any change of its folder it ends with the same bytes, and what goes
wrong is one line."""

import math
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import run
from safetensors.torch import load_file, save_file

from commands.errors import InputError, WriteError
from commands.json_files import read_json, read_json_lines
from commands.run_folder import OutputFolder, run_folder
from stage1_rvq.codes import code_format
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ
from stage3_finetune import evaluate, export, train, trainer
from stage3_finetune.data import write_spoken_dialogues
from stage3_finetune.dialogue import Dialogue, Turn
from stage3_finetune.model import load_finetuned

SHAPE = RVQConfig(dim=64, num_codebooks=2, codebook_size=16)
CPU = torch.device("cpu")
NUM_STEPS = 4


@dataclass(frozen=True)
class NoSettings:
    """What `run_folder` writes down here."""


@pytest.fixture(scope="module")
def flags(tiny_models, tmp_path_factory):
    """Flags of a run of four steps, on eight dialogues."""
    folder = tmp_path_factory.mktemp("training")
    torch.manual_seed(0)
    rvq = SpeechRVQ(SHAPE)
    rvq.init_codebooks(torch.randn(400, 64), torch.ones(64))
    rvq.save_pretrained(folder / "rvq")
    made_by = "stage3_finetune.speak_dialogues"
    with run_folder(folder / "spoken", NoSettings(), made_by) as output:
        generator = torch.Generator().manual_seed(0)
        dialogues = []
        for i in range(8):
            codes_TK = torch.randint(16, (5 + i % 3, 2), generator=generator)
            question = Turn("user", f"Baako ne {i}?", spoken=True, codes_TK=codes_TK)
            dialogues.append(Dialogue(f"d{i}", (question, Turn("assistant", f"Mmienu {i}."))))
        path = output.path / "dialogues_00000.parquet"
        write_spoken_dialogues(path, dialogues, code_format(SHAPE))
    return (
        "--dialogues", output.path, "--rvq", folder / "rvq", "--gemma", tiny_models / "gemma",
        "--lora-rank", 2, "--steps", NUM_STEPS, "--save-every", 1, "--batch-size", 2,
        "--accumulate", 1, "--warmup-steps", 1, "--device", "cpu",
    )  # fmt: skip


def content(folder):
    """Every file of a run, by its name, but those that hold times."""
    with_times = ("events.out", "provenance.json", "config.json", "done")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(with_times)
    }


class Camera:
    """Copies a run's folder before each of its renames, and while a file of `torch.save` is half
    written: what `kill -9` would leave there then."""

    def __init__(self, monkeypatch, out, album):
        self.out, self.album, self.names = out, album, []
        replace, save = os.replace, torch.save

        def replace_and_show(source, target):
            if Path(target).is_relative_to(out):
                self.show(f"before {Path(target).relative_to(out)}")
            replace(source, target)

        def save_and_show(value, path, *args, **settings):
            save(value, path, *args, **settings)
            whole = Path(path).read_bytes()
            Path(path).write_bytes(whole[: len(whole) // 2])
            self.show(f"half {Path(path).name} of {Path(path).parent.name}")
            Path(path).write_bytes(whole)

        monkeypatch.setattr(os, "replace", replace_and_show)
        monkeypatch.setattr(torch, "save", save_and_show)

    def show(self, name):
        shutil.copytree(self.out, self.album / str(len(self.names)))
        self.names.append(name)

    def last(self, name):
        return self.album / str(len(self.names) - 1 - self.names[::-1].index(name))


@pytest.fixture(scope="module")
def straight(flags, tmp_path_factory):
    """A run that was left alone, and what killed ones would have left."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as monkeypatch:
        camera = Camera(monkeypatch, folder / "run", folder / "album")
        assert run(train.main, *flags, "--out", folder / "run") == f"{folder / 'run'}\n"
    return folder / "run", camera


@pytest.mark.parametrize(
    "moment",
    [
        "half optimizer.pt of checkpoint-4",
        "before checkpoints/step_000002",
        "before done",
    ],
)
def test_killed_and_resumed_equals_straight(flags, straight, moment, tmp_path):
    folder, camera = straight
    killed = shutil.copytree(camera.last(moment), tmp_path / "killed")
    assert not (killed / "done").exists()
    run(train.main, *flags, "--out", killed, "--resume")
    assert content(killed) == content(folder)
    assert not list(killed.rglob("*.tmp"))
    steps = [row["step"] for row in read_json_lines(killed / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4]


def test_a_run_keeps_its_newest_two_checkpoints(straight):
    names = [path.name for path in sorted((straight[0] / "checkpoints").iterdir())]
    assert names == ["step_000003", "step_000004"]


def test_a_full_disk_is_one_line_and_the_run_goes_on_from_its_last_checkpoint(
    flags, straight, tmp_path, monkeypatch
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
            run(train.main, *flags, "--out", out)
    assert "\n" not in str(caught.value)
    names = [path.name for path in sorted((out / "checkpoints").iterdir())]
    assert names == ["step_000002", "step_000003"]
    with pytest.raises(InputError, match="is unfinished: --resume continues it"):
        run(train.main, *flags, "--out", out)
    run(train.main, *flags, "--out", out, "--resume")
    assert content(out) == content(straight[0])


def test_training_ends_at_the_first_number_that_is_not_finite(flags, tmp_path, monkeypatch):
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
    diverged = "step 3: train grad norm is nan: training has diverged"
    with pytest.raises(InputError, match=diverged) as caught:
        run(train.main, *flags, "--out", out)
    assert "\n" not in str(caught.value) and "--learning-rate" in str(caught.value)
    checkpoints = sorted((out / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step_000001", "step_000002"]
    assert [row["step"] for row in read_json_lines(out / "metrics.jsonl")] == [1, 2]
    assert not (out / "done").exists() and not (out / "adapter").exists()
    tensors = load_file(checkpoints[-1] / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_damaged_checkpoint_is_refused_in_one_line(flags, straight, tmp_path):
    killed = shutil.copytree(straight[1].last("before done"), tmp_path / "killed")
    state = killed / "checkpoints" / "step_000004" / "optimizer.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"optimizer\.pt: cannot be read, cut short\?"):
        run(train.main, *flags, "--out", killed, "--resume")


def first_name(tensors):
    return min(name for name in tensors if "lora_B" in name)


def without_one(tensors):
    return {name: value for name, value in tensors.items() if name != first_name(tensors)}


def one_too_many(tensors):
    return {**tensors, "base_model.model.lm_head.lora_A.weight": torch.zeros(2, 2)}


def one_of_another_shape(tensors):
    return {**tensors, first_name(tensors): tensors[first_name(tensors)][:-1].clone()}


def one_of_integers(tensors):
    return {**tensors, first_name(tensors): tensors[first_name(tensors)].long()}


def one_of_nan(tensors):
    return {**tensors, first_name(tensors): tensors[first_name(tensors)] * math.nan}


@pytest.fixture()
def finetune(straight, tmp_path):
    """A copy of a finished run, to be damaged; and what lists its files anew."""
    folder = shutil.copytree(straight[0], tmp_path / "finetune")
    return folder, OutputFolder(folder, is_done=True).finish


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: {}, r"lacks \d+ of \d+ tensors, e\.g\."),
        (without_one, r"lacks 1 of \d+ tensors"),
        (one_too_many, "holds 1 tensors that do not belong there"),
        (one_of_another_shape, "expected floating-point"),
        (one_of_integers, "is torch.int64"),
        (one_of_nan, "holds NaN or infinity"),
    ],
)
def test_an_adapter_that_is_not_whole_is_refused(finetune, damage, message, tiny_models):
    folder, finish = finetune
    path = folder / "adapter" / "adapter_model.safetensors"
    save_file(damage(load_file(path)), path)
    finish()
    with pytest.raises(InputError, match=f"adapter_model.safetensors: .*{message}") as caught:
        load_finetuned(str(tiny_models / "gemma"), folder, device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"r": 2', '"r": 3', "expected floating-point"),
        ('"r": 2', '"r": "2"', "'r' must be a valid integer"),
        ('"lora_alpha": 64,', "", "has no 'lora_alpha'"),
        ('"use_rslora": false', '"use_rslora": true', "'use_rslora' must be False, got True"),
        ('"peft_type": "LORA"', '"peft_type": "XLORA"', "'peft_type' must be "),
        ("{", "", "not valid JSON"),
    ],
)
def test_settings_that_no_training_wrote_are_refused(finetune, old, new, message, tiny_models):
    folder, finish = finetune
    path = folder / "adapter" / "adapter_config.json"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    finish()
    with pytest.raises(InputError, match=message) as caught:
        load_finetuned(str(tiny_models / "gemma"), folder, device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)


def test_an_adapter_without_its_files_is_refused(finetune, tiny_models):
    folder, finish = finetune
    for name, message in (
        ("adapter_model.safetensors", "cannot be read: No such file"),
        ("adapter_config.json", "No such file"),
    ):
        (folder / "adapter" / name).unlink()
        finish()
        with pytest.raises(InputError, match=message):
            load_finetuned(str(tiny_models / "gemma"), folder, device=CPU, dtype=torch.float32)


def test_an_adapter_answers_in_the_precision_it_is_asked_in(straight, tiny_models):
    """LoRA stays float32 beside a base model of bfloat16, as it was trained."""
    gemma = str(tiny_models / "gemma")
    model, _ = load_finetuned(gemma, straight[0], device=CPU, dtype=torch.bfloat16)
    saved = load_file(straight[0] / "adapter" / "adapter_model.safetensors")
    name = first_name(saved)
    loaded = model.state_dict()[name.replace(".weight", ".default.weight")]
    assert torch.equal(loaded, saved[name]) and model.dtype == torch.bfloat16


def test_where_nothing_can_be_written_is_one_line(flags, straight, tiny_models, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "run"
    with pytest.raises(InputError, match=r"--out .*run cannot be written: .*(Not a|File exists)"):
        run(train.main, *flags, "--out", out)
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
    flags, straight, tiny_models, tmp_path
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
