"""`--init-from`: layers of a Llama in, the same function of its inputs, and independent of it
after."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import run
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from commands.errors import InputError
from commands.fingerprints import fingerprint
from commands.json_files import read_json
from commands.parquet_files import CodeFormat
from stage1_rvq.codes import CodedUtterance, write_codes
from stage2_speechless import train
from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.model import Speechless, load_speechless
from stage2_speechless.speak import Sentence, speak
from stage2_speechless.warm_start import copy_layers, load_base_model, temporal_shape

CPU = torch.device("cpu")
# Nothing as Speechless would choose it.
LLAMA = LlamaConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, intermediate_size=48, rms_norm_eps=1e-3,
    attention_bias=True, max_position_embeddings=256, initializer_range=0.2,
    rope_parameters={
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
    },
)  # fmt: skip
CODEBOOKS = {"num_codebooks": 3, "codebook_size": 12, "frame_rate_hz": 25.0}
TRAIN = (
    "--depth-width", 32, "--depth-layers", 1, "--batch-size", 2, "--warmup-steps", 1,
    "--steps", 2, "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small language model, saved as the hub has them."""
    folder = tmp_path_factory.mktemp("llama") / "model"
    torch.manual_seed(0)
    model = LlamaForCausalLM(LLAMA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    generator = torch.Generator().manual_seed(0)
    rows = [
        CodedUtterance(
            f"u{i}", text, "s", "asante", torch.randint(12, (9 + i, 3), generator=generator)
        )
        for i, text in enumerate(["kofi", "me din de ama", "maakye"])
    ]  # fmt: skip
    write_codes(folder / "codes_00000.parquet", rows, CodeFormat(**CODEBOOKS))
    return folder


def warm_started(base: Path) -> Speechless:
    loaded = load_base_model(str(base))
    model = Speechless(
        SpeechlessConfig(**CODEBOOKS, **temporal_shape(loaded), depth_width=32, depth_heads=4)
    )
    copy_layers(loaded, model)
    return model.eval()


def hidden(transformer: torch.nn.Module) -> Tensor:
    """What a transformer makes of given inputs at positions beyond its original length."""
    inputs_BLD = torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(1))
    return transformer(inputs_embeds=inputs_BLD, use_cache=False).last_hidden_state


def test_the_layers_compute_what_they_did(base: Path) -> None:
    model = warm_started(base)
    source = load_file(base / "model.safetensors")
    mine = model.temporal.state_dict()
    copied = [name for name in mine if name != "embed_tokens.weight"]
    assert len(copied) == 2 * 13 + 1
    for name in copied:
        assert torch.equal(mine[name], source[f"model.{name}"])
    original = LlamaForCausalLM.from_pretrained(base).eval().model
    with torch.no_grad():
        torch.testing.assert_close(hidden(model.temporal), hidden(original), atol=0, rtol=0)
    assert len(mine["embed_tokens.weight"]) == model.vocabulary.size + 3 * 12


def test_saved_it_needs_the_base_model_no_more(base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base, tmp_path / "base")
    model = warm_started(copy)
    shutil.rmtree(copy)
    model.save_pretrained(tmp_path / "model")
    for loaded in (
        load_speechless(str(tmp_path / "model"), device=CPU),
        Speechless.from_pretrained(tmp_path / "model").eval(),
    ):
        assert loaded.config == model.config
        with torch.no_grad():
            assert torch.equal(hidden(loaded.temporal), hidden(model.temporal))


def test_models_saved_before_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Speechless(SpeechlessConfig(**CODEBOOKS, width=32, num_layers=1, num_heads=2))
    model.save_pretrained(tmp_path)
    values = read_json(tmp_path / "config.json")
    assert values.pop("llama") == {}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    assert load_speechless(str(tmp_path), device=CPU).config == model.config


def test_train_from_it(base: Path, codes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(train.main, "--codes", codes, "--init-from", base, *TRAIN, "--out", out)
    facts = read_json(out / "provenance.json")
    assert facts["inputs"]["init_from"] == {"path": str(base), **fingerprint(base)}
    assert facts["init_from_revision"] is None
    model = load_speechless(str(out), device=CPU)
    assert (model.config.width, model.config.num_layers, model.config.num_heads) == (32, 2, 4)
    assert model.config.llama["num_key_value_heads"] == 2
    source = load_file(base / "model.safetensors")
    for name, weight in model.temporal.state_dict().items():
        if name != "embed_tokens.weight":
            moved = (weight - source[f"model.{name}"]).abs()
            assert 0 < moved.max() < 0.01, name
    sentences = [Sentence(f"s{i}", text) for i, text in enumerate(["kofi", "me din de ama"])]
    together = speak(model, sentences, max_frames=20)
    for sentence, spoken in zip(sentences, together, strict=True):
        alone = speak(model, [sentence], max_frames=20)[0]
        assert torch.equal(alone.codes_TK, spoken.codes_TK)


def test_a_hub_name_is_pinned_to_its_commit(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download as the hub's cache holds it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--twi--tiny"
    shutil.copytree(base, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load_base_model("twi/tiny")
    assert loaded.revision == commit
    with torch.no_grad():
        assert torch.equal(hidden(loaded.llama), hidden(load_base_model(str(base)).llama))


def test_resumed_equals_straight(base: Path, codes: Path, tmp_path: Path) -> None:
    words = ("--codes", codes, "--init-from", base, *TRAIN, "--save-every", 1)
    run(train.main, *words, "--out", tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "step_000002"
    before = (weights / "model.safetensors").read_bytes()
    shutil.rmtree(weights)
    (tmp_path / "run" / "done").unlink()
    run(train.main, *words, "--out", tmp_path / "run", "--resume")
    assert (weights / "model.safetensors").read_bytes() == before


def test_refused(base: Path, codes: Path, tmp_path: Path) -> None:
    words = ("--codes", codes, *TRAIN, "--out", tmp_path / "out", "--init-from")
    with pytest.raises(InputError, match="own width, layers and heads: leave out --width, --num-h"):
        run(train.main, *words, base, "--width", 768, "--num-heads", 4)
    GPT2Config().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(InputError, match=r"kind 'gpt2': only 'llama' \(LlamaForCausalLM\) is supp"):
        run(train.main, *words, tmp_path / "gpt2")
    with pytest.raises(InputError, match=r"cannot be loaded: .*config.json: No such file"):
        run(train.main, *words, codes)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="is not a transformers model: only 'llama'"):
        run(train.main, *words, tmp_path / "foreign")
    for absent in (tmp_path / "absent", "no-such/model", "not a name"):
        with pytest.raises(InputError, match=r"cannot be loaded \(no such folder, so") as error:
            run(train.main, *words, absent)
        assert "\n" not in str(error.value)

    broken = shutil.copytree(base, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 tensor\(s\) missing, e.g. model.layers.1.mlp.up_proj"):
        run(train.main, *words, broken)
    (broken / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(InputError, match="cannot be loaded: "):
        run(train.main, *words, broken)

    dynamic = shutil.copytree(base, tmp_path / "dynamic")
    settings = read_json(dynamic / "config.json")
    settings["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    (dynamic / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(InputError, match="rotary positions of type 'dynamic'; supported: default"):
        run(train.main, *words, dynamic)
    assert not (tmp_path / "out").exists()
