"""Run all four stages, from a text corpus to a spoken answer, offline on a laptop.

    python -m demo.run --out runs/demo

Every step is one of the project's own commands; its command line is printed, so that each can be
run by itself. If it is run again, it continues where it stopped. At the end it writes
`report.json`, `report.html` and `answer.wav`.
"""

import importlib
import io
import os
import resource
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from commands.atomic_write import remove, write_json, write_text
from commands.command_line import parse_config, run_command
from commands.finished_folder import flag_to_use_again
from commands.json_files import read_json
from commands.setting_types import Seed
from pipeline.report import build_report, write_html

Effort = Literal["check", "demo", "full"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run all four stages on the demo's own corpus and models."""

    out: Path = Path("runs/demo")
    """folder for everything the demo makes"""
    effort: Effort = "demo"
    """demo: a quarter of an hour; full: all questions and about four times the steps; check: a few
    steps per stage, which only shows that everything runs"""
    seed: Seed = 0
    """seed for every stage"""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The amount of work in each stage."""

    num_questions: int
    num_held_out: int
    codebook_size: int
    rvq_steps: int
    reader_steps: int
    speechless_steps: int
    speechless_width: int
    speechless_depth_width: int
    max_cer: float
    finetune_steps: int
    head_steps: int
    head_width: int
    head_dev_sentences: int
    save_every: int


SIZES: dict[Effort, Sizes] = {
    "check": Sizes(
        num_questions=16, num_held_out=4, codebook_size=16, rvq_steps=4, reader_steps=4,
        speechless_steps=4, speechless_width=64, speechless_depth_width=32, max_cer=100,
        finetune_steps=2, head_steps=4, head_width=64, head_dev_sentences=2,
        save_every=2,
    ),
    "demo": Sizes(
        num_questions=900, num_held_out=100, codebook_size=256, rvq_steps=200, reader_steps=1000,
        speechless_steps=1500, speechless_width=128, speechless_depth_width=64, max_cer=0.3,
        finetune_steps=300, head_steps=700, head_width=128, head_dev_sentences=32,
        save_every=250,
    ),
    "full": Sizes(
        num_questions=0, num_held_out=0, codebook_size=256, rvq_steps=600, reader_steps=4000,
        speechless_steps=6500, speechless_width=192, speechless_depth_width=128, max_cer=0.3,
        finetune_steps=1000, head_steps=3000, head_width=192, head_dev_sentences=96,
        save_every=500,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One command of the demo, and the stage its time counts for."""

    stage: str
    command: str
    words: tuple[str, ...]
    # The folder or file it writes.
    out: Path
    # The file it writes last; if it exists, the step is skipped.
    last: Path


def main(argv: list[str] | None = None) -> None:
    """Run the demo; prints the table and where the results are."""
    config = parse_config(RunConfig, argv)
    seconds_path = config.out / "seconds.json"
    seconds: dict[str, float] = read_json(seconds_path) if seconds_path.exists() else {}
    steps = list(plan(config.out, SIZES[config.effort], config.seed))
    for number, step in enumerate(steps, start=1):
        line = f"python -m {step.command} {shlex.join(step.words)}"
        print(f"\n[{number}/{len(steps)}] {step.stage}\n$ {line}", file=sys.stderr)
        if step.last.exists():
            print("done before", file=sys.stderr)
            continue
        started = time.monotonic()
        written = _run_step(step)
        seconds[step.stage] = seconds.get(step.stage, 0.0) + time.monotonic() - started
        write_json(seconds_path, seconds)
        if step.last.suffix == ".json":
            write_text(step.last, written)
    peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = build_report(config.out, seconds, peak_rss_mb)
    write_json(config.out / "report.json", report)
    write_html(config.out / "report.html", config.out, report)
    print((config.out / "report.txt").read_text(encoding="utf-8"))
    print(config.out / "report.html")
    print(config.out / "answer.wav")


def plan(out: Path, sizes: Sizes, seed: int) -> Iterator[Step]:
    """The commands of the demo, in order."""
    corpus = out / "corpus"
    # As on a command line: relative to the current folder.
    weights = Path(os.path.relpath(Path(__file__).parent / "weights"))
    gemma, mimi = weights / "gemma", weights / "mimi"
    save = ("--save-every", sizes.save_every)
    train = (*save, "--seed", seed, "--device", "cpu")

    def step(stage: str, command: str, out: Path, *words: object) -> Step:
        last = out.with_suffix(".json") if out.suffix else out / "done"
        return Step(stage, command, (*map(str, words), "--out", str(out)), out, last)

    yield step(
        "corpus", "demo.world.make_corpus", corpus, "--num-questions", sizes.num_questions,
        "--num-held-out", sizes.num_held_out, "--seed", seed,
    )  # fmt: skip

    for split in ("train", "dev", "test"):
        yield step(
            "stage1", "stage1_rvq.embed", out / "embeddings" / split,
            "--manifest", corpus / f"{split}.jsonl", "--gemma", gemma,
        )  # fmt: skip
    train_embeddings, dev_embeddings, test_embeddings = (
        out / "embeddings" / split for split in ("train", "dev", "test")
    )
    embeddings = ("--embeddings", train_embeddings, "--dev-embeddings", dev_embeddings)
    yield step(
        "stage1", "stage1_rvq.train_reader", out / "reader", *embeddings,
        "--num-units", 128, "--width", 128, "--batch-size", 16, "--learning-rate", 3e-3,
        "--warmup-steps", 30, "--steps", sizes.reader_steps, *train,
    )  # fmt: skip
    yield step(
        "stage1", "stage1_rvq.train", out / "rvq", *embeddings, "--reader", out / "reader",
        "--codebook-size", sizes.codebook_size, "--batch-frames", 1024, "--warmup-steps", 20,
        "--steps", sizes.rvq_steps, *train,
    )  # fmt: skip
    rvq, reader = ("--rvq", out / "rvq"), ("--reader", out / "reader")
    yield step(
        "stage1", "stage1_rvq.evaluate", out / "rvq-test",
        *rvq, *reader, "--embeddings", test_embeddings,
    )  # fmt: skip
    for split in ("train", "dev", "test"):
        yield step(
            "stage1", "stage1_rvq.tokenize_corpus", out / "codes" / split,
            "--embeddings", out / "embeddings" / split, *rvq,
        )  # fmt: skip

    yield step(
        "stage2", "stage2_speechless.train", out / "speechless",
        "--codes", out / "codes" / "train", "--dev-codes", out / "codes" / "dev", *rvq, *reader,
        "--width", sizes.speechless_width, "--num-layers", 4, "--num-heads", 4,
        "--depth-width", sizes.speechless_depth_width, "--depth-heads", 4, "--dropout", 0,
        "--num-dev-sentences", 32,
        "--batch-size", 16, "--learning-rate", 3e-3, "--warmup-steps", 30,
        "--steps", sizes.speechless_steps, *train,
    )  # fmt: skip
    speechless = ("--speechless", out / "speechless")
    yield step(
        "stage2", "stage2_speechless.evaluate", out / "speechless-test",
        *speechless, "--codes", out / "codes" / "test", *rvq, *reader,
    )  # fmt: skip

    yield step(
        "stage3", "stage3_finetune.speak_dialogues", out / "spoken-dialogues",
        "--dialogues", corpus / "dialogues_train.jsonl", *speechless, "--dialect", "asante",
        *rvq, *reader, "--takes", 3, "--max-cer", sizes.max_cer, "--batch-size", 64,
    )  # fmt: skip
    for target, name in (("chain", "finetune"), ("direct", "finetune-direct")):
        yield step(
            "stage3", "stage3_finetune.train", out / name,
            "--dialogues", out / "spoken-dialogues", *rvq, "--gemma", gemma, "--target", target,
            "--batch-size", 8, "--accumulate", 1, "--learning-rate", 2e-3, "--warmup-steps", 20,
            "--no-gradient-checkpointing", "--steps", sizes.finetune_steps, *train,
        )  # fmt: skip
    yield step(
        "stage3", "stage3_finetune.evaluate", out / "finetune-test",
        "--gemma", gemma, "--finetune", out / "finetune",
        "--direct-finetune", out / "finetune-direct", *reader,
        "--dialogues", corpus / "dialogues_test.jsonl", "--recordings", corpus / "test.jsonl",
        "--max-new-tokens", 48,
    )  # fmt: skip

    ours = ("--gemma", gemma, "--finetune", out / "finetune", "--mimi", mimi)
    for split in ("train", "dev"):
        yield step(
            "speech_head", "speech_head.states", out / "states" / split,
            "--manifest", corpus / f"answers_{split}.jsonl", *ours, *reader,
            "--dialogues", out / "spoken-dialogues", *rvq,
        )  # fmt: skip
    head_training = (
        "--states", out / "states" / "train", "--dev-states", out / "states" / "dev",
        *reader, "--gemma", gemma, "--mimi", mimi, "--num-dev-sentences", sizes.head_dev_sentences,
        "--width", sizes.head_width, "--num-heads", 4, "--batch-size", 16, "--warmup-steps", 30,
        "--steps", sizes.head_steps, *train,
    )  # fmt: skip
    yield step(
        "speech_head", "speech_head.train", out / "head", *head_training, "--num-layers", 3,
        "--depth-width", sizes.head_width * 3 // 4, "--depth-heads", 4, "--learning-rate", 3e-3,
    )  # fmt: skip
    yield step(
        "speech_head", "speech_head.train", out / "head-parallel", *head_training,
        "--architecture", "parallel", "--learning-rate", 1e-3,
    )  # fmt: skip
    head = ("--head", out / "head")
    yield step(
        "speech_head", "speech_head.evaluate", out / "head-test",
        "--dialogues", corpus / "dialogues_test.jsonl", "--questions", corpus / "test.jsonl",
        "--manifest", corpus / "answers_test.jsonl", *ours, *head,
        "--parallel-head", out / "head-parallel", *reader,
    )  # fmt: skip
    question = corpus / "audio" / "test_question_0000.wav"
    yield step(
        "chat", "speech_head.speak", out / "answer.wav",
        *ours, *head, "--audio", question, "--json", "--max-new-tokens", 64, "--cut-long-answers",
    )  # fmt: skip


def _run_step(step: Step) -> str:
    """Run a command in this process, resuming it if it was interrupted; returns what it printed."""
    words = list(step.words)
    if step.out.is_file():
        remove(step.out)  # interrupted after it was written, but before its printed output was
    if (step.out / "config.json").exists():
        words.append(flag_to_use_again(step.out))
    # Set sys.argv as on its own command line, which is recorded in its provenance.
    outer, sys.argv = sys.argv, [step.command, *words]
    try:
        with redirect_stdout(io.StringIO()) as written:
            importlib.import_module(step.command).main()
    finally:
        sys.argv = outer
    print(written.getvalue(), end="", file=sys.stderr)
    return written.getvalue()


if __name__ == "__main__":
    run_command(main)
