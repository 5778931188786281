"""The commands of the rehearsal, and how much memory each is planned to take.

Every command that a user will run, once: models of true size, corpora in miniature, two steps a
training.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import snapshot_download
from safetensors import safe_open

from commands.json_files import read_json
from gemma4.memory_plan import GIB, LIBRARIES
from pipeline.steps import Step, read_steps

Size = Literal["E2B", "E4B", "tiny"]
TOWER = "model.audio_tower."
FLOAT32_BYTES = 4
TRAINED_BYTES = 4 * FLOAT32_BYTES  # a weight, its gradient, and two moments

# Commands that load the audio tower alone where they are given a Gemma; in float32, by default.
HEARS_ONLY = (
    "stage1_rvq.embed", "stage1_rvq.tokenize_corpus", "stage1_rvq.evaluate", "speech_head.train",
)  # fmt: skip
# Commands that load the audio tower in float32 beside a Gemma in bfloat16.
HEARS_IN_FLOAT32 = ("pipeline.preflight",)

# Stage 3 learns from single questions: a Speechless of two steps speaks each for up to half a
# minute, and five of them in a row are longer than any conversation of people.
COMMANDS = """
checks pipeline.preflight
    --gemma {gemma} --mimi {mimi} --device {device} --dtype {dtype}

data data_manifests.check
    --manifest {corpus}/train.jsonl --out {out}/check

stage1 stage1_rvq.embed
    --manifest {corpus}/train.jsonl --gemma {gemma} --device {device} --out {out}/embeddings/train

stage1 stage1_rvq.embed
    --manifest {corpus}/dev.jsonl --gemma {gemma} --device {device} --out {out}/embeddings/dev

stage1 stage1_rvq.train_recognizer
    --embeddings {out}/embeddings/train --dev-embeddings {out}/embeddings/dev --num-units 64
    --batch-size 4 --steps 2 --save-every 2 --device {device} --out {out}/recognizer

stage1 stage1_rvq.train
    --embeddings {out}/embeddings/train --dev-embeddings {out}/embeddings/dev
    --recognizer {out}/recognizer --task-utterances 2 --codebook-size {codebook_size}
    --steps 2 --save-every 1 --device {device} --out {out}/rvq

stage1 stage1_rvq.evaluate
    --rvq {out}/rvq --embeddings {out}/embeddings/dev --recognizer {out}/recognizer
    --manifest {corpus}/dev.jsonl --gemma {gemma} --device {device} --out {out}/rvq-test

stage1 stage1_rvq.tokenize_corpus
    --embeddings {out}/embeddings/train --rvq {out}/rvq --jsonl --device {device}
    --out {out}/codes/train

stage1 stage1_rvq.tokenize_corpus
    --manifest {corpus}/dev.jsonl --rvq {out}/rvq --gemma {gemma} --device {device}
    --out {out}/codes/dev

stage1 stage1_rvq.tokenize_corpus
    --manifest {corpus}/dev.jsonl --rvq {out}/rvq --gemma {gemma} --dtype bfloat16
    --device {device} --out {out}/codes/dev-bfloat16

stage1 stage1_rvq.compare_codes
    --codes {out}/codes/dev --other-codes {out}/codes/dev-bfloat16 --rvq {out}/rvq
    --recognizer {out}/recognizer --device {device}

stage1 stage1_rvq.export
    --rvq {out}/rvq --metrics {out}/rvq-test --dev-embeddings {out}/embeddings/dev
    --out {out}/rvq-repository

stage2 stage2_speechless.train
    --codes {out}/codes/train --dev-codes {out}/codes/dev --rvq {out}/rvq
    --recognizer {out}/recognizer --num-dev-sentences 2 --batch-size 4 --steps 2 --save-every 2
    --device {device} --out {out}/speechless

stage2 stage2_speechless.evaluate
    --speechless {out}/speechless --codes {out}/codes/dev --rvq {out}/rvq
    --recognizer {out}/recognizer --device {device} --out {out}/speechless-test

stage2 stage2_speechless.generate
    --speechless {out}/speechless --text {corpus}/sentences.txt --device {device}
    --out {out}/spoken-sentences

stage1 stage1_rvq.transcribe
    --codes {out}/spoken-sentences --rvq {out}/rvq --recognizer {out}/recognizer
    --device {device} --out {out}/heard.jsonl

stage3 stage3_finetune.build_dialogues
    --table {corpus}/train.csv --user instruction --out {out}/dialogues/train

stage3 stage3_finetune.build_dialogues
    --table {corpus}/dev.csv --user instruction --out {out}/dialogues/dev

stage3 stage3_finetune.speak_dialogues
    --dialogues {out}/dialogues/train/dialogues.jsonl --speechless {out}/speechless
    --device {device} --out {out}/spoken-dialogues

stage3 stage3_finetune.train
    --dialogues {out}/spoken-dialogues --rvq {out}/rvq --gemma {gemma} --batch-size 2
    --accumulate 1 --joined-share 0 --steps 2 --save-every 2 --device {device} --dtype {dtype}
    --out {out}/finetune

stage3 stage3_finetune.chat
    --gemma {gemma} --finetune {out}/finetune --prompt {question} --max-new-tokens 8
    --device {device} --dtype {dtype}

