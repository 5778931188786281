"""The memory plan: against a model that is there, against E4B's published shape, and as printed."""

import functools
import weakref

import pytest
import torch
from conftest import ROOT
from peft import get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from commands.errors import InputError
from gemma4.gemma import load_gemma
from gemma4.memory_plan import GIB, load_gemma_config, plan_logits, plan_memory
from gemma4.speech_embeddings import accept_embeddings
from gemma4.true_shapes import e4b_config, unified_12b_config
from stage3_finetune.model import lora_config

SETTINGS = {
    "adapter": lora_config(4, 4, 0.0),
    "device": torch.device("cpu"),
    "batch_size": 2,
    "num_tokens": 40,
    "gradient_checkpointing": False,
}


def test_weights_are_those_of_the_loaded_model(tiny_models):
    name = str(tiny_models / "gemma")
    plan = plan_memory(load_gemma_config(name), dtype=torch.float32, **SETTINGS)
    base, _ = load_gemma(name, device=torch.device("cpu"), dtype=torch.float32)
    frozen = sum(p.numel() for p in base.parameters())
    model = get_peft_model(accept_embeddings(base), lora_config(4, 4, 0.0))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (plan.weights, plan.num_trained) == (4 * frozen, trained)
    assert (plan.adapter, plan.gradients, plan.optimizer) == (4 * trained, 4 * trained, 8 * trained)


def test_activations_are_what_a_forward_pass_keeps(tiny_models):
    """Counted again on tensors that are there, through peft's layers too."""
    name = str(tiny_models / "gemma")
    plan = plan_memory(load_gemma_config(name), dtype=torch.float32, **SETTINGS)
    base, _ = load_gemma(name, device=torch.device("cpu"), dtype=torch.float32)
    model = get_peft_model(base, lora_config(4, 4, 0.0)).train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept, alive = {}, []

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    decoder = model.get_base_model().model.language_model
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        decoder(input_ids=torch.randint(20, 100, (2, 40)), use_cache=False)
    assert plan.activations == pytest.approx(sum(kept.values()), rel=0.25)


@functools.cache
def plan_e4b(gradient_checkpointing, quantize="none", batch_size=4):
    """Of its published shape, with the defaults of `docs/hardware.md`; each is counted once."""
    return plan_memory(
        e4b_config(), adapter=lora_config(32, 32, 0.0), device=torch.device("cuda"),
        dtype=torch.bfloat16, batch_size=batch_size, num_tokens=500,
        gradient_checkpointing=gradient_checkpointing, quantize=quantize,
    )  # fmt: skip


def test_e4b_needs_what_its_published_shape_says():
    plan, without, half = plan_e4b(True), plan_e4b(False), plan_e4b(True, batch_size=2)
    assert plan.num_trained == 2 * 34_881_536  # of rank 16, twice
    assert plan.weights / GIB == pytest.approx(14.79, abs=0.01)
    assert without.activations > 10 * plan.activations
    assert plan.activations == pytest.approx(2 * half.activations, rel=0.01)
    assert plan.total < 0.6 * without.total


@pytest.mark.parametrize(
    ("checkpointing", "quantize", "gib"),
    [(True, "none", 16.8), (False, "none", 36.7), (True, "4bit", 11.4)],
)
def test_the_table_of_hardware_is_what_is_counted(checkpointing, quantize, gib):
    plan = plan_e4b(checkpointing, quantize)
    assert plan.total / GIB == pytest.approx(gib, abs=0.06)
    document = (ROOT / "docs" / "hardware.md").read_text("utf-8")
    assert f"**{gib}**" in document or f"({gib} with" in document


@pytest.mark.parametrize(
    ("checkpointing", "quantize", "gib"),
    [(True, "none", 25.8), (False, "none", 63.0), (True, "4bit", 10.8)],
)
def test_the_table_says_what_is_counted_of_12b(checkpointing, quantize, gib):
    plan = plan_memory(
        unified_12b_config(), adapter=lora_config(32, 32, 0.0), device=torch.device("cuda"),
        dtype=torch.bfloat16, batch_size=4, num_tokens=500, gradient_checkpointing=checkpointing,
        quantize=quantize,
    )  # fmt: skip
    assert plan.total / GIB == pytest.approx(gib, abs=0.06)
    document = (ROOT / "docs" / "hardware.md").read_text("utf-8")
    assert f"**{gib}**" in document or f"({gib} with" in document


def test_the_host_holds_what_is_on_its_way_to_a_gpu_or_all_of_it(tiny_models):
    """E4B's two largest tables: 262,144 rows of 42 x 256 and of 2,560 numbers, two bytes each."""
    tables = [262_144 * width * 2 / GIB for width in (42 * 256, 2560)]
    on_gpu, quantized = plan_e4b(True), plan_e4b(True, "4bit")
    assert quantized.host / GIB == pytest.approx(tables[0] + 0.5, abs=0.01)
    assert sum(tables) + 0.5 < on_gpu.host / GIB < sum(tables) + 0.8
    assert on_gpu.as_table().splitlines()[-1].split() == ["host", "7.10", "GiB"]
    name = str(tiny_models / "gemma")
    on_cpu = plan_memory(load_gemma_config(name), dtype=torch.float32, **SETTINGS)
    assert on_cpu.host == on_cpu.total + GIB // 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_what_trl_has_at_a_time(dtype):
    """Of its own operation on the CPU, forward and backward; more than one tile of tokens."""
    num_positions, vocab_size = 100, 70_000
    weight_VD = torch.randn(vocab_size, 16).to(dtype)
    hidden_SD = torch.randn(num_positions, 16).to(dtype).requires_grad_()
    labels_S = torch.arange(num_positions)
    with CountMemory() as counted:
        log_probs_S, *_ = ChunkedLogProbFunction.apply(
            hidden_SD, weight_VD, None, labels_S, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, 30.0, 1.0,
            ("log_probs", "entropy", "is_top1"),
        )  # fmt: skip
        log_probs_S.sum().backward()
    plan = plan_logits(num_positions, vocab_size, torch.device("cpu"), dtype)
    assert 0.85 * plan < counted.peak < 1.01 * plan


class CountMemory(TorchDispatchMode):
    """Bytes of the tensors that were made inside it, at their peak."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.forget, storage._cdata)
        return result

    def forget(self, number):
        self.now -= self.alive.pop(number)


def test_a_checkpoint_without_a_tower_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    with pytest.raises(InputError, match="is a llama, not a full Gemma 4"):
        load_gemma_config(str(tmp_path))
