"""The demo's Gemma without a tower: training ends in a checkpoint that loads like any other."""

import shutil

import pytest
import torch
from conftest import run
from transformers import Gemma4UnifiedForConditionalGeneration

from commands.errors import InputError
from commands.json_files import read_json_lines
from data_manifests.language import language
from demo.gemma import evaluate as evaluate_gemma
from demo.gemma import train as train_gemma
from demo.gemma.model import build_unified_gemma
from demo.gemma.patch_speech import first_layers, spectral_patterns
from demo.gemma.tokenizer import train_tokenizer

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
    assert not (trained / "chat").exists() and not (trained / "align").exists()
    words = ("--gemma", trained / "model", "--num-questions", 2)
    table = run(evaluate_gemma.main, *words, "--out", tmp_path / "test")
    assert "wer_held_out_voices" in table


def test_all_losses_fall(trained):
    ear, joint = (
        [r for r in read_json_lines(trained / phase / "metrics.jsonl") if r["split"] == "train"]
        for phase in ("ear", "joint")
    )
    assert [len(ear), len(joint)] == [3, 3]
    for name in ("ear", "frames", "typed"):  # three steps of a batch each are not yet monotonic
        assert min(row[name] for row in joint) < ear[0][name], name
    assert "transcription" not in ear[0]
    assert joint[-1]["transcription"] < joint[0]["transcription"]


def test_cut_off_and_resumed_it_ends_the_same(trained, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(trained, cut)
    (cut / "done").unlink()
    shutil.rmtree(cut / "model")
    shutil.rmtree(sorted((cut / "joint" / "checkpoints").iterdir())[-1])
    run(train_gemma.main, "--out", cut, *FEW, "--processes", 1, "--resume")
    weights = [(f / "model" / "model.safetensors").read_bytes() for f in (cut, trained)]
    assert weights[0] == weights[1]


def test_the_ear_is_a_part_of_the_whole_decoder():
    """States of the middle layer are the same whether or not the layers after it are computed."""
    sentences = ["Asuo yɛ kɛseɛ.", "Adwoa te Kumase."]
    tokenizer = train_tokenizer([*sentences * 20, language().write], 300)
    gemma = build_unified_gemma(tokenizer, 0)
    ids = torch.tensor([tokenizer(sentences[0]).input_ids])
    decoder = gemma.model.language_model
    middle = decoder.config.num_hidden_layers // 2
    with torch.no_grad():
        whole = decoder(ids, output_hidden_states=True).hidden_states[middle]
        with first_layers(decoder.config, middle):
            half = decoder(ids).last_hidden_state
        assert torch.equal(half, decoder.norm(whole))
        assert decoder.config.num_hidden_layers == 2 * middle


def test_an_embedding_begins_as_pairs_of_waves():
    patterns = spectral_patterns(7, 640, seed=0)
    assert torch.allclose(patterns.norm(dim=1), torch.ones(7))
    spectra = torch.fft.rfft(patterns, 16_000).abs()
    peaks = spectra.argmax(dim=1).tolist()
    for cosine, sine in zip(peaks[:6:2], peaks[1:6:2], strict=True):
        assert abs(cosine - sine) < 40
    assert peaks[::2] == sorted(peaks[::2]) and peaks[0] == 80 and 6500 < peaks[-1] < 7000


def test_a_teacher_has_a_tower(trained, tmp_path):
    words = ("--teacher", trained / "model", "--out", tmp_path / "later")
    with pytest.raises(InputError, match="tower"):
        run(train_gemma.main, *FEW, *words)


def test_it_does_not_go_on_from_an_earlier_model(trained, tmp_path):
    with pytest.raises(InputError, match="only a model with a tower goes on"):
        run(train_gemma.main, *FEW, "--init-from", trained / "model", "--out", tmp_path / "later")
