"""Make the demo's corpus: recordings, manifests, dialogues.

    python -m demo.world.make_corpus --out runs/demo/corpus

    train.jsonl dev.jsonl             sentences by training voices, and by the answering voices
    test.jsonl                        held-out questions by held-out voices
    answers_{train,dev,test}.jsonl    the two answering voices alone: stage 4's target voices
    dialogues_{train,dev,test}.jsonl  questions with their answers, as text
    sentences.txt                     the training questions, one per line

Questions are held out as (fact, phrasing) pairs, in every file and stage; no training recording
contains the answers of held-out questions. Each answer is recorded once: by one of the answering
voices, drawn in training, by turns in dev and test. One training question in thirty is a word that
interrupts ("Gyae.": stop).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from commands.atomic_write import write_json_lines, write_text
from commands.command_line import parse_config, run_command
from commands.run_folder import run_folder
from commands.seeds import derive_seed
from commands.setting_types import NonNegativeInt, Seed
from data_manifests.audio import MIMI_SAMPLE_RATE_HZ, write_wav
from data_manifests.language import UNKNOWN_DIALECT
from data_manifests.manifest import SPLITS, Split, Utterance, write_manifest
from demo.voice.synthesizer import Synthesizer
from demo.voice.voices import MONOTONE_VOICES, draw_style, monotone_style, record
from demo.world.facts import WORLD_PATH, read_world
from demo.world.grammar import (
    Question,
    all_questions,
    choose_questions,
    listening_sentences,
    with_interruptions,
)

ANSWERING_VOICES = MONOTONE_VOICES
CORPUS, LICENSE = "demo", "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class MakeCorpusConfig:
    """Make the demo's recordings, manifests and dialogues."""

    out: Path
    """new folder"""
    world: Path = WORLD_PATH
    """TOML file with what is asked, as demo/world/world.toml: demo/world/ewe.toml is in Ewe"""
    num_questions: NonNegativeInt = 1000
    """training questions, spread over all relations; 0 for all"""
    num_held_out: NonNegativeInt = 0
    """most dev questions, and most test questions; 0 for all"""
    seed: Seed = 0
    """seed for voices, rates and noise"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""


@dataclass(frozen=True)
class _Line:
    """A sentence to record, by an answering voice, a training voice or a held-out voice.

    Attributes:
        number: of the answer among those of its split; None of what is no answer.
    """

    id: str
    text: str
    split: Split
    number: int | None = None

    @property
    def is_answer(self) -> bool:
        return self.number is not None


def main(argv: list[str] | None = None) -> None:
    """Write the corpus; prints the folder."""
    config = parse_config(MakeCorpusConfig, argv)
    all_questions(config.world)  # what is wrong with it is said before a folder is made
    with run_folder(config.out, config, "demo.world.make_corpus", inputs=("world",)):
        questions: dict[Split, list[Question]] = {
            "train": with_interruptions(
                choose_questions("train", config.num_questions, config.world), config.world
            ),
            "dev": choose_questions("dev", config.num_held_out, config.world),
            "test": choose_questions("test", config.num_held_out, config.world),
        }
        synthesizer = Synthesizer()
        lines = list(_what_is_spoken(questions, config))
        rows = [
            _record(config, synthesizer, line)
            for line in tqdm(lines, desc="corpus", unit=" recordings")
        ]
        for split in SPLITS:
            of_split = [
                (line, row) for line, row in zip(lines, rows, strict=True) if row.split == split
            ]
            answers = [row for line, row in of_split if line.is_answer]
            # In dev and test, only stage 4 uses the answering voices.
            heard = [row for line, row in of_split if split == "train" or not line.is_answer]
            write_manifest(config.out / f"{split}.jsonl", heard)
            write_manifest(config.out / f"answers_{split}.jsonl", answers)
        for split in SPLITS:
            _write_dialogues(config.out / f"dialogues_{split}.jsonl", questions[split])
        write_text(config.out / "sentences.txt", "".join(q.text + "\n" for q in questions["train"]))


def _what_is_spoken(
    questions: dict[Split, list[Question]], config: MakeCorpusConfig
) -> Iterator[_Line]:
    """Questions, and half as many meaningless sentences; then, by the answering voices, each answer
    once, and again half as many meaningless sentences."""
    held_out = {q.answer for split in ("dev", "test") for q in questions[split]}
    num_senseless = len(questions["train"]) // 2
    senseless = listening_sentences(
        2 * num_senseless, derive_seed(config.seed, "corpus"), config.world
    )
    for split, asked in questions.items():
        for i, question in enumerate(asked):
            yield _Line(f"{split}_question_{i:04d}", question.text, split)
        answers = sorted({q.answer for q in asked} - (held_out if split == "train" else set()))
        for i, answer in enumerate(answers):
            yield _Line(f"{split}_answer_{i:04d}", answer, split, i)
    for i, text in enumerate(senseless):
        if i % 2 == 1:
            yield _Line(f"train_read_{i:04d}", text, "train", i // 2)
        else:
            yield _Line(f"train_senseless_{i:04d}", text, "train")


def _record(config: MakeCorpusConfig, synthesizer: Synthesizer, line: _Line) -> Utterance:
    generator = np.random.default_rng(derive_seed(config.seed, line.id))
    if line.number is not None:
        by_turns = ANSWERING_VOICES[line.number % len(ANSWERING_VOICES)]
        voice = str(generator.choice(ANSWERING_VOICES)) if line.split == "train" else by_turns
        take = monotone_style(generator, voice)
    else:
        take = draw_style(generator, held_out=line.split == "test")
    samples = record(
        synthesizer, line.text, take, sample_rate_hz=MIMI_SAMPLE_RATE_HZ, generator=generator
    )
    path = f"audio/{line.id}.wav"
    write_wav(config.out / path, samples, MIMI_SAMPLE_RATE_HZ)
    return Utterance(
        id=line.id,
        audio=path,
        text=line.text,
        duration_s=round(len(samples) / MIMI_SAMPLE_RATE_HZ, 3),
        speaker=take.voice,
        dialect=read_world(config.world).get("dialect", UNKNOWN_DIALECT),
        corpus=CORPUS,
        split=line.split,
        license=LICENSE,
        sample_rate_hz=MIMI_SAMPLE_RATE_HZ,
    )


def _write_dialogues(path: Path, questions: Sequence[Question]) -> None:
    rows = []
    for question in questions:
        messages = [
            {"role": "user", "content": question.text, "spoken": True},
            {"role": "assistant", "content": question.answer},
        ]
        named = {"category": question.relation, "corpus": CORPUS, "license": LICENSE}
        rows.append({"id": question.id, **named, "messages": messages})
    write_json_lines(path, rows)


if __name__ == "__main__":
    run_command(main)
