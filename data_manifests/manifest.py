"""Manifests: JSON Lines, one utterance a row, the form in which speech enters every stage.

    {"id": "cv-001", "audio": "clips/001.mp3", "text": "Me din de Ama.", "duration_s": 1.9,
     "speaker": "spk1", "dialect": "asante", "corpus": "common_voice", "split": "train",
     "license": "CC0-1.0"}

`audio` is a path, absolute or relative to the manifest. Optional: `start_s` (the utterance is a
slice of the file, `duration_s` long), `sample_rate_hz` (checked against the file) and
`dialect_guess` (from the spelling, where `dialect` is unknown). Errors name file and line.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from data_manifests.artifact import is_output_folder, write_text
from data_manifests.audio import (
    MISSING_TOLERANCE_S,
    AudioDefect,
    DecodedAudio,
    decode_audio,
    resample,
)
from data_manifests.config import InputError, nearest_name

DIALECTS = ("asante", "akuapem", "fante", "unknown")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One row of a manifest; times in seconds, rates in hertz."""

    id: str
    audio: str
    text: str
    duration_s: float
    speaker: str
    dialect: str
    corpus: str
    split: str
    license: str
    start_s: float | None = None
    sample_rate_hz: int | None = None
    dialect_guess: str | None = None
    # Where the row was read, e.g. "data/train.jsonl:12"; for messages only, never written.
    origin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("id", "audio", "text", "speaker", "corpus"):
            if not getattr(self, name).strip():
                raise InputError(f"{name!r} is empty")
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise InputError(f"'duration_s' must be a positive number, got {self.duration_s}")
        if self.dialect not in DIALECTS:
            raise InputError(
                f"'dialect' must be one of {', '.join(DIALECTS)}, got {self.dialect!r}"
            )
        if self.dialect_guess is not None and self.dialect_guess not in DIALECTS:
            raise InputError(
                f"'dialect_guess' must be one of {', '.join(DIALECTS)}, got {self.dialect_guess!r}"
            )
        if self.split not in SPLITS:
            raise InputError(f"'split' must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if self.start_s is not None and self.start_s < 0:
            raise InputError(f"'start_s' must not be negative, got {self.start_s}")


class WrongSampleRate(AudioDefect):
    """The file's sample rate is not the row's."""

    kind = "wrong sample rate"


class WrongDuration(AudioDefect):
    """The file does not last as long as the row says."""

    kind = "wrong duration"


OPTIONAL_KEYS = ("start_s", "sample_rate_hz", "dialect_guess")
REQUIRED_KEYS = tuple(f.name for f in fields(Utterance) if f.name not in (*OPTIONAL_KEYS, "origin"))
KEY_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(REQUIRED_KEYS, (str,)),
    "duration_s": (int, float),
    "start_s": (int, float),
    "sample_rate_hz": (int,),
    "dialect_guess": (str,),
}


def read_manifest(path: Path) -> Iterator[Utterance]:
    """Stream a manifest's utterances; relative audio paths are resolved against its folder.

    Raises:
        InputError: no such file, its folder is an unfinished output, a row that is not JSON, lacks
            a key or has a wrong value (file and line are named), or no row at all.
    """
    if is_output_folder(path.parent) and not (path.parent / "done").exists():
        raise InputError(f"{path}: its folder is unfinished (no 'done' in it)")
    try:
        file = path.open(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    num_rows = 0
    with file:
        for line_number, line in enumerate(file, start=1):
            if line.strip():
                num_rows += 1
                yield _parse_row(line, path, f"{path}:{line_number}")
    if num_rows == 0:
        raise InputError(f"{path}: no utterances in it")


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> int:
    """Write utterances as a manifest (aside, then renamed); returns how many."""
    lines = [format_row(utterance) for utterance in utterances]
    write_text(path, "".join(lines))
    return len(lines)


def format_row(utterance: Utterance) -> str:
    """An utterance as one line of a manifest, its line end included."""
    row = {k: v for k, v in asdict(utterance).items() if k != "origin" and v is not None}
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_utterance_audio(utterance: Utterance, sample_rate_hz: int) -> np.ndarray:
    """Decode an utterance's audio at a given rate and check it against its row.

    Args:
        utterance: a manifest row.
        sample_rate_hz: rate of the result.

    Returns:
        float32 `[num_samples]`, mono.

    Raises:
        AudioDefect: as `decode_utterance`; the manifest's file and line come first in the message.
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
        AudioDefect: as `decode_audio`, or the file's sample rate or duration is not the row's.
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
    # A slice has been cut to its row's length, or refused.
    if utterance.start_s is None and abs(decoded.duration_s - utterance.duration_s) > tolerance_s:
        raise WrongDuration(
            f"{path}: lasts {decoded.duration_s:.2f} s, the manifest says "
            f"{utterance.duration_s:.2f} s"
        )
    return decoded


def _parse_row(line: str, path: Path, origin: str) -> Utterance:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise InputError(f"{origin}: not valid JSON: {error}") from None
    if not isinstance(row, dict):
        raise InputError(f"{origin}: expected a JSON object, got {type(row).__name__}")
    for key in REQUIRED_KEYS:
        if key not in row:
            raise InputError(f"{origin}: has no {key!r}")
    for key, value in row.items():
        if key not in KEY_TYPES:
            raise InputError(f"{origin}: unknown key {key!r}: {nearest_name(key, list(KEY_TYPES))}")
        if value is not None and (not isinstance(value, KEY_TYPES[key]) or isinstance(value, bool)):
            kinds = " or ".join(kind.__name__ for kind in KEY_TYPES[key])
            raise InputError(f"{origin}: {key!r} must be {kinds}, got {value!r}")
    for key in REQUIRED_KEYS:
        if row[key] is None:
            raise InputError(f"{origin}: {key!r} is null")
    try:
        utterance = Utterance(**row, origin=origin)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None
    return _with_resolved_audio(utterance, path.parent)


def _with_resolved_audio(utterance: Utterance, folder: Path) -> Utterance:
    values = {f.name: getattr(utterance, f.name) for f in fields(utterance)}
    return Utterance(**{**values, "audio": str(folder / utterance.audio)})
