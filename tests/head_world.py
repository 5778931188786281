"""Tiny models that belong together, for the tests of stage 4 (see the fixture `head_world`)."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from conftest import run

from data_manifests.manifest import read_manifest, write_manifest
from gemma4.layer_states import LAYERS
from speech_head import answer_parts, states, train
from speech_head import talker as talker_module
from speech_head.answer import AnswerTokens, WrittenAnswer, answer_states
from stage1_rvq import embed, train_recognizer
from stage3_finetune.dialogue import (
    NO_LABEL,
    Dialogue,
    Turn,
    encode_dialogue,
    encode_prompt,
    turn_end_id,
)
from stage3_finetune.generate import prompt_inputs

QUESTION = "Baako ne baako yɛ sɛn?"
ANSWER = "Baako ne baako yɛ mmienu."
MARGIN = 2.0  # of logits; rounding differs by about 1e-4 between processors
CPU = ("--device", "cpu")
SMALL = (
    "--width", 32, "--num-layers", 2, "--num-heads", 2, "--depth-width", 32, "--depth-layers", 1,
    "--depth-heads", 2, "--batch-size", 4, "--save-every", 2, "--steps", 2, *CPU,
)  # fmt: skip


def build_head_world(folder: Path, tiny_models: Path, corpus: Path) -> None:
    """A Gemma that answers one question, Mimi, a manifest of six utterances, a recogniser of them,
    their states, and a head."""
    folder.mkdir()
    write_manifest(folder / "train.jsonl", list(read_manifest(corpus / "train.jsonl"))[:6])
    teach_gemma(
        tiny_models / "gemma", folder / "gemma", corpus / "audio" / "train_question_0000.wav"
    )
    manifest, gemma = folder / "train.jsonl", folder / "gemma"
    run(embed.main, "--manifest", manifest, "--gemma", gemma, "--out", folder / "embedded", *CPU)
    run(
        train_recognizer.main, "--embeddings", folder / "embedded", "--out", folder / "recognizer",
        "--num-units", 64, "--width", 32, "--steps", 30, "--learning-rate", 0.01, "--warmup-steps",
        5, *CPU,
    )  # fmt: skip
    shutil.copytree(tiny_models / "mimi", folder / "mimi")
    make_states(folder, folder / "states")
    make_head(folder, folder / "head", "--steps", 20, "--warmup-steps", 2, "--learning-rate", 0.01)


def teach_gemma(source, out, recording):
    """Teach the tiny Gemma one answer: to the question typed, and heard (with its transcript).

    What it writes must not hang on how a processor rounds: see `teach_rows`.
    """
    conversation = talker_module.load_conversation(
        str(source), None, device=torch.device("cpu"), dtype=torch.float32
    )
    model, tokenizer = conversation.model, conversation.tokenizer
    heard = conversation.spoken_turn(recording)
    dialogues = [
        Dialogue("typed", (Turn("user", QUESTION), Turn("assistant", ANSWER))),
        Dialogue("heard", (heard, Turn("assistant", f"{QUESTION}\n{ANSWER}"))),
    ]
    teach_rows(model, tokenizer, [encode_dialogue(dialogue, tokenizer) for dialogue in dialogues])
    shutil.copytree(source, out)
    model.save_pretrained(out)


def teach_rows(model, tokenizer, rows):
    """Teach a tiny Gemma some dialogues, until every token it is to write is ahead of all others by
    `MARGIN`."""
    decoder = model.model.language_model.requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3)
    inputs = prompt_inputs(rows, tokenizer, model)
    length = inputs["input_ids"].shape[1]
    labels_BS = torch.tensor([[NO_LABEL] * (length - len(r.labels)) + r.labels for r in rows])
    margin = 0.0
    for _ in range(200):
        output = model(**inputs, labels=labels_BS)
        margin = smallest_margin(output.logits[:, :-1], labels_BS[:, 1:])
        if margin >= MARGIN:
            break
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert margin >= MARGIN, f"after 200 steps the margin is {margin:.2f}"


def smallest_margin(logits_BSV, labels_BS):
    """By how much the right token is ahead of the next one, where it is least."""
    is_learned_BS = labels_BS != NO_LABEL
    logits_NV, labels_N1 = logits_BSV[is_learned_BS].detach(), labels_BS[is_learned_BS][:, None]
    right_N1 = logits_NV.gather(1, labels_N1)
    others_N = logits_NV.scatter(1, labels_N1, -torch.inf).amax(dim=1)
    return float((right_N1[:, 0] - others_N).min())


def let_gemma_write(monkeypatch, text):
    """Gemma answers this to whatever it is asked, or one after another of several texts; its states
    are its own.

    For conversations that the tiny Gemma was not taught: what it would write there, and whether it
    would come to an end, hangs on rounding.
    """

    texts = [text] if isinstance(text, str) else list(text)

    def stream(gemma, tokenizer, turns, *, layers=LAYERS, **settings):
        text = texts.pop(0) if len(texts) > 1 else texts[0]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [turn_end_id(tokenizer)]
        answer = WrittenAnswer(
            text=text, prompt=encode_prompt(turns, tokenizer), ids_S=torch.tensor(ids)
        )
        [tokens] = answer_states(gemma, [answer], layers)
        for i in range(len(ids)):
            yield AnswerTokens(*(value[i : i + 1] for value in vars(tokens).values()))

    monkeypatch.setattr(answer_parts, "stream_answer", stream)


def alone(talker):
    """The same models with a conversation of their own, in which speech is answered at once."""
    conversation = talker.conversation.continuing([])
    conversation.writes_transcripts = False
    return replace(talker, conversation=conversation)


def make_states(world, out, *words):
    return run(
        states.main, "--manifest", world / "train.jsonl", "--gemma", world / "gemma", "--mimi",
        world / "mimi", "--recognizer", world / "recognizer", "--out", out, *CPU, *words,
    )  # fmt: skip


def make_head(world, out, *words):
    folder = world / "states"
    return run(train.main, "--states", folder, "--dev-states", folder, "--out", out, *SMALL, *words)


def models(world):
    return (
        "--head", world / "head", "--gemma", world / "gemma", "--mimi", world / "mimi", *CPU,
    )  # fmt: skip
