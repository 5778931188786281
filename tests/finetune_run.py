"""A short fine-tuning, for the tests of stage 3, and what its folder was like at every moment (see
the fixtures `finetune_flags` and `straight`)."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import run

from commands.run_folder import run_folder
from stage1_rvq.codes import code_format
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import RVQConfig, SpeechRVQ
from stage3_finetune import train
from stage3_finetune.dialogue import Dialogue, Turn
from stage3_finetune.dialogue_files import write_spoken_dialogues

SHAPE = RVQConfig(dim=64, num_codebooks=2, codebook_size=16)
NUM_STEPS = 4


@dataclass(frozen=True)
class NoSettings:
    """What `run_folder` writes down here."""


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


def write_dialogues(folder, tiny_models):
    """Eight spoken dialogues and a quantiser; returns the flags of a run of four steps on them."""
    torch.manual_seed(0)
    rvq = SpeechRVQ(SHAPE)
    rvq.init_codebooks(torch.randn(400, 64), FrameMetric(torch.ones(64)))
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


def train_before_a_camera(flags, folder):
    """A run that is left alone, and the camera that saw what killed ones would have left."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        camera = Camera(monkeypatch, folder / "run", folder / "album")
        assert run(train.main, *flags, "--out", folder / "run") == f"{folder / 'run'}\n"
    return folder / "run", camera
