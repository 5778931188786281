"""A merged checkpoint is laid out as the published one, with what vLLM and llama.cpp read of it.

What they need was read in vllm-project/vllm (gemma4_mm.py and gemma4.py, among its models) and in
ggml-org/llama.cpp (conversion/gemma.py, conversion/base.py, src/models/gemma4.cpp), as of autumn
2026. Neither runs here. The base is drawn, with the names and the layout of google/gemma-4-E2B-it.
"""

import json
import re

import pytest
import torch
from conftest import run
from finetune_run import write_dialogues
from safetensors.torch import load_file, save_file
from transformers import Gemma4Config

from commands.atomic_write import write_json
from commands.errors import InputError
from commands.json_files import read_json
from gemma4 import draw_checkpoint
from gemma4.gemma import load_gemma
from gemma4.published_config import write_as_published
from gemma4.shared_layers import read_unused_tensors, unused_tensor_names
from gemma4.true_shapes import e2b_config, e4b_config, tiny_config
from stage3_finetune import export, train
from stage3_finetune.model import LORA_TARGETS

# vLLM gives names with these beginnings to its modules, and refuses others.
VLLM_PREFIXES = (
    "model.vision_tower.", "model.embed_vision.", "model.audio_tower.", "model.embed_audio.",
    "model.language_model.",
)  # fmt: skip
# What llama.cpp's converter reads of `text_config`, without a default.
LLAMA_SETTINGS = (
    "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "global_head_dim", "layer_types", "num_kv_shared_layers",
    "hidden_size_per_layer_input", "sliding_window", "final_logit_softcapping", "rms_norm_eps",
    "max_position_embeddings", "vocab_size", "use_double_wide_mlp",
)  # fmt: skip
OWN_SETTINGS = {"num_trained_calls", "speech_answer_target", "speech_sources"}
MORE_SUFFIXES = (".input_max", ".input_min", ".output_max", ".output_min")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base laid out as on the hub, and the checkpoint with an adapter merged into it."""
    folder = tmp_path_factory.mktemp("merged")
    run(draw_checkpoint.main, "--size", "tiny", "--out", folder / "gemma")
    (folder / "drawn").mkdir()
    (folder / "drawn" / "gemma").symlink_to(folder / "gemma" / "model")
    flags = write_dialogues(folder, folder / "drawn")
    settings = ("--allow-mixture", "--learning-rate", 0.01, "--out", folder / "run")
    run(train.main, *flags, *settings)
    base, merged = folder / "gemma" / "model", folder / "merged"
    words = ("--gemma", base, "--finetune", folder / "run", "--allow-mixture")
    run(export.main, *words, "--out", merged)
    return base, merged


@pytest.fixture(scope="module")
def tensors(folders):
    return [load_file(folder / "model.safetensors") for folder in folders]


def test_tensors_are_the_bases_by_name_shape_and_precision(tensors):
    before, after = tensors
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert (tensor.shape, tensor.dtype) == (before[name].shape, torch.bfloat16), name
        assert name.startswith(VLLM_PREFIXES)  # no lm_head: it is tied


def test_only_what_was_trained_has_changed(tensors):
    before, after = tensors
    unused = set(unused_tensor_names(tiny_config()))
    trained = re.compile(LORA_TARGETS)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    expected = {n for n in after if trained.fullmatch(n.removesuffix(".weight"))} - unused
    assert changed <= expected and len(changed) > len(expected) / 2


def test_keys_and_values_that_nobody_uses_are_kept(folders, tensors):
    """vLLM wanted `k_norm` of every layer before September 2026, as the hub's checkpoint has."""
    base, _ = folders
    before, after = tensors
    unused = unused_tensor_names(tiny_config())
    assert len(unused) == 15
    for name in unused:
        assert torch.equal(after[name], before[name])
    model, _ = load_gemma(str(base), device=torch.device("cpu"), dtype=torch.float32)
    assert not set(unused) & set(model.state_dict())
    assert len(unused_tensor_names(e2b_config())) == 60  # layers 15 to 34
    assert len(unused_tensor_names(e4b_config())) == 54  # layers 24 to 41


