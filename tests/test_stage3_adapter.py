"""An adapter is read back: what is not whole, or what no training wrote, is refused in one line."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from commands.errors import InputError
from commands.run_folder import OutputFolder
from gemma4.packed_linear import pack_linear_layers
from stage3_finetune.model import base_of, load_finetuned, merge_adapter

CPU = torch.device("cpu")


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


def test_merged_it_writes_what_the_adapter_does(straight, tiny_models):
    """In float32; a model of bfloat16 keeps its adapter beside it."""
    gemma = str(tiny_models / "gemma")
    model, _ = load_finetuned(gemma, straight[0], device=CPU, dtype=torch.float32)
    ids_1S = torch.arange(5, 25).unsqueeze(0)
    expected_1SV = model(input_ids=ids_1S).logits
    merged = merge_adapter(model)
    assert type(merged) is type(base_of(model)) and merge_adapter(merged) is merged
    assert torch.allclose(merged(input_ids=ids_1S).logits, expected_1SV, atol=1e-4)
    base, _ = load_finetuned(gemma, None, device=CPU, dtype=torch.float32)
    assert not torch.allclose(base(input_ids=ids_1S).logits, expected_1SV, atol=1e-4)
    model, _ = load_finetuned(gemma, straight[0], device=CPU, dtype=torch.bfloat16)
    assert merge_adapter(model) is model
    expected_1SV = model(input_ids=ids_1S).logits
    pack_linear_layers(base_of(model).model.language_model)
    found_1SV = model(input_ids=ids_1S).logits
    assert (found_1SV - expected_1SV).norm() < 0.03 * expected_1SV.norm()
