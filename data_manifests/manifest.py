"""Manifests: JSON Lines files with one utterance per row, the speech input of every stage.

    {"id": "cv-001", "audio": "clips/001.mp3", "text": "Me din de Ama.", "duration_s": 1.9,
     "speaker": "spk1", "dialect": "asante", "corpus": "common_voice", "split": "train",
     "license": "CC0-1.0"}

`audio` is a path, absolute or relative to the manifest; the recording may lie in an archive
(`train.tar::clips/1.wav`, `train.zip::clips/1.wav`) or in a Parquet table
(`train.parquet::audio/17`). Optional keys are `start_s` (the utterance is a slice of the file,
`duration_s` long), `sample_rate_hz` (checked against the file) and `dialect_guess` (from the
spelling, if `dialect` is unknown). Errors name file and line.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from commands.atomic_write import written_aside
from commands.errors import InputError
from commands.finished_folder import is_output_folder, refuse_unfinished
from commands.json_files import read_lines
from commands.schema import check_json, shorten
from commands.setting_types import (
    MAX_NAME_BYTES,
    SampleRate,
    refuse_impossible_path,
)
from commands.stores import is_url, url_of
from data_manifests.audio import DecodedAudio, decode_audio, resample
from data_manifests.audio_defects import MISSING_TOLERANCE_S, AudioDefect
from data_manifests.contained_audio import find_reference
from data_manifests.hash_set import HashSet, hash_text
from data_manifests.language import VARIABLE, language

MIN_FILE_S = 0.001
# No speech file is longer than a day; `audio_defects.MAX_DURATION_S` limits what is decoded.
MAX_FILE_S = 86_400.0
DurationSeconds = Annotated[float, Field(gt=0, le=MAX_FILE_S)]
StartSeconds = Annotated[float, Field(ge=0, le=MAX_FILE_S)]
# Names appear in tables, plots and messages; a text is what is said in one recording.
MAX_CHARACTERS = {"id": 1000, "speaker": 1000, "corpus": 200, "license": 200, "text": 100_000}

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_FILLED = ("id", "audio", "text", "speaker", "corpus")
_filled_values = attrgetter(*_FILLED)
_ENCODER = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True, kw_only=True, slots=True)
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
        if not all(map(str.strip, _filled_values(self))):
            name = next(name for name in _FILLED if not getattr(self, name).strip())
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
        _refuse_impossible_audio(self.audio)
        dialects = language().all_dialects
        if self.dialect not in dialects or self.dialect_guess not in (None, *dialects):
            name = "dialect_guess" if self.dialect in dialects else "dialect"
            raise InputError(
                f"{name!r} must be one of {', '.join(dialects)}, got "
                f"{shorten(getattr(self, name))}: {VARIABLE} is {language().key}"
            )
        if self.split not in SPLITS:
            raise InputError(
                f"'split' must be one of {', '.join(SPLITS)}, got {shorten(self.split)}"
            )


_ROW = TypeAdapter(Utterance)
NUM_MARKS = 2 * (9 + 8)  # quotation marks of a row: nine keys must be there, eight hold text
COLUMNS = tuple(name for name in Utterance.__dataclass_fields__ if name != "origin")
"""The keys of a row, in the order in which they are written."""


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
        refuse_unfinished(path.parent, flag=f"{url_of(path)}: its folder", only=path.name)
    prefix = "" if path.parent == Path() else str(path.parent / "a")[:-1]
    ids = HashSet()
    num_rows = 0
    for where, line in read_lines(path):
        utterance = _read_row(line, where)
        if utterance.origin:
            raise InputError(f"{where}: unknown key 'origin'")
        if unique_ids and not ids.add(hash_text(utterance.id)):
            raise InputError(f"{where}: id {shorten(utterance.id)} is used twice")
        num_rows += 1
        audio = _joined(prefix, utterance.audio)
        _refuse_impossible_audio(audio)
        # Nobody else has this row yet. `replace` would check all of it again, which takes longer
        # than all the rest.
        object.__setattr__(utterance, "audio", audio)
        object.__setattr__(utterance, "origin", where)
        yield utterance
    if num_rows == 0:
        raise InputError(f"{url_of(path)}: no utterances in it")


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> int:
    """Write utterances as a manifest, atomically, as they come; returns how many there are."""
    num_rows = 0
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="\n") as file:
        for utterance in utterances:
            file.write(format_row(utterance))
            num_rows += 1
    return num_rows


def format_row(utterance: Utterance) -> str:
    """An utterance as one line of a manifest, including the line ending."""
    row = {name: value for name in COLUMNS if (value := getattr(utterance, name)) is not None}
    return _ENCODER.encode(row) + "\n"


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
            f"{url_of(path)}: sample rate is {decoded.sample_rate_hz} Hz, the manifest says "
            f"{utterance.sample_rate_hz}"
        )
    tolerance_s = max(MISSING_TOLERANCE_S, 0.02 * decoded.duration_s)
    # A slice already has its row's length, or was refused.
    if utterance.start_s is None and abs(decoded.duration_s - utterance.duration_s) > tolerance_s:
        raise WrongDuration(
            f"{url_of(path)}: lasts {decoded.duration_s:.2f} s, the manifest says "
            f"{utterance.duration_s:.2f} s"
        )
    return decoded


def _read_row(line: bytes, where: str) -> Utterance:
    """`check_json`, which parses a second time to find repeated keys, in half of its time.

    Without an escape in the line, every quotation mark begins or ends a string. If there are just
    those of the keys and texts that were found, no key is there twice, and nothing else is hidden.
    """
    try:
        row: Utterance = _ROW.validate_json(line, strict=True, extra="forbid")
    except ValidationError:
        return check_json(line, Utterance, where=where)  # raises it in our words
    num_marks = NUM_MARKS + 4 * (row.dialect_guess is not None)
    num_marks += 2 * ((row.start_s is not None) + (row.sample_rate_hz is not None))
    if b"\\" in line or line.count(b'"') != num_marks:
        return check_json(line, Utterance, where=where)
    return row


def _refuse_impossible_audio(audio: str) -> None:
    """Raise InputError unless a file system can hold the path, and a name inside of a file."""
    if len(audio) <= MAX_NAME_BYTES and audio.isascii() and "\0" not in audio:
        return  # most paths
    reference = find_reference(Path(audio))
    paths = [Path(audio)] if reference is None else [reference.container, Path(reference.name)]
    try:
        for path in paths:
            refuse_impossible_path(path)
    except ValueError as error:
        raise InputError(f"'audio' {error}") from None


def _joined(prefix: str, audio: str) -> str:
    """`str(Path(prefix, audio))`, which takes ten times as long; a prefix ends with "/"."""
    if is_url(audio):
        return url_of(Path(audio))
    if is_url(prefix):
        return url_of(Path(prefix, audio))
    path = audio if audio.startswith("/") else prefix + audio
    is_plain = "//" not in path and "./" not in path and not path.endswith(("/", "."))
    return path if is_plain else str(Path(path))
