"""A miniature corpus for the rehearsal: sounds in place of speech, or the first of your recordings.

write_corpus(Path("runs/rehearsal/corpus"), minutes=1.0)

train.jsonl, dev.jsonl     manifests; audio/ holds made sounds
train.csv, dev.csv         dialogues, a row each: the question is what a recording says
sentences.txt              texts for Speechless
typed.txt                  what is typed in the chat
"""

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from commands.atomic_write import write_text, written_aside
from commands.errors import InputError
from data_manifests.cleaned_manifest import with_absolute_audio
from data_manifests.language import language
from data_manifests.manifest import Utterance, read_manifest, write_manifest

CLIP_SECONDS = 2.0
SAMPLE_RATE_HZ = 24_000
NUM_DEV = 4
NUM_DIALOGUES, NUM_SENTENCES = 8, 4
OPENINGS = ("Me din de", "Mepɛ", "Mehunuu", "Yɛfrɛ no", "Mekɔɔ", "Ɛnnɛ mekyiaa")
WORDS = ("Ama", "Kofi", "aduane", "nsuo", "sukuu", "Kumase", "nwoma", "dwom", "abɔdwom", "fie")


def write_corpus(folder: Path, *, minutes: float, manifest: Path | None = None) -> None:
    """Write the files above.

    Args:
        folder: new or unfinished folder.
        minutes: about how much speech there is for training.
        manifest: recordings to use, the first of them for dev.

    Raises:
        InputError: the manifest has too few recordings.
    """
    if manifest:
        utterances = list(_first_minutes(manifest, minutes))
    else:
        num_clips = NUM_DEV + max(NUM_DIALOGUES, round(60 * minutes / CLIP_SECONDS))
        utterances = [_make_clip(folder / "audio", number) for number in range(num_clips)]
    # So far relative to the current folder; in a manifest, a path is relative to the manifest.
    utterances = [with_absolute_audio(utterance) for utterance in utterances]
    for split, part in (("dev", utterances[:NUM_DEV]), ("train", utterances[NUM_DEV:])):
        write_manifest(folder / f"{split}.jsonl", [replace(u, split=split) for u in part])
        _write_dialogues(folder / f"{split}.csv", part[:NUM_DIALOGUES])
    texts = [u.text for u in utterances[:NUM_SENTENCES]]
    write_text(folder / "sentences.txt", "\n".join(texts) + "\n")
    write_text(folder / "typed.txt", f"{texts[0]}\n{utterances[0].audio}\n/quit\n")


def _first_minutes(manifest: Path, minutes: float) -> Iterator[Utterance]:
    seconds, number = 0.0, 0
    for utterance in read_manifest(manifest):
        if utterance.text and seconds < 60 * minutes:
            yield utterance
            number += 1
            seconds += utterance.duration_s if number > NUM_DEV else 0.0
    if number < NUM_DEV + NUM_DIALOGUES:
        raise InputError(
            f"--manifest {manifest}: {number} transcribed recordings, the rehearsal needs "
            f"{NUM_DEV + NUM_DIALOGUES}"
        )


def _make_clip(folder: Path, number: int) -> Utterance:
    """A clip that rises and falls as speech does: gliding harmonics in syllables, with noise."""
    path = folder / f"{number:04d}.wav"
    random = np.random.default_rng(number)
    times_N = np.arange(round(CLIP_SECONDS * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch_hz = random.uniform(90, 220)
    phase_N = 2 * np.pi * pitch_hz * (times_N + 0.02 * np.sin(2 * np.pi * 0.7 * times_N))
    weights = random.uniform(0.2, 1.0, size=12) / np.arange(1, 13)
    tone_N = sum(w * np.sin((k + 1) * phase_N) for k, w in enumerate(weights))
    syllables_N = np.sin(2 * np.pi * random.uniform(1.5, 3.0) * times_N) ** 2
    wave_N = 0.15 * tone_N * syllables_N + 0.01 * random.standard_normal(len(times_N))
    with written_aside(path) as aside:
        soundfile.write(aside, wave_N.astype(np.float32), SAMPLE_RATE_HZ, format="WAV")
    return Utterance(
        id=f"sound_{number:04d}", audio=str(path), text=_sentence(number),
        duration_s=CLIP_SECONDS, speaker=f"made_{number % 4}", dialect=language().all_dialects[0],
        corpus="rehearsal", split="train", license="CC0-1.0",
    )  # fmt: skip


def _sentence(number: int) -> str:
    pairs = list(itertools.product(WORDS, OPENINGS))
    word, opening = pairs[number % len(pairs)]
    again = f" ne {WORDS[number // len(pairs) % len(WORDS)]}" if number >= len(pairs) else ""
    return f"{opening} {word}{again}."


def _write_dialogues(path: Path, utterances: Sequence[Utterance]) -> None:
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("instruction", "output"))
        table.writerows((u.text, f"Yoo. {u.text}") for u in utterances)
