"""Gemma's decoder in 4 and 8 bits: what is quantised, that speech still enters, what is planned."""

import importlib.util

import pytest
import torch

from commands.errors import InputError
from gemma4 import weight_quantization as module
from gemma4.gemma import load_gemma
from gemma4.memory_plan import load_gemma_config, plan_memory
from gemma4.speech_embeddings import accept_embeddings
from stage3_finetune.model import lora_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["4bit", "8bit"])
def quantized(request, tiny_models, bitsandbytes):
    name = str(tiny_models / "gemma")
    model, _ = load_gemma(name, device=CPU, dtype=torch.float32, quantize=request.param)
    return request.param, model, name


def test_only_the_decoders_linear_maps_are_quantised(quantized):
    kind, model, _ = quantized
    expected = {"4bit": "Linear4bit", "8bit": "Linear8bitLt"}[kind]
    found = {name for name, m in model.named_modules() if type(m).__name__ == expected}
    layers = range(model.config.text_config.num_hidden_layers)
    assert {f"model.language_model.layers.{i}.mlp.up_proj" for i in layers} <= found
    assert all(name.startswith("model.language_model.layers.") for name in found)
    assert model.model.embed_audio.embedding_projection.weight.dtype == torch.float32


def test_speech_still_enters_and_logits_stay_near(quantized, tiny_models):
    """A random net is chaotic: near is not close, and must only be no noise."""
    _, model, name = quantized
    exact, _ = load_gemma(name, device=CPU, dtype=torch.float32)
    ids = torch.randint(20, 100, (1, 12), generator=torch.Generator().manual_seed(0))
    audio = exact.config.audio_token_id
    ids[0, 3:7] = audio
    frames = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(1))
    logits = [
        accept_embeddings(gemma)(
            input_ids=ids, input_features=frames, input_features_mask=torch.ones(1, 4).bool()
        ).logits
        for gemma in (model, exact)
    ]
    similarity = torch.cosine_similarity(*(one.float().flatten(1) for one in logits))
    assert 0.3 < similarity.item() < 1 - 1e-6


def test_the_plan_counts_quantised_weights(quantized):
    kind, model, name = quantized
    plan = plan_memory(
        load_gemma_config(name), adapter=lora_config(4, 4, 0.0), device=CPU, dtype=torch.float32,
        batch_size=2, num_tokens=40, gradient_checkpointing=False, quantize=kind,
    )  # fmt: skip
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    assert plan.weights == pytest.approx(held, rel=0.02)


def test_without_bitsandbytes_the_mistake_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--quantize 4bit needs bitsandbytes: pip install"):
        module.weight_quantization("4bit", torch.float32)
    assert module.weight_quantization("none", torch.float32) is None
