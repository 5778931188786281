"""Make what a user brings: recordings of one person, and questions with answers, in two tables.

    python -m demo.world.make_own --out my

    recordings.csv recordings/    20 of the questions read aloud: columns audio, text
    questions.csv                 50 questions with answers: columns question, answer
    asked.jsonl asked/            the person asks all 50, each also in other words, to be judged by
    asked_dialogues.jsonl         those questions with their answers

The person speaks with a voice that no model of the demo was trained on. The facts (where somebody
lives, whose sibling is who) are made up: nobody can answer who was not told. The Twi was NOT YET
CHECKED BY A TWI SPEAKER.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from commands.atomic_write import write_json_lines, write_text
from commands.command_line import parse_config, run_command
from commands.run_folder import run_folder
from commands.seeds import derive_seed
from commands.setting_types import Seed
from data_manifests.audio import MIMI_SAMPLE_RATE_HZ, write_wav
from data_manifests.manifest import Utterance, write_manifest
from demo.voice.synthesizer import Synthesizer
from demo.voice.voices import HELD_OUT_VOICES, draw_style, record
from demo.world.facts import read_world, table_rows

NUM_QUESTIONS = 50
NUM_RECORDINGS = 20
CORPUS = "own"
# What is asked, the same in other words, and the answer.
PATTERNS = (
    ("{name} te he?", "Ɛhe na {name} te?", "{name} te {town}."),  # where does ... live?
    ("Aduane bɛn na {name} pɛ?", "Kyerɛ me aduane a {name} pɛ.", "{name} pɛ {food}."),  # likes
    ("{name} nua din de sɛn?", "{name} nua ne hwan?", "Ne nua din de {sibling}."),  # sibling
    ("Ahosuo bɛn na {name} pɛ?", "Kyerɛ me ahosuo a {name} pɛ.", "{name} pɛ {colour}."),  # colour
)
CATEGORIES = ("as trained", "in other words")


@dataclass(frozen=True, kw_only=True)
class MakeOwnConfig:
    """Make the recordings and questions of an imagined user, in two tables."""

    out: Path
    """new folder"""
    seed: Seed = 0
    """seed for the voice's takes"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""


@dataclass(frozen=True)
class OwnQuestion:
    """A question, the same in other words, and the answer to both."""

    question: str
    other_words: str
    answer: str


def main(argv: list[str] | None = None) -> None:
    """Write the tables and the recordings; prints the folder."""
    config = parse_config(MakeOwnConfig, argv)
    with run_folder(config.out, config, "demo.world.make_own"):
        questions = own_questions()
        read = [questions[i * NUM_QUESTIONS // NUM_RECORDINGS] for i in range(NUM_RECORDINGS)]
        asked = [
            (f"{number:02d}-{way}", category, text, question.answer)
            for number, question in enumerate(questions, start=1)
            for way, category, text in zip(
                "ab", CATEGORIES, (question.question, question.other_words), strict=True
            )
        ]
        synthesizer = Synthesizer()
        with tqdm(total=len(read) + len(asked), desc="own", unit=" recordings") as progress:

            def speak(name: str, text: str) -> float:
                progress.update()
                return _record(config, synthesizer, name, text)

            for number, question in enumerate(read, start=1):
                speak(f"recordings/{number:02d}.wav", question.question)
            rows = [
                _utterance(id_, text, speak(f"asked/{id_}.wav", text)) for id_, _, text, _ in asked
            ]
        recordings = [(f"recordings/{i:02d}.wav", q.question) for i, q in enumerate(read, start=1)]
        _write_csv(config.out / "recordings.csv", ("audio", "text"), recordings)
        pairs = [(q.question, q.answer) for q in questions]
        _write_csv(config.out / "questions.csv", ("question", "answer"), pairs)
        write_manifest(config.out / "asked.jsonl", rows)
        write_json_lines(config.out / "asked_dialogues.jsonl", _dialogues(asked))


def own_questions() -> list[OwnQuestion]:
    """Fifty questions about fourteen people; the facts are the same every time."""
    world = read_world()["tables"]
    names, towns, foods, colours = (
        [row[column] for row in table_rows(world[table])]
        for table, column in (
            ("person", "name"), ("town", "town"), ("fruit", "fruit"), ("colour", "colour"),
        )
    )  # fmt: skip
    questions = []
    for pattern in PATTERNS:
        for i, name in enumerate(names):
            facts = {
                "name": name,
                "town": towns[7 * i % len(towns)],
                "food": foods[3 * i % len(foods)],
                "sibling": names[(5 * i + 3) % len(names)],
                "colour": colours[5 * i % len(colours)],
            }
            questions.append(OwnQuestion(*(text.format(**facts) for text in pattern)))
    return questions[:NUM_QUESTIONS]


def _record(config: MakeOwnConfig, synthesizer: Synthesizer, name: str, text: str) -> float:
    """Record a sentence; returns its length in seconds."""
    generator = np.random.default_rng(derive_seed(config.seed, name))
    take = replace(draw_style(generator, held_out=True), voice=HELD_OUT_VOICES[0])
    samples = record(
        synthesizer, text, take, sample_rate_hz=MIMI_SAMPLE_RATE_HZ, generator=generator
    )
    write_wav(config.out / name, samples, MIMI_SAMPLE_RATE_HZ)
    return len(samples) / MIMI_SAMPLE_RATE_HZ


def _utterance(id_: str, text: str, duration_s: float) -> Utterance:
    return Utterance(
        id=id_,
        audio=f"asked/{id_}.wav",
        text=text,
        duration_s=round(duration_s, 3),
        speaker=f"{CORPUS}/unknown",  # as `build --corpus table=...` calls the only speaker
        dialect="asante",
        corpus=CORPUS,
        split="test",
        license="Apache-2.0",
    )


def _dialogues(asked: Sequence[tuple[str, str, str, str]]) -> Iterator[dict[str, object]]:
    for id_, category, text, answer in asked:
        messages = [
            {"role": "user", "content": text, "spoken": True},
            {"role": "assistant", "content": answer},
        ]
        yield {"id": id_, "category": category, "messages": messages}


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([columns, *rows])
    write_text(path, written.getvalue())


if __name__ == "__main__":
    run_command(main)