stage3 stage3_finetune.chat
    --gemma {gemma} --finetune {out}/finetune --audio {recording} --max-new-tokens 8
    --device {device} --dtype {dtype}

stage3 stage3_finetune.evaluate
    --gemma {gemma} --finetune {out}/finetune --recognizer {out}/recognizer
    --dialogues {out}/dialogues/dev/dialogues.jsonl --recordings {corpus}/dev.jsonl
    --max-new-tokens 8 --device {device} --dtype {dtype} --out {out}/finetune-test

stage3 stage3_finetune.export
    --gemma {gemma} --finetune {out}/finetune --out {out}/gemma-repository

head speech_head.states
    --manifest {corpus}/dev.jsonl --gemma {gemma} --finetune {out}/finetune --mimi {mimi}
    --recognizer {out}/recognizer --dialogues {out}/spoken-dialogues --rvq {out}/rvq
    --batch-size 2 --device {device} --dtype {dtype} --out {out}/states

head speech_head.train
    --states {out}/states --dev-states {out}/states --batch-size 2 --steps 2 --save-every 2
    --device {device} --out {out}/head

head speech_head.evaluate
    --head {out}/head --gemma {gemma} --finetune {out}/finetune --mimi {mimi}
    --texts {corpus}/sentences.txt --num-utterances 1 --recognizer {out}/recognizer
    --device {device} --dtype {dtype} --out {out}/head-test

head speech_head.judge
    --speech {out}/head-test --recognizer {out}/recognizer --gemma {gemma} --device {device}
    --out {out}/head-judged

head speech_head.speak
    --head {out}/head --gemma {gemma} --finetune {out}/finetune --mimi {mimi}
    --text {question} --device {device} --dtype {dtype} --out {out}/said.wav

chat voice_chat.chat
    --head {out}/head --gemma {gemma} --finetune {out}/finetune --mimi {mimi}
    --max-new-tokens 8 --cut-long-answers --device {device} --dtype {dtype} --out {out}/chat
    < {corpus}/typed.txt

checks pipeline.preflight
    --gemma {gemma} --mimi {mimi} --rvq {out}/rvq --finetune {out}/finetune --head {out}/head
    --recording {recording} --device {device} --dtype {dtype}
"""
DRAW = """
models gemma4.draw_checkpoint
    --size {size} --out {out}/gemma
"""


@dataclass(frozen=True)
class RehearsalFolders:
    """Where the rehearsal finds and writes what.

    Attributes:
        out: the rehearsal's folder.
        gemma: the checkpoint, which the first step draws unless it was given.
        mimi: the codec.
        corpus: the miniature corpus.
    """

    out: Path
    gemma: str
    mimi: str
    corpus: Path


def rehearsal_steps(
    folders: RehearsalFolders,
    *,
    size: Size | None,
    codebook_size: int,
    question: str,
    recording: str,
    device: str,
    dtype: str,
) -> list[Step]:
    """The commands in order.

    Args:
        folders: where everything is.
        size: size of the Gemma to draw; None where one was given.
        codebook_size: codes of a codebook, as many as the miniature corpus allows.
        question: what is typed.
        recording: what is asked aloud.
        device: for every command that has the flag.
        dtype: precision of the whole Gemma.
    """
    values = {
        **vars(folders), "size": size, "codebook_size": codebook_size, "question": question,
        "recording": recording, "device": device, "dtype": dtype,
    }  # fmt: skip
    return read_steps((DRAW if size else "") + COMMANDS, values)


def planned_memory(step: Step, dtype_bytes: int) -> int:
    """Memory that a command is planned to take, in bytes; after it has run.

    Libraries and weights of large models; of models that are trained their gradients and AdamW's
    moments, too. `stage3_finetune.train` plans activations as well; elsewhere what is computed
    comes on top. On a GPU the weights are there and not in the host.
    """
    recorded = step.out / "provenance.json" if step.out else None
    facts = read_json(recorded) if recorded and recorded.exists() else {}
    if step.command == "stage3_finetune.train":
        return LIBRARIES + round(GIB * facts.get("memory_planned_gib", 0.0))
    planned = LIBRARIES + TRAINED_BYTES * facts.get("num_parameters", 0)
    gemma, mimi = step.value_of("--gemma"), step.value_of("--mimi")
    tower = FLOAT32_BYTES * sum(n for name, n in _sizes(gemma) if name.startswith(TOWER))
    if gemma and step.command in HEARS_ONLY:
        planned += tower
    elif gemma:
        planned += dtype_bytes * sum(n for _, n in _sizes(gemma))
        if step.command in HEARS_IN_FLOAT32 and dtype_bytes != FLOAT32_BYTES:
            planned += tower
    if mimi:
        planned += FLOAT32_BYTES * sum(n for _, n in _sizes(mimi))
    return planned


def _sizes(name: str) -> Iterator[tuple[str, int]]:
    """Name and number of elements of every tensor of a checkpoint; nothing where none is named, or
    it is on the hub and was not downloaded yet."""
    if not name:
        return
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except (OSError, ValueError):
            return
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for tensor in sorted(file.keys()):
                yield tensor, math.prod(file.get_slice(tensor).get_shape())
