"""Preflight's limits: weights as uneven as trained ones stay below them, real faults do not."""

from dataclasses import replace

import pytest
import torch
from conftest import run

from commands.errors import InputError
from gemma4 import draw_checkpoint
from gemma4.float32_decoder import decoder_in_float32
from gemma4.gemma import AudioEncoder
from gemma4.layer_states import LAYERS
from pipeline import preflight_gemma
from pipeline.preflight_checks import float32_encoder, load_sounds, refuse_difference
from pipeline.preflight_gemma import gemma_checks
from speech_head.answer import answer_states, teacher_forced_answer
from stage3_finetune.conversation import load_conversation
from stage3_finetune.data import collate

CPU = torch.device("cpu")
SOUNDS = load_sounds(None)
TOWER = "a batch gives what single clips give"
STATES = "states while writing = afterwards"
GRADIENTS = "a padded batch has finite gradients"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A checkpoint of E2B's kind, with the published unevenness."""
    out = tmp_path_factory.mktemp("drawn") / "tiny"
    run(draw_checkpoint.main, "--size", "tiny", "--out", out)
    return str(out / "model")


@pytest.fixture(scope="module")
def conversations(drawn):
    """In float32 and in bfloat16."""
    return {
        dtype: load_conversation(drawn, None, device=CPU, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }


def checks_of(conversation):
    encoder = float32_encoder(conversation.encoder)
    return {check.name: check for check in gemma_checks(conversation, encoder, SOUNDS)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_uneven_weights_pass(dtype, conversations):
    for name, check in checks_of(conversations[dtype]).items():
        assert check.measure(), name


def hear_the_neighbours(patch, conversation):
    """A hundredth of the first clip of a batch is in all of them."""

    def encode(sounds):
        frames = AudioEncoder.encode(conversation.encoder, sounds)
        rest = [own_TD + 0.01 * frames[0][: len(own_TD)] for own_TD in frames[1:]]
        return [frames[0], *rest]

    patch.setattr(conversation.encoder, "encode", encode)


def one_frame_late(patch, conversation):
    def encode(sounds):
        frames = AudioEncoder.encode(conversation.encoder, sounds)
        return [frames[0], *(own_TD.roll(1, dims=0) for own_TD in frames[1:])]

    patch.setattr(conversation.encoder, "encode", encode)


def skip_the_last_layer(patch, conversation):
    """A batch is encoded up to the layer before."""
    tower = conversation.encoder.tower

    def encode(sounds):
        with pytest.MonkeyPatch.context() as inner:
            if len(sounds) > 1:
                inner.setattr(tower.config, "num_hidden_layers", len(tower.layers) - 1)
            return AudioEncoder.encode(conversation.encoder, sounds)

    patch.setattr(conversation.encoder, "encode", encode)


@pytest.mark.parametrize("fault", [hear_the_neighbours, one_frame_late, skip_the_last_layer])
def test_a_fault_of_the_tower_fails(fault, conversations, monkeypatch):
    conversation = conversations[torch.float32]
    fault(monkeypatch, conversation)
    with pytest.raises(InputError, match="relative norm"):
        checks_of(conversation)[TOWER].measure()


def one_position_late(model, texts):
    return [replace(text, states_SLD=text.states_SLD.roll(1, dims=0))
            for text in answer_states(model, texts)]  # fmt: skip


def one_layer_early(model, texts):
    return answer_states(model, texts, [layer - 1 for layer in LAYERS])


def a_token_forgotten(model, texts):
    """The first of the prompt."""
    [text] = texts
    prompt = replace(text.prompt, input_ids=text.prompt.input_ids[1:])
    return answer_states(model, [replace(text, prompt=prompt)])


def another_window(model, texts):
    """Attention reaches less far back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.config.text_config, "sliding_window", 4)
        return answer_states(model, texts)


@pytest.mark.parametrize(
    "fault", [one_position_late, one_layer_early, a_token_forgotten, another_window]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fault_of_the_states_fails(fault, dtype, conversations, monkeypatch):
    monkeypatch.setattr(preflight_gemma, "answer_states", fault)
    with pytest.raises(InputError, match="relative norm"):
        checks_of(conversations[dtype])[STATES].measure()


def test_gradients_at_padding_fail(conversations, monkeypatch):
    """Labels are filled up with a token, so that padding is learned."""

    def collate_with_labels(rows, pad_id):
        batch = collate(rows, pad_id)
        return {**batch, "labels": batch["labels"].where(batch["attention_mask"].bool(), pad_id)}

    monkeypatch.setattr(preflight_gemma, "collate", collate_with_labels)
    with pytest.raises(InputError, match=r"gradient of tokens: norm .* at padding"):
        checks_of(conversations[torch.float32])[GRADIENTS].measure()


def test_the_decoder_computes_in_float32_and_keeps_its_weights(conversations):
    """And so nearly what a model in float32 computes; in bfloat16 it differs."""
    low, single = conversations[torch.bfloat16], conversations[torch.float32]
    before = {name: tensor.clone() for name, tensor in low.model.state_dict().items()}
    text = teacher_forced_answer("Maakye, wo ho te sɛn?", low.tokenizer)
    [known] = answer_states(single.model, [text])
    [rounded] = answer_states(low.model, [text])
    with decoder_in_float32(low.model):
        [widened] = answer_states(low.model, [text])
    with pytest.raises(InputError):
        refuse_difference(rounded.states_SLD, known.states_SLD, 5e-3)
    # What is looked up and projected from the embeddings is still rounded to bfloat16.
    assert refuse_difference(widened.states_SLD, known.states_SLD, 5e-3)
    assert widened.states_SLD.dtype == torch.float32
    after = low.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {tensor.dtype for tensor in after.values()} == {
        tensor.dtype for tensor in before.values()
    }
    with pytest.raises(KeyError), decoder_in_float32(low.model):
        raise KeyError("an error inside")
    [again] = answer_states(low.model, [text])
    assert torch.equal(again.states_SLD, rounded.states_SLD)
