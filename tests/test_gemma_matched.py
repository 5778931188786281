"""Checkpoints drawn from the published figures: the figures are those of the real E2B, the weights
have them, and the folder is laid out as the hub's."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import REAL_DATA, run
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import AutoTokenizer

from benchmarks import rounding
from commands.errors import InputError, WriteError
from gemma4 import draw_checkpoint
from gemma4.chat_template import EXAMPLE, refuse_unusable_template, render_chat
from gemma4.gemma import load_audio_encoder, load_gemma
from gemma4.matched_gemma import checkpoint_shapes, draw_pieces, planned_tensors
from gemma4.plain_tokenizer import SPECIAL_TOKENS, published_chat_template
from gemma4.published_statistics import read_published_statistics
from gemma4.true_shapes import (
    SPECIAL_IDS,
    TINY_SPECIAL_IDS,
    TINY_VOCABULARY_SIZE,
    e2b_config,
    e4b_config,
    tiny_config,
)

CPU = torch.device("cpu")
LAYERS = "model.language_model.layers"


@pytest.fixture(scope="module")
def published():
    return read_published_statistics()


@pytest.fixture(scope="module")
def e2b():
    return planned_tensors(e2b_config())


@pytest.fixture(scope="module")
def tiny():
    return planned_tensors(tiny_config())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "tiny"
    run(draw_checkpoint.main, "--size", "tiny", "--out", out)
    return out / "model"


def draw(name, planned, seed=0):
    return torch.cat(list(draw_pieces(name, planned[name], seed))).view(
        planned[name].statistics.shape
    )


# The figures.


def test_the_figures_are_those_that_were_published(published):
    source = REAL_DATA / "gemma4_e2b" / "tensors.jsonl"
    if not source.exists():
        pytest.skip("the published list is not beside the project (../shared/data/gemma4_e2b)")
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    assert {row["dtype"] for row in rows} == {"bfloat16"}
    assert published.keys() == {row["name"] for row in rows}
    for row in rows:
        found = published[row["name"]]
        assert list(found.shape) == row["shape"]
        for figure in ("mean", "std", "min", "max"):
            assert getattr(found, figure) == row[figure], (row["name"], figure)


def test_the_true_e2b_has_the_published_names_and_shapes(published):
    """From the model itself; `checkpoint_shapes` adds what its layers do not load."""
    from transformers import Gemma4ForConditionalGeneration

    from gemma4.gemma import ATTENTION

    with torch.device("meta"):
        model = Gemma4ForConditionalGeneration._from_config(
            e2b_config(), attn_implementation=ATTENTION
        )
    state = model.state_dict()
    assert len(published) == 2011
    assert state.keys() - published.keys() == {"lm_head.weight"}
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    shared = {
        f"{LAYERS}.{layer}.self_attn.{part}.weight"
        for layer in range(15, 35)
        for part in ("k_proj", "v_proj", "k_norm")
    }
    assert published.keys() - state.keys() == shared
    for name in state.keys() & published.keys():
        assert tuple(state[name].shape) == published[name].shape, name


def test_every_tensor_of_e2b_is_drawn_from_its_own_figures(published, e2b):
    assert {name: planned.statistics for name, planned in e2b.items()} == published


def test_e4b_takes_after_the_layer_in_the_same_place(published):
    e4b = planned_tensors(e4b_config())
    shared = [name for name in e4b if ".k_proj" in name and LAYERS in name]
    assert len(shared) == 42
    # Full attention: E4B's layers 5, 11, 17, 23 have their own keys, 29, 35, 41 another's.
    for ours, theirs in ((5, 4), (23, 14), (41, 34), (0, 0), (24, 15)):
        found = e4b[f"{LAYERS}.{ours}.input_layernorm.weight"].statistics
        assert found.shape == (2560,)
        expected = published[f"{LAYERS}.{theirs}.input_layernorm.weight"]
        assert (found.mean, found.std, found.max) == (expected.mean, expected.std, expected.max)
        found = e4b[f"{LAYERS}.{ours}.mlp.up_proj.weight"].statistics
        expected = published[f"{LAYERS}.{theirs}.mlp.up_proj.weight"]
        assert found.std == pytest.approx(expected.std * math.sqrt(1536 / 2560))
    # Both tables are scaled by what they are multiplied with.
    for name, ratio in (("embed_tokens", 1536 / 2560), ("embed_tokens_per_layer", 1)):
        name = f"model.language_model.{name}.weight"
        assert e4b[name].statistics.std == pytest.approx(published[name].std * math.sqrt(ratio))


# The weights.


def test_drawn_tensors_have_the_figures(e2b):
    names = [
        name
        for name, planned in e2b.items()
        if planned.statistics.std
        and (math.prod(planned.statistics.shape) <= 8192 or "layers.4.self_attn.v" in name)
    ]
    assert len(names) > 300
    for name in names[::4]:
        figures, weights = e2b[name].statistics, draw(name, e2b)
        # The second is stored, and rounded to 8 bits.
        for found, rounding_error in ((weights, 1e-3), (weights.bfloat16().float(), 4e-3)):
            off = 1e-2 if found.numel() > 8192 else rounding_error  # drawn one by one, not dealt
            assert found.mean().item() == pytest.approx(figures.mean, abs=off * figures.std), name
            std = found.double().std(correction=0).item()
            assert std == pytest.approx(figures.std, rel=off), name
            largest = max(abs(figures.min), abs(figures.max))
            assert found.min().item() == pytest.approx(figures.min, abs=4e-3 * largest), name
            assert found.max().item() == pytest.approx(figures.max, abs=4e-3 * largest), name


def test_norms_are_as_uneven_as_published(e2b, tiny):
    weight = draw("model.audio_tower.layers.11.norm_out.weight", e2b)
    assert weight.min() < -18 and weight.max() > 24 and weight.std() > 1.5 * weight.mean() > 5
    # A norm of the decoder: most weights are small, few are large, and hardly any is negative.
    weight = draw(f"{LAYERS}.11.input_layernorm.weight", e2b)
    assert weight.max() == 900 and weight.median() < 5
    assert (weight < 0).float().mean() < 0.01
    for name, planned in tiny.items():
        figures, weights = planned.statistics, draw(name, tiny)
        if weights.dim() <= 1:
            off = 2.5 / max(1, weights.numel()) + 1e-4
            assert weights.mean().item() == pytest.approx(
                figures.mean, abs=off * figures.std + 1e-6
            )
            std = weights.std(correction=0).item()
            assert std == pytest.approx(figures.std, rel=off, abs=1e-6), name


def test_a_tensor_depends_on_seed_and_name_only(tiny, tmp_path):
    name = f"{LAYERS}.3.self_attn.o_proj.weight"
    assert torch.equal(draw(name, tiny), draw(name, tiny))
    assert not torch.equal(draw(name, tiny), draw(name, tiny, seed=1))
    other = {"other": tiny[name]}
    assert not torch.equal(draw(name, tiny), draw("other", other))
    stored = {name: name for name in tiny}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, dtype, size in ((whole, torch.float32, 10**9), (parts, torch.bfloat16, 300_000)):
        folder.mkdir()
        draw_checkpoint.write_shards(folder, tiny, stored, 0, dtype, size)
    weights = load_file(whole / "model.safetensors")
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == weights.keys() == tiny.keys()
    files = {file: load_file(parts / file) for file in set(index["weight_map"].values())}
    assert len(files) > 5
    assert index["metadata"]["total_size"] == 2 * sum(w.numel() for w in weights.values())
    for tensor, file in index["weight_map"].items():
        assert torch.equal(files[file][tensor], weights[tensor].bfloat16()), tensor


def test_rounding_errors_do_not_grow_in_a_matched_decoder():
    decoder, planned = rounding.build_decoder("tiny")
    ids_BS = torch.randint(rounding.VOCABULARY_SIZE, (1, 10))
    found = {}
    for weights in ("figures", "matched"):
        rounding.fill(decoder, planned[weights], seed=0)
        found[weights] = rounding.measure_growth(decoder, ids_BS, 6)
    assert max(found["matched"].float32, found["matched"].one_by_one) < 1e-5
    assert found["figures"].float32 > 20 * found["matched"].float32
    assert found["matched"].bfloat16 < 0.1 < found["figures"].bfloat16
    assert 0.1 < found["matched"].cosine < 0.95  # tokens are still told apart


# The folder.


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
