"""Some hours of a manifest: fewer are always part of more.

    python -m data_manifests.subset --manifest data/cv/train.jsonl --hours 2 --out data/cv-2h
    python -m data_manifests.subset --manifest data/mixed/train.jsonl --speakers a7 --out data/voice

Utterances are taken in an order that depends on the seed and their ids alone, until the next would
be too much: so the 2 hours contain the 1 hour. They are drawn one by one, whoever speaks: a few
hours have nearly as many speakers as many hours, and less of each. Writes `train.jsonl`, in the
manifest's order, and `subset.json`: how much was taken, of how much.
"""

# N utterances

import hashlib
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commands.atomic_write import write_json
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.run_folder import run_folder
from commands.setting_types import NonNegativeFloat, Seed, StorePath
from data_manifests.cleaned_manifest import with_absolute_audio
from data_manifests.manifest import read_manifest, write_manifest

MANIFEST_NAME, SUMMARY_NAME = "train.jsonl", "subset.json"


@dataclass(frozen=True, kw_only=True)
class SubsetConfig:
    """Take some hours of a manifest; fewer hours are always part of more."""

    manifest: StorePath
    """manifest to take from"""
    out: Path
    """new folder for train.jsonl"""
    hours: NonNegativeFloat = 0.0
    """the most hours to take; 0 takes all"""
    speakers: tuple[str, ...] = ()
    """take only these speakers, by their names in the manifest; if none is given, all of them"""
    seed: Seed = 0
    """another seed takes other utterances"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""


@dataclass(frozen=True)
class Columns:
    """What decides whether an utterance is taken.

    Attributes:
        turn_N: uint64, in whose order they are taken.
        seconds_N: float64, their durations.
        speaker_N: int32, positions in `speakers`.
        speakers: names of all speakers.
    """

    turn_N: np.ndarray
    seconds_N: np.ndarray
    speaker_N: np.ndarray
    speakers: list[str]


def main(argv: list[str] | None = None) -> None:
    """Write the subset; prints its manifest."""
    config = parse_config(SubsetConfig, argv)
    columns = read_columns(config.manifest, config.seed)
    is_taken_N = choose(columns, config.hours, config.speakers)
    with run_folder(config.out, config, "data_manifests.subset", inputs=("manifest",)):
        rows = zip(read_manifest(config.manifest, unique_ids=False), is_taken_N, strict=True)
        write_manifest(
            config.out / MANIFEST_NAME,
            (with_absolute_audio(utterance) for utterance, is_taken in rows if is_taken),
        )
        taken, given = describe(columns, is_taken_N), describe(columns, np.ones_like(is_taken_N))
        write_json(config.out / SUMMARY_NAME, {**taken, "of": given})
        print(
            f"{taken['hours']:.2f} of {given['hours']:.2f} hours, "
            f"{taken['speakers']} of {given['speakers']} speakers",
            file=sys.stderr,
        )
        print(config.out / MANIFEST_NAME)


def read_columns(manifest: Path, seed: int) -> Columns:
    """Read what decides about each utterance: 20 bytes for each."""
    turn, seconds, speaker = array("Q"), array("d"), array("i")
    speakers: dict[str, int] = {}
    for utterance in read_manifest(manifest):
        digest = hashlib.sha256(f"{seed}\0{utterance.id}".encode()).digest()
        turn.append(int.from_bytes(digest[:8], "big"))
        seconds.append(utterance.duration_s)
        speaker.append(speakers.setdefault(utterance.speaker, len(speakers)))
    return Columns(
        np.frombuffer(turn, np.uint64), np.frombuffer(seconds, np.float64),
        np.frombuffer(speaker, np.int32), list(speakers),
    )  # fmt: skip


def choose(columns: Columns, hours: float, speakers: tuple[str, ...]) -> np.ndarray:
    """Which utterances are taken: bool `[N]`.

    Args:
        columns: of all utterances.
        hours: the most hours; 0 for all.
        speakers: their names; empty for all.

    Raises:
        InputError: a speaker is not in the manifest, or not one utterance fits into the hours.
    """
    if unknown := sorted(set(speakers) - set(columns.speakers)):
        raise InputError(f"--speakers {unknown[0]}: nobody of that name speaks in the manifest")
    wanted = [i for i, name in enumerate(columns.speakers) if not speakers or name in speakers]
    candidates = np.flatnonzero(np.isin(columns.speaker_N, wanted))
    order = candidates[np.argsort(columns.turn_N[candidates], kind="stable")]
    if hours:
        # Stop at the first that does not fit, so that more hours only add utterances.
        seconds = np.cumsum(columns.seconds_N[order])
        order = order[: int(np.searchsorted(seconds, 3600 * hours, side="right"))]
        if not len(order):
            raise InputError(f"--hours {hours:g}: not one utterance is as short")
    is_taken_N = np.zeros(len(columns.turn_N), dtype=bool)
    is_taken_N[order] = True
    return is_taken_N


def describe(columns: Columns, is_taken_N: np.ndarray) -> dict[str, float]:
    """Hours, utterances and speakers of those that are taken."""
    return {
        "hours": round(float(columns.seconds_N[is_taken_N].sum()) / 3600, 4),
        "utterances": int(is_taken_N.sum()),
        "speakers": len(np.unique(columns.speaker_N[is_taken_N])),
    }


if __name__ == "__main__":
    run_command(main)
