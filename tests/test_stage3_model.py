"""Gemma with injected speech: equal to the real-audio path, LoRA off = base, frozen stays
frozen."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from peft import get_peft_model

from commands.errors import InputError
from commands.run_folder import run_folder
from gemma4.gemma import AudioEncoder, load_feature_extractor, load_gemma
from gemma4.speech_embeddings import accept_embeddings
from stage3_finetune.dialogue import EncodedDialogue, Turn, encode_prompt
from stage3_finetune.generate import generate_answers, prompt_inputs, stop_ids, stream_tokens
from stage3_finetune.model import add_adapter, load_finetuned, lora_config

CPU = torch.device("cpu")


@dataclass(frozen=True)
class NoSettings:
    """What `run_folder` writes down here."""


def noise(num_samples, seed):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


@pytest.fixture()
def loaded(tiny_models):
    """Gemma that takes embeddings, its tokenizer, its audio encoder."""
    name = str(tiny_models / "gemma")
    model, tokenizer = load_finetuned(name, None, device=CPU, dtype=torch.float32)
    return model, tokenizer, AudioEncoder(model.model.audio_tower, load_feature_extractor(name))


def questions(encoder):
    waveforms = [noise(16_000, 1), noise(31_234, 2)]
    frames = encoder.encode(waveforms)
    return waveforms, [[Turn("user", "?", spoken=True, frames_TD=f)] for f in frames]


@pytest.mark.parametrize("with_lora", [False, True])
def test_injected_embeddings_equal_real_audio(loaded, with_lora):
    model, tokenizer, encoder = loaded
    if with_lora:
        model = randomise_lora(get_peft_model(model, lora_config(4, 8, 0.0))).eval()
    waveforms, conversations = questions(encoder)
    prompts = [encode_prompt(turns, tokenizer) for turns in conversations]
    injected = prompt_inputs(prompts, tokenizer, model)
    mel = encoder.extractor(waveforms, sampling_rate=16_000, return_tensors="pt")
    real = {**injected, "input_features": mel["input_features"]}
    real["input_features_mask"] = mel["input_features_mask"]
    with torch.no_grad():
        logits_real, logits_injected = model(**real).logits, model(**injected).logits
        mask = injected["attention_mask"].bool()
        torch.testing.assert_close(logits_injected[mask], logits_real[mask], atol=1e-5, rtol=0)
        options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
        assert torch.equal(model.generate(**real, **options), model.generate(**injected, **options))


def randomise_lora(model):
    """LoRA starts at zero, where every equality would be vacuous."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def test_lora_disabled_is_the_base_model(loaded):
    model, tokenizer, encoder = loaded
    _, conversations = questions(encoder)
    inputs = prompt_inputs([encode_prompt(t, tokenizer) for t in conversations], tokenizer, model)
    with torch.no_grad():
        base = model(**inputs).logits
        adapted = randomise_lora(get_peft_model(model, lora_config(4, 8, 0.0))).eval()
        assert not torch.allclose(adapted(**inputs).logits, base, atol=1e-3)
        with adapted.disable_adapter():
            assert torch.equal(adapted(**inputs).logits, base)


def test_lora_touches_the_decoder_only(loaded):
    adapted = get_peft_model(loaded[0], lora_config(4, 8, 0.0))
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained and all(".language_model.layers." in name for name in trained)
    for part in ("q_proj", "o_proj", "gate_proj", "down_proj"):
        assert any(part in name for name in trained)


def test_answers_do_not_depend_on_the_batch(loaded):
    model, tokenizer, encoder = loaded
    _, conversations = questions(encoder)
    conversations = [*conversations, [Turn("user", "Wo din de sɛn?")]]
    together = generate_answers(model, tokenizer, conversations, max_new_tokens=8, batch_size=3)
    alone = generate_answers(model, tokenizer, conversations, max_new_tokens=8, batch_size=1)
    assert together == alone


def test_streamed_tokens_are_the_generated_ones(loaded):
    model, tokenizer, encoder = loaded
    _, conversations = questions(encoder)
    for turns in conversations:
        prompt: EncodedDialogue = encode_prompt(turns, tokenizer)
        streamed = list(stream_tokens(model, tokenizer, prompt, max_new_tokens=8))
        inputs = prompt_inputs([prompt], tokenizer, model)
        written = model.generate(
            **inputs, max_new_tokens=8, do_sample=False, eos_token_id=stop_ids(tokenizer, model)
        )[0, inputs["input_ids"].shape[1] :].tolist()
        assert streamed == [token for token in written if token not in stop_ids(tokenizer, model)]


def test_saved_base_is_a_stock_checkpoint(loaded, tiny_models, tmp_path):
    model, tokenizer, _ = loaded
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    stock, _ = load_gemma(str(tmp_path), device=CPU, dtype=torch.float32)
    weights = stock.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert type(stock.model).__name__ == "Gemma4Model"
    assert type(accept_embeddings(stock).model).__name__ == "SpeechGemma4Model"


def test_a_folder_that_is_no_finetune_is_refused(tiny_models):
    with pytest.raises(InputError, match=r"was written by demo\.tiny_models"):
        load_finetuned(str(tiny_models / "gemma"), tiny_models, device=CPU, dtype=torch.float32)


def write_adapter(folder, gemma, *, seed, train_embed_audio):
    """A finished run whose adapter is far from zero, as `stage3_finetune.train` would leave it."""
    base, _ = load_gemma(gemma, device=CPU, dtype=torch.float32)
    config = lora_config(4, 8, 0.0, train_embed_audio=train_embed_audio)
    model = get_peft_model(accept_embeddings(base), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    with run_folder(folder, NoSettings(), "stage3_finetune.train"):
        model.save_pretrained(folder / "adapter")
    return folder


def test_adapters_put_on_one_base_in_turn_are_as_each_loaded_alone(loaded, tiny_models, tmp_path):
    """And the base is as before under both."""
    base, tokenizer, encoder = loaded
    gemma = str(tiny_models / "gemma")
    _, conversations = questions(encoder)
    inputs = prompt_inputs([encode_prompt(t, tokenizer) for t in conversations], tokenizer, base)

    def logits(model):
        with torch.no_grad():
            return model(**inputs).logits

    before = logits(base)
    switched = base
    for seed, trains_way_in in ((1, False), (2, True), (3, False)):
        folder = tmp_path / str(seed)
        write_adapter(folder, gemma, seed=seed, train_embed_audio=trains_way_in)
        alone, _ = load_finetuned(gemma, folder, device=CPU, dtype=torch.float32)
        switched = add_adapter(switched, folder, gemma=gemma, name=f"run {seed}")
        assert torch.equal(logits(switched), logits(alone))
        assert not torch.equal(logits(switched), before)
        with switched.disable_adapter():
            assert torch.equal(logits(switched), before)
