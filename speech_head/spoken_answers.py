"""Folders of spoken answers: WAV files, and `utterances.jsonl`, which says what they are.

`speech_head.evaluate` writes them; `speech_head.judge` has them heard by another recogniser. Each
answer is there in up to four versions, all of which are transcribed: the ceilings beside the
speech.
"""

# N samples

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from commands.atomic_write import write_json_lines
from commands.finished_folder import open_input
from commands.json_files import read_rows
from commands.setting_types import InnerPath, NonNegativeInt, PositiveFloat
from data_manifests.audio import write_wav
from speech_head.stream import End

ROWS_FILE = "utterances.jsonl"


@dataclass(frozen=True)
class Version:
    """One way in which an answer is there.

    Attributes:
        name: its key in `metrics.json`.
        label: its name in tables.
        folder: where its WAV files are.
        audio, heard: keys of `SpokenRow`: its WAV file, and its transcript.
    """

    name: str
    label: str
    folder: str
    audio: str
    heard: str


RECORDING = Version(
    "recording", "recordings", "wav-recording", "audio_recording", "heard_in_recording"
)
THROUGH_MIMI = Version(
    "mimi", "recordings through Mimi", "wav-mimi", "audio_through_mimi", "heard_through_mimi"
)
SPOKEN = Version("spoken", "spoken", "wav", "audio", "heard")
PARALLEL = Version("parallel", "parallel head", "wav-parallel", "audio_parallel", "heard_parallel")
VERSIONS = (RECORDING, THROUGH_MIMI, SPOKEN, PARALLEL)


@dataclass(frozen=True)
class Sound:
    """A mono waveform, float32 `[N]`, and its sampling rate."""

    samples_N: np.ndarray
    sample_rate_hz: int


@dataclass(frozen=True, kw_only=True)
class SpokenRow:
    """One row of `utterances.jsonl`.

    Attributes:
        id, text: of the answer.
        end: how the speech ended.
        num_pushed: tokens from which the cursor had to be moved on.
        heard, heard_in_recording, heard_through_mimi, heard_parallel: transcripts of its versions;
            None where there is no such version, or no judge.
        audio, audio_recording, audio_through_mimi, audio_parallel: its WAV files, in the folder.
        voice: in which it was spoken; None for a head of one voice, or a voice without a name.
        speaker: of the recording; None if there is none, or the head has one voice.
        pitch_hz, pitch_hz_recording, pitch_hz_mimi: median pitch of the speech, the recording, and
            the recording coded by Mimi; None where none was found, or the head has one voice.
    """

    id: str
    text: str
    end: End
    num_pushed: NonNegativeInt
    heard: str | None = None
    heard_in_recording: str | None = None
    heard_through_mimi: str | None = None
    heard_parallel: str | None = None
    audio: InnerPath | None = None
    audio_recording: InnerPath | None = None
    audio_through_mimi: InnerPath | None = None
    audio_parallel: InnerPath | None = None
    voice: str | None = None
    speaker: str | None = None
    pitch_hz: PositiveFloat | None = None
    pitch_hz_recording: PositiveFloat | None = None
    pitch_hz_mimi: PositiveFloat | None = None

    def wav_of(self, version: Version) -> str | None:
        """WAV file of a version, by its path in the folder; None if there is none."""
        path: str | None = getattr(self, version.audio)
        return path

    def heard_in(self, version: Version) -> str | None:
        """Transcript of a version; None if there is none."""
        text: str | None = getattr(self, version.heard)
        return text

    def with_transcripts(self, heard: Mapping[str, str]) -> "SpokenRow":
        """The same answer as another judge heard it.

        Args:
            heard: transcripts by WAV file.
        """
        row = asdict(self)
        for version in VERSIONS:
            path = self.wav_of(version)
            row[version.heard] = heard[path] if path else None
        return SpokenRow(**row)


def name_wav_files(ids: Sequence[str]) -> list[str]:
    """A file name for each id, none twice: ids of dialogues may hold slashes."""
    names: list[str] = []
    taken: set[str] = set()
    for id_ in ids:
        name = plain = re.sub(r"[^\w.-]", "_", id_)
        count = 1
        while name in taken:
            count += 1
            name = f"{plain}-{count}"
        taken.add(name)
        names.append(f"{name}.wav")
    return names


def write_versions(out: Path, name: str, sounds: Mapping[Version, Sound]) -> dict[str, str]:
    """Write an answer's WAV files under one name; their paths by the key of `SpokenRow`."""
    for version, sound in sounds.items():
        write_wav(out / version.folder / name, sound.samples_N, sound.sample_rate_hz)
    return {version.audio: f"{version.folder}/{name}" for version in sounds}


def write_rows(out: Path, rows: Sequence[SpokenRow]) -> None:
    """Write `utterances.jsonl`."""
    write_json_lines(out / ROWS_FILE, [asdict(row) for row in rows])


def read_spoken_answers(folder: Path, *, flag: str) -> list[SpokenRow]:
    """The rows of a folder; in one of an older version, only the speech has WAV files.

    Raises:
        InputError: missing, unfinished, changed, or another command's.
    """
    open_input(folder, made_by="speech_head.evaluate", flag=flag)
    return list(read_rows(folder / ROWS_FILE, SpokenRow))


def wav_files(rows: Sequence[SpokenRow]) -> list[str]:
    """Every WAV file of a folder, by its path in it."""
    return [path for row in rows for version in VERSIONS if (path := row.wav_of(version))]


def how_to_judge(folder: Path, rows: Sequence[SpokenRow]) -> str:
    """What a user does next with a folder that nothing has transcribed."""
    files = wav_files(rows)
    row = json.dumps({"id": files[0], "heard": "..."})
    return (
        f"{len(files)} WAV files in {folder} are not transcribed yet.\n"
        f"By a recogniser of transformers: python -m speech_head.judge --speech {folder} --asr NAME"
        f" --out NEW\nBy any other: write a file with one row {row} for each WAV file, and name it "
        "with --hypotheses in place of --asr"
    )
