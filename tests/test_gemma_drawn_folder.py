"""Folders of `gemma4.draw_checkpoint`: laid out as the hub's, read by what reads those."""

import shutil

import numpy as np
import pytest
import torch
from conftest import run
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import AutoTokenizer

from commands.errors import InputError, WriteError
from gemma4 import draw_checkpoint
from gemma4.chat_template import EXAMPLE, refuse_unusable_template, render_chat
from gemma4.gemma import load_audio_encoder, load_gemma
from gemma4.matched_gemma import checkpoint_shapes, planned_tensors
from gemma4.plain_tokenizer import SPECIAL_TOKENS, published_chat_template
from gemma4.true_shapes import (
    SPECIAL_IDS,
    TINY_SPECIAL_IDS,
    TINY_VOCABULARY_SIZE,
    tiny_config,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny():
    return planned_tensors(tiny_config())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "tiny"
    run(draw_checkpoint.main, "--size", "tiny", "--out", out)
    return out / "model"


def test_the_folder_is_laid_out_as_the_hubs(folder):
    assert {path.name for path in folder.iterdir()} == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    model, tokenizer = load_gemma(str(folder), device=CPU, dtype=torch.float32)
    assert model.left_over_tensors == []  # keys and values of others are ignored as intended
    assert set(load_file(folder / "model.safetensors")) == set(checkpoint_shapes(tiny_config()))
    assert len(tokenizer) == model.config.text_config.vocab_size == TINY_VOCABULARY_SIZE
    eos = [TINY_SPECIAL_IDS["eos"], TINY_SPECIAL_IDS["turn_end"]]
    assert model.generation_config.eos_token_id == model.config.eos_token_id == eos
    ids = tokenizer(render_chat(EXAMPLE[3:4], tokenizer, asks=True), return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert written.shape[1] > ids.shape[1]
    scalars = [layer.layer_scalar.item() for layer in model.model.language_model.layers]
    assert scalars[0] == pytest.approx(0.01782, rel=4e-3) and max(scalars) < 0.9


def test_processor_config_alone_gives_the_feature_extractor(folder):
    encoder = load_audio_encoder(str(folder), device=CPU, dtype=torch.float32)
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    [frames_TD] = encoder.encode([noise])
    assert frames_TD.shape == (25, 64) and frames_TD.isfinite().all()
    limits = dict(encoder.tower.named_buffers())
    assert limits["layers.0.feed_forward1.ffw_layer_1.input_max"].item() == 12.8125
    size = frames_TD.std(dim=0)
    assert size.max() > 20 * size.min()  # dimensions are uneven


def test_an_audio_tower_alone_is_an_extracted_encoder(folder, tmp_path):
    run(draw_checkpoint.main, "--size", "tiny", "--parts", "audio", "--out", tmp_path / "tower")
    whole, alone = (
        load_audio_encoder(str(path), device=CPU, dtype=torch.float32)
        for path in (folder, tmp_path / "tower" / "model")
    )
    noise = 0.1 * np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    assert torch.equal(whole.encode([noise])[0], alone.encode([noise])[0])


def test_too_small_a_disk_is_refused_and_a_full_one_is_one_line(tmp_path, monkeypatch, tiny):
    out = tmp_path / "drawn"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**8))
    with pytest.raises(InputError, match=r"--out .*drawn: 0\.1 GB needed on this disk, 0\.1 GB"):
        run(draw_checkpoint.main, "--size", "tiny", "--out", out)
    monkeypatch.undo()
    full = {name: tiny[name] for name in list(tiny)[:3]}
    with tqdm(disable=True) as bar, pytest.raises(WriteError, match="No space left on device"):
        monkeypatch.setattr(draw_checkpoint, "_little_endian", refuse)
        draw_checkpoint.write_safetensors(
            tmp_path / "x", full, {n: n for n in full}, 0, torch.float32, bar
        )
    assert not list(tmp_path.glob("x*"))
    monkeypatch.undo()
    run(draw_checkpoint.main, "--size", "tiny", "--out", out, "--resume")
    assert (out / "done").exists()


def refuse(*_):
    raise OSError(28, "No space left on device")


# The tokenizer and its template.


@pytest.mark.parametrize("revision", ["", "_v2", "_v3", "_v4", "_v5"])
def test_every_revision_of_the_published_template_is_used_alike(folder, revision):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = published_chat_template(f"gemma4{revision}.jinja")
    refuse_unusable_template(tokenizer, flag="--gemma", name="x")
    assert render_chat(EXAMPLE, tokenizer, asks=False) == (
        "<bos><|turn>system\nWo din de Ama.<turn|>\n"
        "<|turn>user\n<|audio|>Wo din de sɛn?<turn|>\n<|turn>model\nMe din de Ama.<turn|>\n"
        "<|turn>user\nWo ho te sɛn?<turn|>\n<|turn>model\nMe ho yɛ.<turn|>\n"
    )
    asked = render_chat(EXAMPLE[1:2], tokenizer, asks=True)
    assert asked == "<bos><|turn>user\n<|audio|>Wo din de sɛn?<turn|>\n<|turn>model\n"


def test_all_revisions_that_trl_ships_are_tested():
    from importlib.resources import files

    shipped = {path.name for path in (files("trl") / "chat_templates").iterdir()}
    tested = {f"gemma4{revision}.jinja" for revision in ("", "_v2", "_v3", "_v4", "_v5")}
    assert {name for name in shipped if name.startswith("gemma4")} == tested


def test_the_tokenizer_reads_and_writes_twi(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Wo ho te sɛn? Me din de Ama; yɛfrɛ me Kwabena Ŋ 25."
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text and len(ids) < len(text) * 0.7
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert SPECIAL_IDS.keys() == TINY_SPECIAL_IDS.keys() == SPECIAL_TOKENS.keys()
    for name, token in SPECIAL_TOKENS.items():
        assert tokenizer.convert_tokens_to_ids(token) == TINY_SPECIAL_IDS[name]
        assert tokenizer(token).input_ids == [TINY_SPECIAL_IDS[name]]


def test_mimi_is_stored_under_the_names_of_the_hub(tiny_models):
    """Flat ones, of which transformers makes those of its encoder and decoder."""
    stored = load_file(tiny_models / "mimi" / "model.safetensors")
    assert {name.split(".")[0] for name in stored} == {
        "encoder", "encoder_transformer", "downsample", "quantizer", "upsample",
        "decoder_transformer", "decoder",
    }  # fmt: skip
    assert {"encoder.layers.0.conv.weight", "upsample.conv.weight"} <= stored.keys()
