"""Make noisy, reverberant, telephoned and clipped copies of recordings, to test what hears them.

    python -m data_manifests.degrade --manifest data/cv/test.jsonl --out data/cv-degraded
    python -m data_manifests.degrade --manifest data/cv/test.jsonl --out data/cv-bad-line \
        --conditions clean babble-10 babble-5+telephone

`degradations.py` lists the conditions. For each, `--out` gets a manifest of its name
(`babble-10.jsonl`), with the same ids and texts, and 16 kHz WAV files beside it, so that every
command and any other recogniser can hear the same clips. Babble is made of other recordings of the
manifest, by other speakers where there are any. The same seed makes the same clips.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.run_folder import run_folder
from commands.seeds import derive_seed
from commands.setting_types import Seed, StorePath
from data_manifests.audio import write_wav
from data_manifests.degradations import (
    NUM_TALKERS,
    SAMPLE_RATE_HZ,
    Condition,
    degrade,
    read_condition,
)
from data_manifests.manifest import (
    Utterance,
    read_manifest,
    read_utterance_audio,
    write_manifest,
)

DEFAULT_CONDITIONS = (
    "clean",
    *(f"{noise}-{db}" for noise in ("babble", "street") for db in (20, 10, 5, 0)),
    "reverberation-0.6", "telephone", "clipping-15",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DegradeConfig:
    """Make copies of recordings as noise, rooms and telephones would have made them."""

    manifest: StorePath
    """manifest of the recordings"""
    out: Path
    """new folder for a manifest and WAV files of each condition"""
    conditions: tuple[str, ...] = DEFAULT_CONDITIONS
    """what is done to them: babble-10 is other people, 10 dB below the speech; several joined by +
    are done one after another"""
    seed: Seed = 0
    """seed for the noise; each recording and condition has noise of its own"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""

    def __post_init__(self) -> None:
        if not self.conditions:
            raise ValueError("--conditions: name at least one")
        if len(set(self.conditions)) < len(self.conditions):
            raise ValueError("--conditions: one is named twice")


def main(argv: list[str] | None = None) -> None:
    """Write the copies; prints the folder."""
    config = parse_config(DegradeConfig, argv)
    conditions = [read_condition(name) for name in config.conditions]
    utterances = list(read_manifest(config.manifest))
    if not utterances:
        raise InputError(f"--manifest {config.manifest}: no recording in it")
    with run_folder(config.out, config, "data_manifests.degrade", inputs=("manifest",)):
        total = len(conditions) * len(utterances)
        with tqdm(total=total, desc="degrade", unit=" recordings") as progress:
            for condition in conditions:
                rows = _write_condition(config, condition, utterances, progress)
                write_manifest(config.out / f"{condition.name}.jsonl", rows)


def _write_condition(
    config: DegradeConfig, condition: Condition, utterances: Sequence[Utterance], progress: tqdm
) -> Iterator[Utterance]:
    @lru_cache(maxsize=256)
    def read(number: int) -> np.ndarray:
        return read_utterance_audio(utterances[number], SAMPLE_RATE_HZ)

    needs_talkers = any(step.kind == "babble" for step in condition.steps)
    _, speaker_N = np.unique([u.speaker for u in utterances], return_inverse=True)
    for number, utterance in enumerate(utterances):
        generator = np.random.default_rng(derive_seed(config.seed, utterance.id, condition.name))
        talkers = draw_talkers(speaker_N, number, generator) if needs_talkers else []
        samples_M = degrade(read(number), condition, generator, [read(i) for i in talkers])
        audio = f"{condition.name}/{number:06d}.wav"
        write_wav(config.out / audio, samples_M, SAMPLE_RATE_HZ)
        progress.update()
        yield replace(
            utterance, audio=audio, start_s=None, sample_rate_hz=SAMPLE_RATE_HZ,
            duration_s=round(len(samples_M) / SAMPLE_RATE_HZ, 3),
        )  # fmt: skip


def draw_talkers(speaker_N: np.ndarray, number: int, generator: np.random.Generator) -> list[int]:
    """Numbers of the recordings that are heard behind one: `NUM_TALKERS` by other speakers, or, if
    nobody else speaks, any others; fewer where there are fewer.

    Args:
        speaker_N: the speaker of each recording, as a number.
        number: of the recording.
        generator: draws them.
    """
    chosen_from = np.flatnonzero(speaker_N != speaker_N[number])
    if not len(chosen_from):
        chosen_from = np.delete(np.arange(len(speaker_N)), number)
    size = min(NUM_TALKERS, len(chosen_from))
    return generator.choice(chosen_from, size, replace=False).tolist() if size else []


if __name__ == "__main__":
    run_command(main)
