"""Gemma's states: one convention, the same while an answer is written and afterwards."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model

from commands.errors import InputError
from demo.gemma.tokenizer import special_token_ids, train_tokenizer
from demo.world.grammar import all_questions
from gemma4.layer_states import LAYERS, pick_layers
from gemma4.speech_embeddings import accept_embeddings
from gemma4.tiny_gemma import tiny_gemma
from speech_head.answer import answer_states, ask_to_speak, stream_answer, teacher_forced_answer
from stage3_finetune.dialogue import Dialogue, Turn, encode_dialogue
from stage3_finetune.mixture import with_chain_target
from stage3_finetune.model import lora_config

TEXTS = ["Baako ne mmienu yɛ mmiɛnsa.", "Ɛyɛ.", "Me din de Ama, na wo nso ɛ?"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([q.text + " " + q.answer for q in all_questions()[:60]], 600)


@pytest.fixture(scope="module")
def gemma(tokenizer):
    gemma = tiny_gemma(len(tokenizer), special_token_ids(tokenizer))
    return accept_embeddings(gemma.requires_grad_(False))


def test_a_text_stands_in_the_assistants_turn(tokenizer):
    spoken = teacher_forced_answer(TEXTS[0], tokenizer)
    assert tokenizer.decode(spoken.prompt.input_ids) == (
        f"<bos><|turn>user\n{ask_to_speak().content}<turn|>\n<|turn>model\n"
    )
    assert tokenizer.decode(spoken.ids_S) == TEXTS[0] + "<turn|>"
    pieces = [TEXTS[0][start:end] for start, end in spoken.offsets]
    assert "".join(pieces) == TEXTS[0] and len(pieces) == len(spoken.ids_S) - 1


def test_a_text_after_a_question_stands_where_stage_3_taught_it(tokenizer):
    """Typed, and heard with its transcript before the answer."""
    typed = Turn("user", "Baako ne mmienu yɛ sɛn?")
    heard = replace(typed, spoken=True, frames_TD=torch.randn(7, 64))
    for question in (typed, heard):
        spoken = teacher_forced_answer(
            TEXTS[0], tokenizer, question, has_transcript=question.spoken
        )
        dialogue = Dialogue("a", (question, Turn("assistant", TEXTS[0])))
        row = encode_dialogue(with_chain_target(dialogue), tokenizer)
        ids = [*spoken.prompt.input_ids, *spoken.ids_S.tolist()]
        assert ids == row.input_ids[: len(ids)] and len(row.frames) == len(spoken.prompt.frames)
        pieces = [TEXTS[0][start:end] for start, end in spoken.offsets]
        assert "".join(pieces) == TEXTS[0] and len(pieces) == len(spoken.ids_S) - 1
        assert tokenizer.decode(spoken.ids_S) == TEXTS[0] + "<turn|>"


@pytest.mark.parametrize(
    ("text", "reason"), [("", "no letter"), ("...", "no letter"), ("a<turn|>b", "chat template")]
)
def test_what_cannot_be_said_is_refused(tokenizer, text, reason):
    with pytest.raises(InputError, match=reason):
        teacher_forced_answer(text, tokenizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_while_writing_equal_states_afterwards(gemma, tokenizer, dtype):
    # In float32 random weights amplify rounding; in float64 nothing is left but the convention.
    gemma = copy.deepcopy(gemma).to(dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    streamed = list(itertools.islice(stream_answer(gemma, tokenizer, [ask_to_speak()]), 12))
    ids_S = torch.cat([tokens.ids_S for tokens in streamed])
    text = replace(teacher_forced_answer("Ɛyɛ.", tokenizer), ids_S=ids_S)
    [known] = answer_states(gemma, [text])
    for name in ("states_SLD", "embeddings_SD"):
        piecewise = torch.cat([getattr(tokens, name) for tokens in streamed])
        afterwards = getattr(known, name)
        largest = float(afterwards.abs().max())
        torch.testing.assert_close(piecewise, afterwards, atol=tolerance * largest, rtol=0)


@pytest.mark.parametrize("layers", ["two_thirds", "none"])
def test_other_layers_can_be_read(gemma, tokenizer, layers):
    """One, or none at all: then only the tokens and their embeddings."""
    layers = [] if layers == "none" else pick_layers(layers, gemma)
    stream = stream_answer(gemma, tokenizer, [ask_to_speak()], layers=layers)
    streamed = list(itertools.islice(stream, 4))
    ids_S = torch.cat([tokens.ids_S for tokens in streamed])
    text = replace(teacher_forced_answer("Ɛyɛ.", tokenizer), ids_S=ids_S)
    [known] = answer_states(gemma, [text], layers)
    [default] = answer_states(gemma, [text])
    assert known.states_SLD.shape == (4, len(layers), 64)
    states_SLD = torch.cat([tokens.states_SLD for tokens in streamed])
    torch.testing.assert_close(states_SLD, known.states_SLD, atol=1e-4, rtol=0)
    # Of 8 layers the fifth: the last but three, and so the third of the last six.
    for i, layer in enumerate(layers):
        expected_SD = default.states_SLD[:, LAYERS.index(layer)]
        torch.testing.assert_close(known.states_SLD[:, i], expected_SD, atol=1e-5, rtol=0)
    assert torch.equal(known.ids_S, default.ids_S)


def test_states_are_those_of_the_adapter_where_there_is_one(gemma, tokenizer):
    torch.manual_seed(0)
    adapted = get_peft_model(copy.deepcopy(gemma), lora_config(2, 4, 0.0)).double().eval()
    text = teacher_forced_answer("Ɛyɛ.", tokenizer)
    [base] = answer_states(gemma, [text])
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
    streamed = list(itertools.islice(stream_answer(adapted, tokenizer, [ask_to_speak()]), 5))
    text = replace(text, ids_S=torch.cat([tokens.ids_S for tokens in streamed]))
    [known] = answer_states(adapted, [text])
    states_SLD = torch.cat([tokens.states_SLD for tokens in streamed])
    torch.testing.assert_close(states_SLD, known.states_SLD, atol=1e-8, rtol=0)
    assert (states_SLD[0] - base.states_SLD[0]).abs().max() > 0.1


def test_a_tokens_states_are_those_that_predicted_it(gemma, tokenizer):
    text = teacher_forced_answer(TEXTS[0], tokenizer)
    [tokens] = answer_states(gemma, [text])
    with torch.no_grad():
        whole_P = torch.cat([torch.tensor(text.prompt.input_ids), text.ids_S])
        output = gemma(input_ids=whole_P[None], output_hidden_states=True)
    first = len(text.prompt.input_ids) - 1
    for i, layer in enumerate(LAYERS):
        expected_SD = output.hidden_states[layer][0, first : first + len(text.ids_S)]
        torch.testing.assert_close(tokens.states_SLD[:, i], expected_SD, atol=1e-4, rtol=0)
    # The last of the layers leads to the logits of the token itself.
    cap = gemma.config.text_config.final_logit_softcapping
    logits_SV = torch.tanh(gemma.lm_head(tokens.states_SLD[:, -1]) / cap) * cap
    expected_SV = output.logits[0, first : first + len(text.ids_S)]
    torch.testing.assert_close(logits_SV, expected_SV, atol=1e-3, rtol=0)


def test_a_text_gives_the_same_states_alone_or_in_a_batch(gemma, tokenizer):
    heard = Turn("user", "Ɛhe?", spoken=True, frames_TD=torch.randn(7, 64))
    longer = replace(heard, frames_TD=torch.randn(12, 64))
    questions = [ask_to_speak(), heard, longer]
    texts = [
        teacher_forced_answer(text, tokenizer, question, has_transcript=question.spoken)
        for text, question in zip(TEXTS, questions, strict=True)
    ]
    for text, batched in zip(texts, answer_states(gemma, texts), strict=True):
        [alone] = answer_states(gemma, [text])
        torch.testing.assert_close(batched.states_SLD, alone.states_SLD, atol=1e-4, rtol=0)


def test_an_answer_that_does_not_end_is_refused(gemma, tokenizer):
    with pytest.raises(InputError, match="did not end within 2 tokens"):
        list(stream_answer(gemma, tokenizer, [Turn("user", "Kasa.")], max_tokens=2))
