"""A valid example of every input there is, small: what the attacks damage.

    python -m tests.attacks.world --out /tmp/world

Made by the commands themselves, of tiny models with random weights and of noise that pretends to be
speech, so that espeak-ng is not needed.

    gemma/ mimi/ llama/ asr/ voices/        models of transformers train.jsonl audio/
    dialogues.jsonl sentences.txt embeddings/ recognizer/ rvq/ published/ codes/ speechless/ spoken/
    finetune/ states/ head/ parallel/ speech/                       one folder for each command that
    writes one unfinished-rvq/ ...                     the same, stopped halfway: what --resume
    takes up
"""

import importlib
import io
import json
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WavLMConfig,
    WavLMForXVector,
)

from commands.command_line import parse_config, run_command
from data_manifests.manifest import Utterance, write_manifest
from demo import tiny_models

SENTENCES = (
    "Me din de Ama.", "Wo ho te sɛn?", "Baako ne baako yɛ mmienu.", "Medaase paa.",
    "Kofi kɔ sukuu.", "Yɛbɛhyia ɔkyena.", "Nsuo no yɛ nwini.", "Maakye.",
)  # fmt: skip
CPU = ("--device", "cpu")
SHORT = ("--steps", 4, "--save-every", 2, "--warmup-steps", 1, *CPU)
# A recogniser and a model of voices, as small as they get.
EAR = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "conv_dim": (8, 8), "conv_stride": (10, 8), "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Make one small, valid example of every input."""

    out: Path
    """new folder"""


@dataclass(frozen=True)
class Step:
    """A command that makes a part of the world."""

    command: str
    words: tuple[object, ...]


def main(argv: list[str] | None = None) -> None:
    """Make the world; prints its folder."""
    world = parse_config(WorldConfig, argv).out
    build_world(world)
    print(world)


def build_world(world: Path) -> None:
    """Make everything, in a new folder."""
    world.mkdir(parents=True)
    write_speech(world)
    save_models(world)
    for step in plan(world):
        with redirect_stdout(io.StringIO()):
            importlib.import_module(step.command).main(list(map(str, step.words)))
    for name in ("recognizer", "rvq", "speechless", "head"):
        shutil.copytree(world / name, world / f"unfinished-{name}")
        (world / f"unfinished-{name}" / "done").unlink()
        newest = sorted((world / f"unfinished-{name}" / "checkpoints").iterdir())[-1]
        shutil.rmtree(newest)


def write_speech(world: Path) -> None:
    """Recordings, a manifest of them, dialogues and sentences."""
    (world / "audio").mkdir()
    utterances = []
    for number, text in enumerate(SENTENCES):
        noise_N = 0.1 * np.random.default_rng(number).standard_normal(32_000 + 1600 * number)
        path = world / "audio" / f"{number}.wav"
        soundfile.write(path, noise_N.astype(np.float32), 16_000)
        utterances.append(
            Utterance(
                id=f"u{number}", audio=f"audio/{number}.wav", text=text,
                duration_s=len(noise_N) / 16_000, speaker=f"s{number % 2}", dialect="asante",
                corpus="noise", split="train", license="CC0-1.0",
            )
        )  # fmt: skip
    write_manifest(world / "train.jsonl", utterances)
    rows = [
        {
            "id": f"d{number}",
            "messages": [
                {"role": "user", "content": question, "spoken": True},
                {"role": "assistant", "content": answer},
            ],
        }
        for number, (question, answer) in enumerate(
            zip(SENTENCES[::2], SENTENCES[1::2], strict=True)
        )
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (world / "dialogues.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (world / "sentences.txt").write_text("\n".join(SENTENCES[:2]) + "\n", encoding="utf-8")


def save_models(world: Path) -> None:
    """The models, as they are published."""
    with redirect_stdout(io.StringIO()):
        tiny_models.main(["--out", str(world / "tiny")])
    for name in ("gemma", "mimi"):
        shutil.copytree(world / "tiny" / name, world / name)
    torch.manual_seed(0)
    llama = LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=48, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(llama).save_pretrained(world / "llama")
    letters = {token: number for number, token in enumerate(["<pad>", "<unk>", "|", *"abdeɛ"])}
    (world / "asr").mkdir()
    vocabulary = world / "asr" / "vocab.json"
    vocabulary.write_text(json.dumps(letters), encoding="utf-8")
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), pad_token="<pad>")
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(world / "asr")
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), pad_token_id=0, **EAR)).save_pretrained(
        world / "asr"
    )
    WavLMForXVector(
        WavLMConfig(
            tdnn_dim=(8, 8), tdnn_kernel=(3, 1), tdnn_dilation=(1, 1), xvector_output_dim=8, **EAR
        )
    ).save_pretrained(world / "voices")
    extractor.save_pretrained(world / "voices")


def plan(world: Path) -> Sequence[Step]:
    """The commands, in order."""
    gemma = ("--gemma", world / "gemma")
    mimi = ("--mimi", world / "mimi")
    embeddings, codes = ("--embeddings", world / "embeddings"), ("--codes", world / "codes")
    rvq, recognizer = ("--rvq", world / "rvq"), ("--recognizer", world / "recognizer")
    small = ("--width", 32, "--num-layers", 1, "--num-heads", 2)
    depth = ("--depth-width", 32, "--depth-layers", 1, "--depth-heads", 2)

    def step(command: str, out: str, *words: object) -> Step:
        return Step(command, (*words, "--out", world / out))

    head = ("--states", world / "states", "--dev-states", world / "states", *small, *SHORT)
    return [
        step("stage1_rvq.embed", "embeddings", "--manifest", world / "train.jsonl", *gemma, *CPU),
        step(
            "stage1_rvq.train_recognizer", "recognizer", *embeddings, "--num-units", 40,
            "--width", 16,
            "--num-layers", 1, *SHORT,
        ),
        step(
            "stage1_rvq.train", "rvq", *embeddings, "--codebook-size", 16, "--batch-frames", 128,
            "--num-codebooks", 4, *SHORT,
        ),
        step("stage1_rvq.export", "published", *rvq),
        step("stage1_rvq.tokenize_corpus", "codes", *embeddings, *rvq, *CPU),
        step(
            "stage2_speechless.train", "speechless", *codes, "--dev-codes", world / "codes",
            *small, *depth, "--batch-size", 4, *SHORT,
        ),
        step(
            "stage3_finetune.speak_dialogues", "spoken", "--dialogues", world / "dialogues.jsonl",
            "--speechless", world / "speechless", *CPU,
        ),
        step(
            "stage3_finetune.train", "finetune", "--dialogues", world / "spoken", *rvq, *gemma,
            "--lora-rank", 2, "--batch-size", 2, "--accumulate", 1, *SHORT,
        ),
        step(
            "speech_head.states", "states", "--manifest", world / "train.jsonl", *recognizer,
            *gemma,
            *mimi, *CPU,
        ),
        step("speech_head.train", "head", *head, *depth, "--batch-size", 4),
        step("speech_head.train", "parallel", *head, "--architecture", "parallel"),
        step(
            "speech_head.evaluate", "speech", "--head", world / "head", *gemma, *mimi,
            "--manifest", world / "train.jsonl", "--num-utterances", 2, *CPU,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    run_command(main)
