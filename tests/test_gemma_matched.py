"""Checkpoints drawn from the published figures: the figures are those of the real E2B, the weights
have them, and the folder is laid out as the hub's."""

import json
import math

import pytest
import torch
from conftest import REAL_DATA, run
from safetensors.torch import load_file

from benchmarks import layer_sizes, rounding
from benchmarks.random_decoder import build_decoder, fill
from gemma4 import draw_checkpoint
from gemma4.matched_gemma import draw_pieces, planned_tensors
from gemma4.published_statistics import read_published_statistics
from gemma4.true_shapes import (
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

    from gemma4.kinds import ATTENTION

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
    decoder, planned = build_decoder("tiny", vocabulary_size=512)
    ids_BS = torch.randint(512, (1, 10))
    found = {}
    for weights in ("figures", "matched"):
        fill(decoder, planned[weights], seed=0)
        found[weights] = rounding.measure_growth(decoder, ids_BS, 6)
    assert max(found["matched"].float32, found["matched"].one_by_one) < 1e-5
    assert found["figures"].float32 > 20 * found["matched"].float32
    assert found["matched"].bfloat16 < 0.1 < found["figures"].bfloat16
    assert 0.1 < found["matched"].cosine < 0.95  # tokens are still told apart


def test_how_uneven_late_layers_are():
    words = ("--num-sentences", 6, "--steps", 1, "--num-seeds", 1, "--size", "tiny")
    table = run(layer_sizes.main, *words, "--weights", "aligned", "demo")
    rows = [row.strip("| ").split(" | ") for row in table.splitlines() if row.startswith("| ")]
    assert [len(row) for row in rows] == 13 * [6] + 5 * [6]
    sizes = {(weights, layer): map(float, row) for weights, layer, *row in rows[1:13]}
    top_power, median, smallest, varying = sizes["aligned", "-4"]
    assert top_power > 0.05 and smallest < 0.1 < median < 0.9 and varying < 0.5
    top_power, median, smallest, varying = sizes["demo", "-4"]
    assert top_power < 0.05 and smallest > 0.5 and median > 0.9 and varying > 0.5


# The folder.
