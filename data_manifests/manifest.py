"""Manifests: JSON Lines files with one utterance per row, the speech input of every stage.

    {"id": "cv-001", "audio": "clips/001.mp3", "text": "Me din de Ama.", "duration_s": 1.9,
     "speaker": "spk1", "dialect": "asante", "corpus": "common_voice", "split": "train",
     "license": "CC0-1.0"}

`audio` is a path, absolute or relative to the manifest; the recording may lie in a tar archive
(`train.tar::clips/1.wav`) or in a Parquet table (`train.parquet::audio/17`). Optional keys are
`start_s` (the utterance is a slice of the file, `duration_s` long), `sample_rate_hz` (checked
against the file) and `dialect_guess` (from the spelling, if `dialect` is unknown). Errors name file
and line.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field

from commands.atomic_write import write_text
from commands.errors import InputError
from commands.finished_folder import is_output_folder, refuse_unfinished
from commands.json_files import read_lines
from commands.schema import check_json, shorten
from commands.setting_types import DialectName, SampleRate, refuse_impossible_path
from data_manifests.audio import (
    MISSING_TOLERANCE_S,
    AudioDefect,
    DecodedAudio,
    decode_audio,
    resample,
)
from data_manifests.hash_set import HashSet, hash_text

MIN_FILE_S = 0.001
# No speech file is longer than a day; `audio.MAX_DURATION_S` limits what is decoded.
MAX_FILE_S = 86_400.0
DurationSeconds = Annotated[float, Field(gt=0, le=MAX_FILE_S)]
StartSeconds = Annotated[float, Field(ge=0, le=MAX_FILE_S)]
# Names appear in tables, plots and messages; a text is what is said in one recording.
MAX_CHARACTERS = {"id": 1000, "speaker": 1000, "corpus": 200, "license": 200, "text": 100_000}

DIALECTS: tuple[str, ...] = get_args(DialectName)
Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One row of a manifest; times in seconds, rates in hertz."""

    id: str
    audio: str
    text: str
    duration_s: DurationSeconds
    speaker: str
    dialect: str
    corpus: str
    split: str
    license: str
    start_s: StartSeconds | None = None
    sample_rate_hz: SampleRate | None = None
    dialect_guess: str | None = None
    # Where the row was read from, e.g. "data/train.jsonl:12"; only for messages, never written.
    origin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("id", "audio", "text", "speaker", "corpus"):
            if not getattr(self, name).strip():
                raise InputError(f"{name!r} is empty")
        for name, most in MAX_CHARACTERS.items():
            if len(getattr(self, name)) > most:
                raise InputError(
                    f"{name!r} has {len(getattr(self, name))} characters, at most {most}"
                )
        if not MIN_FILE_S <= self.duration_s <= MAX_FILE_S:
            raise InputError(
                f"'duration_s' must be in [{MIN_FILE_S}, {MAX_FILE_S:.0f}], got {self.duration_s}"
            )
        try:
            refuse_impossible_path(Path(self.audio))
        except ValueError as error:
            raise InputError(f"'audio' {error}") from None
        for name, value, known in (
            ("dialect", self.dialect, DIALECTS),
            ("dialect_guess", self.dialect_guess, (None, *DIALECTS)),
            ("split", self.split, SPLITS),
        ):
            if value not in known:
                raise InputError(
                    f"{name!r} must be one of {', '.join(filter(None, known))}, got "
                    f"{shorten(value)}"
                )


class WrongSampleRate(AudioDefect):
    """The file's sample rate differs from the row's."""

    kind = "wrong sample rate"


class WrongDuration(AudioDefect):
    """The file's duration differs from the row's."""

    kind = "wrong duration"


def read_manifest(path: Path, *, unique_ids: bool = True) -> Iterator[Utterance]:
    """Stream a manifest's utterances; relative audio paths are resolved against its folder.

    Args:
        path: the manifest.
        unique_ids: refuse repeated ids; codes and dialogues are joined by id.

    Raises:
        InputError: it cannot be read, its folder is an unfinished or changed output, a row is not
            JSON, lacks a key or has a wrong value, an id is used twice (the message names file and
            line), or it has no rows.
    """
    if is_output_folder(path.parent):
        # Recordings are checked against their rows when they are decoded.
        refuse_unfinished(path.parent, flag=f"{path}: its folder", only=path.name)
    ids = HashSet()
    num_rows = 0
    for where, line in read_lines(path):
        utterance = check_json(line, Utterance, where=where)
        if utterance.origin:
            raise InputError(f"{where}: unknown key 'origin'")
        hashed = hash_text(utterance.id)
        if unique_ids and hashed in ids:
            raise InputError(f"{where}: id {shorten(utterance.id)} is used twice")
        ids.add(hashed)
        num_rows += 1
        yield replace(utterance, audio=str(path.parent / utterance.audio), origin=where)
    if num_rows == 0:
        raise InputError(f"{path}: no utterances in it")


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> int:
    """Write utterances as a manifest, atomically; returns how many there are."""
    lines = [format_row(utterance) for utterance in utterances]
    write_text(path, "".join(lines))
    return len(lines)


def format_row(utterance: Utterance) -> str:
    """An utterance as one line of a manifest, including the line ending."""
    row = {k: v for k, v in asdict(utterance).items() if k != "origin" and v is not None}
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_utterance_audio(utterance: Utterance, sample_rate_hz: int) -> np.ndarray:
    """Decode an utterance's audio at a given rate and check it against its row.

    Returns:
        float32 `[num_samples]`, mono.

    Raises:
        AudioDefect: as `decode_utterance`; the message begins with the manifest's file and line.
    """
    try:
        decoded = decode_utterance(utterance)
    except AudioDefect as error:
        message = f"{utterance.origin}: {error}" if utterance.origin else str(error)
        raise type(error)(message) from None
    return resample(decoded.samples, decoded.sample_rate_hz, sample_rate_hz)


def decode_utterance(utterance: Utterance) -> DecodedAudio:
    """Decode an utterance's audio at its file's own rate and check it against its row.

    Raises:
        AudioDefect: as `decode_audio`, or the file's sample rate or duration differs from the
            row's.
    """
    path = Path(utterance.audio)
    if utterance.start_s is None:
        decoded = decode_audio(path)
    else:
        decoded = decode_audio(path, start_s=utterance.start_s, duration_s=utterance.duration_s)
    if utterance.sample_rate_hz not in (None, decoded.sample_rate_hz):
        raise WrongSampleRate(
            f"{path}: sample rate is {decoded.sample_rate_hz} Hz, the manifest says "
            f"{utterance.sample_rate_hz}"
        )
    tolerance_s = max(MISSING_TOLERANCE_S, 0.02 * decoded.duration_s)
    # A slice already has its row's length, or was refused.
    if utterance.start_s is None and abs(decoded.duration_s - utterance.duration_s) > tolerance_s:
        raise WrongDuration(
            f"{path}: lasts {decoded.duration_s:.2f} s, the manifest says "
            f"{utterance.duration_s:.2f} s"
        )
    return decoded