def test_unused_tensors_are_found_in_shards_and_may_be_absent(folders, tensors, tmp_path):
    before, _ = tensors
    names = sorted(before)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    places = {}
    for file, of_shard in shards.items():
        save_file({name: before[name] for name in of_shard}, tmp_path / file)
        places |= dict.fromkeys(of_shard, file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    found = read_unused_tensors(str(tmp_path), tiny_config())
    assert sorted(found) == sorted(unused_tensor_names(tiny_config()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in found.items())
    index.unlink()
    assert read_unused_tensors(str(tmp_path), tiny_config()) == {}
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="cannot be loaded"):
        read_unused_tensors(str(tmp_path), tiny_config())


def test_settings_and_files_are_the_bases(folders):
    base, merged = folders
    config = read_json(merged / "config.json")
    own = {name: config.pop(name) for name in OWN_SETTINGS}
    assert own["speech_answer_target"] == "chain" and config == read_json(base / "config.json")
    of_base, of_merged = ({path.name for path in folder.iterdir()} for folder in folders)
    assert of_merged - of_base == {"README.md", "preprocessor_config.json"}
    assert of_base <= of_merged
    for name in ("processor_config.json", "chat_template.jinja"):
        assert (merged / name).read_bytes() == (base / name).read_bytes()
    for name in ("generation_config.json", "tokenizer.json"):
        assert read_json(merged / name) == read_json(base / name)
    extractor = read_json(merged / "preprocessor_config.json")
    of_processor = read_json(merged / "processor_config.json")["feature_extractor"]
    assert of_processor.items() <= extractor.items()


def test_the_width_of_heads_is_written_as_published(folders, tmp_path):
    """And means the same to transformers, which writes it layer by layer."""
    _, merged = folders
    text = read_json(merged / "config.json")["text_config"]
    assert text["global_head_dim"] == 32 and "per_layer_config" not in text
    widths = [layer.head_dim for layer in tiny_config().text_config.per_layer_config]
    loaded = Gemma4Config.from_pretrained(merged)
    assert [layer.head_dim for layer in loaded.text_config.per_layer_config] == widths
    assert set(widths) == {16, 32}
    loaded.save_pretrained(tmp_path)
    assert "global_head_dim" not in read_json(tmp_path / "config.json")["text_config"]
    write_as_published(tmp_path)
    assert read_json(tmp_path / "config.json")["text_config"] == text
    odd = read_json(tmp_path / "config.json")
    odd["text_config"]["per_layer_config"] = {"0": {"head_dim": 8}}
    write_json(tmp_path / "config.json", odd)
    write_as_published(tmp_path)
    assert read_json(tmp_path / "config.json") == odd


def test_what_vllm_reads_is_there(folders):
    _, merged = folders
    config = read_json(merged / "config.json")
    assert config["architectures"] == ["Gemma4ForConditionalGeneration"]
    assert config["model_type"] == "gemma4" and config["vision_config"]
    assert config["audio_config"]["output_proj_dims"] and config["text_config"]["layer_types"]
    assert {"boa_token_id", "audio_token_id", "eoa_token_index"} <= config.keys()
    processor = read_json(merged / "processor_config.json")
    assert processor["processor_class"] == "Gemma4Processor"
    assert processor["audio_seq_length"] == 750 and processor["audio_ms_per_token"] == 40
    assert processor["feature_extractor"]["sampling_rate"] == 16_000
    assert read_json(merged / "generation_config.json")["eos_token_id"]


def test_what_llama_cpp_reads_is_there(folders):
    _, merged = folders
    text = read_json(merged / "config.json")["text_config"]
    assert not [name for name in LLAMA_SETTINGS if name not in text]
    rope = text["rope_parameters"]["full_attention"]
    assert rope["rope_type"] == "proportional" and rope["partial_rotary_factor"] == 0.25
    audio = read_json(merged / "config.json")["audio_config"]
    assert {"hidden_size", "num_hidden_layers", "num_attention_heads"} <= audio.keys()
    tokenizer = read_json(merged / "tokenizer.json")
    assert tokenizer["model"]["type"] == "BPE" and tokenizer["model"]["byte_fallback"]
    assert tokenizer["decoder"]["type"] == "Sequence" and tokenizer["model"]["merges"]
    num_known = len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    assert num_known >= text["vocab_size"]


def test_llama_cpp_has_a_name_for_every_tensor(tensors):
    """With its package gguf, which is not installed here otherwise."""
    gguf = pytest.importorskip("gguf")
    decoder = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA4, 64)
    towers = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 128)
    found = []
    for name in tensors[1]:
        known, suffixes = towers, (".weight", ".bias", *MORE_SUFFIXES)
        if "language_model." in name:
            known, suffixes = decoder, (".weight", ".bias")
            asked = name.replace("language_model.", "")
        elif "audio" in name:
            asked = name.replace("model.audio_tower.", "conformer.").replace(".linear.", ".")
        else:
            asked = name.replace("model.vision_tower.encoder.", "vision_model.model.")
            asked = asked.replace(".linear.weight", ".weight")
        if asked.endswith(("layer_scalar", "per_dim_scale", "position_embedding_table")):
            asked += ".weight"
        found.append(known.get_name(asked, suffixes))
        assert found[-1] is not None, name
    assert len(set(found)) == len(found)
