"""Make the demo's corpus: recordings, manifests, dialogues.

    python -m demo.make_corpus --out runs/demo/corpus

Writes `audio/*.wav`, `train.jsonl dev.jsonl test.jsonl` (manifests of spoken questions and
answers), `dialogues_train.jsonl dialogues_test.jsonl` (questions with answers), and `sentences.txt`
(the training questions, one a line). Test questions are held out as (sum, phrasing) pairs, and
spoken by a voice that is in no other split.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data_manifests.artifact import create_output, write_text
from data_manifests.audio import MIMI_SAMPLE_RATE_HZ, write_wav
from data_manifests.config import parse_config, run_command
from data_manifests.manifest import SPLITS, Utterance, write_manifest
from demo.tone_speech import VOICES, Voice, synthesise
from demo.world import Question, all_questions, is_held_out

HELD_OUT_VOICE = VOICES[-1]


@dataclass(frozen=True, kw_only=True)
class MakeCorpusConfig:
    """Make the demo's recordings, manifests and dialogues."""

    out: Path
    """new folder"""
    num_questions: int = 200
    """how many of the world's questions to use"""
    seed: int = 0
    """of the recordings' noise"""
    resume: bool = False
    """accept an unfinished folder and write it again"""


def main(argv: list[str] | None = None) -> None:
    """Write the corpus; prints the folder."""
    config = parse_config(MakeCorpusConfig, argv)
    output = create_output(
        config.out, config, command="demo.make_corpus", inputs={}, resume=config.resume
    )
    if output.is_done:
        print(config.out)
        return
    questions = all_questions()[: config.num_questions]
    rows = [
        _record(config.out, config.seed, *spoken)
        for spoken in tqdm(list(_what_is_spoken(questions)), desc="corpus", unit=" recordings")
    ]
    for split in SPLITS:
        write_manifest(config.out / f"{split}.jsonl", (row for row in rows if row.split == split))
    for name, held_out in (("train", False), ("test", True)):
        chosen = [q for q in questions if is_held_out(q) == held_out]
        _write_dialogues(config.out / f"dialogues_{name}.jsonl", chosen)
    sentences = [q.text + "\n" for q in questions if not is_held_out(q)]
    write_text(config.out / "sentences.txt", "".join(sentences))
    output.finish()
    print(config.out)


def _what_is_spoken(questions: list[Question]) -> Iterator[tuple[str, str, Voice, str]]:
    """(id, text, voice, split): training questions and all answers by training voices, held-out
    questions by the held-out voice. Every tenth training question goes to dev instead."""
    for i, question in enumerate(questions):
        voice = VOICES[i % (len(VOICES) - 1)]
        if is_held_out(question):
            yield f"question_{i:04d}", question.text, HELD_OUT_VOICE, "test"
        else:
            yield f"question_{i:04d}", question.text, voice, "dev" if i % 10 == 9 else "train"
        if question.phrasing == 0 and not is_held_out(question):
            yield f"answer_{i:04d}", question.answer, VOICES[0], "train"


def _record(out: Path, seed: int, name: str, text: str, voice: Voice, split: str) -> Utterance:
    samples = synthesise(
        text, voice, sample_rate_hz=MIMI_SAMPLE_RATE_HZ, seed=seed + int(name.split("_")[1])
    )
    write_wav(out / "audio" / f"{name}.wav", samples, MIMI_SAMPLE_RATE_HZ)
    return Utterance(
        id=name,
        audio=f"audio/{name}.wav",
        text=text,
        duration_s=round(len(samples) / MIMI_SAMPLE_RATE_HZ, 3),
        speaker=voice.name,
        dialect="asante",
        corpus="demo",
        split=split,
        license="Apache-2.0",
        sample_rate_hz=MIMI_SAMPLE_RATE_HZ,
    )


def _write_dialogues(path: Path, questions: list[Question]) -> None:
    lines = []
    for question in questions:
        messages = [
            {"role": "user", "content": question.text, "spoken": True},
            {"role": "assistant", "content": question.answer},
        ]
        row = {"id": f"{question.fact}/{question.phrasing}", "messages": messages}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


if __name__ == "__main__":
    run_command(main)
