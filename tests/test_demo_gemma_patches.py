"""The demo's Gemma without a tower: training ends in a checkpoint that loads like any other."""

import shutil

import pytest
import torch
from conftest import run
from transformers import Gemma4UnifiedForConditionalGeneration

from commands.errors import InputError
from commands.json_files import read_json_lines
from demo.gemma import evaluate as evaluate_gemma
from demo.gemma import train as train_gemma

FEW = ("--kind", "patches", "--steps", 6, "--num-clips", 10, "--num-dev", 2, "--save-every", 2)


@pytest.fixture(scope="module")
def trained(espeak, small_gemma_steps, tmp_path_factory):
    out = tmp_path_factory.mktemp("patches") / "run"
    run(train_gemma.main, "--out", out, *FEW, "--processes", 1)
    return out


def test_training_ends_in_a_stock_checkpoint_in_bfloat16(trained, tmp_path):
    model, report = Gemma4UnifiedForConditionalGeneration.from_pretrained(
        trained / "model", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not (trained / "ear").exists() and not (trained / "align").exists()
    words = ("--gemma", trained / "model", "--num-questions", 2)
    table = run(evaluate_gemma.main, *words, "--out", tmp_path / "test")
    assert "wer_held_out_voices" in table


def test_both_losses_are_learnt(trained):
    rows = [r for r in read_json_lines(trained / "joint" / "metrics.jsonl") if "ear" in r]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    for name in ("ear", "transcription", "typed"):
        assert rows[-1][name] < rows[0][name], name


def test_cut_off_and_resumed_it_ends_the_same(trained, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(trained, cut)
    (cut / "done").unlink()
    shutil.rmtree(cut / "model")
    shutil.rmtree(sorted((cut / "joint" / "checkpoints").iterdir())[-1])
    run(train_gemma.main, "--out", cut, *FEW, "--processes", 1, "--resume")
    weights = [(f / "model" / "model.safetensors").read_bytes() for f in (cut, trained)]
    assert weights[0] == weights[1]


def test_it_does_not_go_on_from_an_earlier_model(trained, tmp_path):
    with pytest.raises(InputError, match="only a model with a tower goes on"):
        run(train_gemma.main, *FEW, "--init-from", trained / "model", "--out", tmp_path / "later")
