"""Tiny models that belong together, for the tests of stage 4 (see the fixture `head_world`)."""

import shutil
from pathlib import Path

import torch
from conftest import run

from data_manifests.manifest import read_manifest, write_manifest
from speech_head import generate, states, train
from stage1_rvq import embed, train_reader
from stage3_finetune.dialogue import Dialogue, Turn, encode_dialogue
from stage3_finetune.generate import prompt_inputs

QUESTION = "Baako ne baako yɛ sɛn?"
ANSWER = "Baako ne baako yɛ mmienu."
CPU = ("--device", "cpu")
SMALL = (
    "--width", 32, "--num-layers", 2, "--num-heads", 2, "--depth-width", 32, "--depth-layers", 1,
    "--depth-heads", 2, "--batch-size", 4, "--save-every", 2, "--steps", 2, *CPU,
)  # fmt: skip


def build_head_world(folder: Path, tiny_models: Path, corpus: Path) -> None:
    """A Gemma that answers one question, Mimi, a manifest of six utterances, a reader of them,
    their states, and a head."""
    write_manifest(folder / "train.jsonl", list(read_manifest(corpus / "train.jsonl"))[:6])
    teach_gemma(
        tiny_models / "gemma", folder / "gemma", corpus / "audio" / "train_question_0000.wav"
    )
    manifest, gemma = folder / "train.jsonl", folder / "gemma"
    run(embed.main, "--manifest", manifest, "--gemma", gemma, "--out", folder / "embedded", *CPU)
    run(
        train_reader.main, "--embeddings", folder / "embedded", "--out", folder / "reader",
        "--num-units", 64, "--width", 32, "--steps", 30, "--learning-rate", 0.01, "--warmup-steps",
        5, *CPU,
    )  # fmt: skip
    shutil.copytree(tiny_models / "mimi", folder / "mimi")
    make_states(folder, folder / "states")
    make_head(folder, folder / "head", "--steps", 20, "--warmup-steps", 2, "--learning-rate", 0.01)


def teach_gemma(source, out, recording):
    """Teach the tiny Gemma one answer: to the question typed, and heard (with its transcript)."""
    conversation = generate.load_conversation(
        str(source), None, device=torch.device("cpu"), dtype=torch.float32
    )
    model, tokenizer = conversation.model, conversation.tokenizer
    heard = conversation.spoken_turn(recording)
    dialogues = [
        Dialogue("typed", (Turn("user", QUESTION), Turn("assistant", ANSWER))),
        Dialogue("heard", (heard, Turn("assistant", f"{QUESTION}\n{ANSWER}"))),
    ]
    decoder = model.model.language_model.requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3)
    for _ in range(40):
        for row in (encode_dialogue(dialogue, tokenizer) for dialogue in dialogues):
            inputs = prompt_inputs([row], tokenizer, model)
            model(**inputs, labels=torch.tensor([row.labels])).loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    shutil.copytree(source, out)
    model.save_pretrained(out)


def make_states(world, out, *words):
    return run(
        states.main, "--manifest", world / "train.jsonl", "--gemma", world / "gemma", "--mimi",
        world / "mimi", "--reader", world / "reader", "--out", out, *CPU, *words,
    )  # fmt: skip


def make_head(world, out, *words):
    folder = world / "states"
    return run(train.main, "--states", folder, "--dev-states", folder, "--out", out, *SMALL, *words)


def models(world):
    return (
        "--head", world / "head", "--gemma", world / "gemma", "--mimi", world / "mimi", *CPU,
    )  # fmt: skip
