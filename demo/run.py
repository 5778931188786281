"""Run all four stages, from a text corpus to a spoken answer, offline on a laptop.

    python -m demo.run --out runs/demo

Every step is one of the project's own commands; its command line is printed, so that each can be
run by itself. If it is run again, it continues where it stopped. At the end it writes
`report.json`, `report.html` and `answer.wav`.
"""

import os
import resource
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

from commands.command_line import parse_config, run_command
from commands.setting_types import Seed
from data_manifests.manifest import read_manifest
from pipeline.report import About, write_report
from pipeline.run_steps import in_this_process, run_steps
from pipeline.steps import Step, read_steps

Effort = Literal["check", "demo", "full"]
CAVEAT = (
    "Held-out questions by held-out voices, but of a synthesiser and about a small world: the "
    "numbers compare systems with each other and say nothing about people."
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run all four stages on the demo's own corpus and models."""

    out: Path = Path("runs/demo")
    """folder for everything the demo makes"""
    effort: Effort = "demo"
    """demo: a quarter of an hour; full: all questions, about four times the steps, and two systems
    to compare with; check: a few steps per stage, which only shows that everything runs"""
    compare: bool = True
    """with full: also train the two systems that the others are compared with"""
    seed: Seed = 0
    """seed for every stage"""


# The amount of work in each stage: for check, demo and full.
SIZES: dict[str, tuple[float, float, float]] = {
    "num_questions": (8, 900, 0),
    "num_held_out": (2, 100, 0),
    "codebook_size": (16, 256, 256),
    "rvq_steps": (2, 200, 600),
    # WER on dev after 600 steps at 0.004: 0.08 to 0.10; after 1,200 0.035, at 0.008 0.025.
    "recognizer_steps": (2, 1200, 4000),
    "recognizer_batch": (16, 32, 16),
    "recognizer_rate": (0.003, 0.008, 0.003),
    "speechless_steps": (2, 1300, 4000),
    "speechless_rate": (0.003, 0.012, 0.006),
    "speechless_width": (64, 128, 192),
    "speechless_depth_width": (32, 64, 128),
    "max_cer": (100, 0.3, 0.3),
    "takes": (3, 2, 3),
    "finetune_steps": (2, 300, 1000),
    # WER of the demo's spoken answers 0.271; after 1,200 steps, for which there is no time, 0.242.
    "head_steps": (2, 700, 3000),
    "head_rate": (0.003, 0.012, 0.006),
    "head_width": (64, 128, 192),
    "head_depth_width": (48, 96, 144),
    "head_dev_sentences": (2, 32, 96),
    "save_every": (2, 350, 500),
}

# What the two systems that the others are compared with are called, and the flags that name them.
COMPARED = {"--direct-finetune": "finetune-direct", "--parallel-head": "head-parallel"}

# A paragraph for every command: the stage that its time counts for, the command, and its words, in
# which names in braces are replaced.
COMMANDS = """
corpus demo.world.make_corpus
    --num-questions {num_questions} --num-held-out {num_held_out} --seed {seed} --out {out}/corpus

stage1 stage1_rvq.embed
    --manifest {out}/corpus/train.jsonl --gemma {weights}/gemma --out {out}/embeddings/train

stage1 stage1_rvq.embed
    --manifest {out}/corpus/dev.jsonl --gemma {weights}/gemma --out {out}/embeddings/dev

stage1 stage1_rvq.embed
    --manifest {out}/corpus/test.jsonl --gemma {weights}/gemma --out {out}/embeddings/test

stage1 stage1_rvq.train_recognizer
    --embeddings {out}/embeddings/train --dev-embeddings {out}/embeddings/dev
    --num-units 128 --width 128 --batch-size {recognizer_batch}
    --learning-rate {recognizer_rate} --warmup-steps 30 --steps {recognizer_steps}
    --save-every {save_every} --seed {seed} --device cpu --out {out}/recognizer

stage1 stage1_rvq.train
    --embeddings {out}/embeddings/train --dev-embeddings {out}/embeddings/dev
    --recognizer {out}/recognizer --codebook-size {codebook_size} --batch-frames 1024
    --warmup-steps 20
    --steps {rvq_steps} --save-every {save_every} --seed {seed} --device cpu --out {out}/rvq

stage1 stage1_rvq.evaluate
    --rvq {out}/rvq --recognizer {out}/recognizer --embeddings {out}/embeddings/test
    --out {out}/rvq-test

stage1 stage1_rvq.tokenize_corpus
    --embeddings {out}/embeddings/train --rvq {out}/rvq --out {out}/codes/train

stage1 stage1_rvq.tokenize_corpus
    --embeddings {out}/embeddings/dev --rvq {out}/rvq --out {out}/codes/dev

stage1 stage1_rvq.tokenize_corpus
    --embeddings {out}/embeddings/test --rvq {out}/rvq --out {out}/codes/test

stage2 stage2_speechless.train
    --codes {out}/codes/train --dev-codes {out}/codes/dev --rvq {out}/rvq
    --recognizer {out}/recognizer
    --width {speechless_width} --num-layers 4 --num-heads 4
    --depth-width {speechless_depth_width} --depth-heads 4 --dropout 0 --num-dev-sentences 32
    --batch-size 16 --learning-rate {speechless_rate} --warmup-steps 30
    --steps {speechless_steps}
    --save-every {save_every} --seed {seed} --device cpu --out {out}/speechless

stage2 stage2_speechless.evaluate
    --speechless {out}/speechless --codes {out}/codes/test --rvq {out}/rvq
    --recognizer {out}/recognizer
    --out {out}/speechless-test

stage3 stage3_finetune.speak_dialogues
    --dialogues {out}/corpus/dialogues_train.jsonl --speechless {out}/speechless --dialect asante
    --rvq {out}/rvq --recognizer {out}/recognizer --takes {takes} --max-cer {max_cer}
    --batch-size 192 --out {out}/spoken-dialogues

stage3 stage3_finetune.train
    --dialogues {out}/spoken-dialogues --rvq {out}/rvq --gemma {weights}/gemma --target chain
    --batch-size 8 --accumulate 1 --learning-rate 0.002 --warmup-steps 20
    --no-gradient-checkpointing --steps {finetune_steps} --save-every {save_every} --seed {seed}
    --device cpu --out {out}/finetune

stage3 stage3_finetune.train
    --dialogues {out}/spoken-dialogues --rvq {out}/rvq --gemma {weights}/gemma --target direct
    --batch-size 8 --accumulate 1 --learning-rate 0.002 --warmup-steps 20
    --no-gradient-checkpointing --steps {finetune_steps} --save-every {save_every} --seed {seed}
    --device cpu --out {out}/finetune-direct

stage3 stage3_finetune.evaluate
    --gemma {weights}/gemma --finetune {out}/finetune --direct-finetune {out}/finetune-direct
    --recognizer {out}/recognizer --dialogues {out}/corpus/dialogues_test.jsonl
    --recordings {out}/corpus/test.jsonl --max-new-tokens 48 --out {out}/finetune-test

speech_head speech_head.states
    --manifest {out}/corpus/answers_train.jsonl --gemma {weights}/gemma --finetune {out}/finetune
    --mimi {weights}/mimi --recognizer {out}/recognizer --dialogues {out}/spoken-dialogues
    --rvq {out}/rvq --out {out}/states/train

speech_head speech_head.states
    --manifest {out}/corpus/answers_dev.jsonl --gemma {weights}/gemma --finetune {out}/finetune
    --mimi {weights}/mimi --recognizer {out}/recognizer --dialogues {out}/spoken-dialogues
    --rvq {out}/rvq --out {out}/states/dev

speech_head speech_head.train
    --states {out}/states/train --dev-states {out}/states/dev --recognizer {out}/recognizer
    --gemma {weights}/gemma --mimi {weights}/mimi --num-dev-sentences {head_dev_sentences}
    --width {head_width} --num-heads 4 --batch-size 16 --warmup-steps 30 --steps {head_steps}
    --save-every {save_every} --seed {seed} --device cpu --num-layers 3
    --depth-width {head_depth_width} --depth-heads 4 --learning-rate {head_rate} --out {out}/head

speech_head speech_head.train
    --states {out}/states/train --dev-states {out}/states/dev --recognizer {out}/recognizer
    --gemma {weights}/gemma --mimi {weights}/mimi --num-dev-sentences {head_dev_sentences}
    --width {head_width} --num-heads 4 --batch-size 16 --warmup-steps 30 --steps {head_steps}
    --save-every {save_every} --seed {seed} --device cpu --architecture parallel
    --learning-rate 0.001 --out {out}/head-parallel

speech_head speech_head.evaluate
    --dialogues {out}/corpus/dialogues_test.jsonl --questions {out}/corpus/test.jsonl
    --manifest {out}/corpus/answers_test.jsonl --gemma {weights}/gemma --finetune {out}/finetune
    --mimi {weights}/mimi --head {out}/head --parallel-head {out}/head-parallel
    --recognizer {out}/recognizer --out {out}/head-test

chat speech_head.speak
    --gemma {weights}/gemma --finetune {out}/finetune --mimi {weights}/mimi --head {out}/head
    --audio {out}/corpus/audio/test_question_0000.wav --json --max-new-tokens 64
    --cut-long-answers --out {out}/answer.wav
"""


def main(argv: list[str] | None = None) -> None:
    """Run the demo; prints the table and where the results are."""
    config = parse_config(RunConfig, argv)
    steps = plan(config.out, config.effort, config.seed, compare=config.compare)
    seconds = run_steps(steps, config.out, in_this_process)
    peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    first_test = next(iter(read_manifest(config.out / "corpus" / "test.jsonl")))
    question = (first_test.text, Path(first_test.audio))
    about = About("Spoken Twi: demo report", CAVEAT, question)
    write_report(config.out, seconds, peak_rss_mb, about)
    print((config.out / "report.txt").read_text(encoding="utf-8"))
    print(config.out / "report.html")
    print(config.out / "answer.wav")


def plan(out: Path, effort: Effort, seed: int, *, compare: bool = True) -> list[Step]:
    """The commands of the demo, in order.

    Args:
        out: folder for all of it.
        effort: how much of it; "demo" leaves out what is only compared with.
        seed: of every stage.
        compare: False leaves that out of the others, too.
    """
    # As on a command line: relative to the current folder.
    weights = os.path.relpath(Path(__file__).parent / "weights")
    column = get_args(Effort).index(effort)
    sizes = {name: by_effort[column] for name, by_effort in SIZES.items()}
    steps = read_steps(COMMANDS, {**sizes, "out": out, "seed": seed, "weights": weights})
    return steps if compare and effort != "demo" else _without_comparisons(steps)


def _without_comparisons(steps: Sequence[Step]) -> list[Step]:
    kept = (step for step in steps if step.out is None or step.out.name not in COMPARED.values())
    return [replace(step, words=_without_flags(step.words, COMPARED)) for step in kept]


def _without_flags(words: Sequence[str], flags: Container[str]) -> tuple[str, ...]:
    """Words of a command line without some flags and the value behind each."""
    pairs = pairwise(("", *words))
    return tuple(word for before, word in pairs if word not in flags and before not in flags)


if __name__ == "__main__":
    run_command(main)
