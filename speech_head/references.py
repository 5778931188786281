"""Recordings that show the head, in training, whose voice it is to speak in.

names = voice_names(states)               # the speakers whose voices are kept by name
references = References(states, names)
shown = references.draw(rows)             # of other recordings of the same speakers
codes = references.read(shown)
"""

# R frames of a recording (12.5 per second), N utterances, G speakers, K codebooks

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speech_head.data import StatesFolder
from speech_head.head_batch import NO_VOICE
from speech_head.voice_encoder import MIN_VOICE_S

MAX_REFERENCE_S = 5.0  # of training, where most recordings are about as long
MIN_UTTERANCES = 2  # of a speaker whose voice is kept: one shows it, another speaks in it
MAX_VOICES = 64  # kept by name
NUM_AVERAGED = 16  # recordings of which a kept voice is the mean


@dataclass(frozen=True)
class Reference:
    """A part of a recording: its row among the states, and where in it."""

    row: int
    first_frame: int
    num_frames: int


@dataclass(frozen=True)
class Speakers:
    """Who speaks in a folder of states.

    Attributes:
        names: of the G speakers, by their first utterance.
        speaker_N: int32, the speaker of each utterance.
    """

    names: list[str]
    speaker_N: npt.NDArray[np.int32]


def find_speakers(states: StatesFolder) -> Speakers:
    """Who speaks; of the texts, only one name of each speaker stays in memory."""
    numbers: dict[str, int] = {}
    spoken = (numbers.setdefault(name, len(numbers)) for name in states.table.texts("speaker"))
    speaker_N = np.fromiter(spoken, np.int32, count=len(states.utterances))
    return Speakers(list(numbers), speaker_N)


def voice_names(states: StatesFolder) -> list[str]:
    """Speakers with at least `MIN_UTTERANCES`; who speaks most comes first, and at most
    `MAX_VOICES` are named."""
    speakers = find_speakers(states)
    counts_G = np.bincount(speakers.speaker_N)
    frames_G = np.bincount(speakers.speaker_N, states.num_frames_N)
    order = np.argsort(-frames_G, kind="stable")
    kept = [speakers.names[g] for g in order.tolist() if counts_G[g] >= MIN_UTTERANCES]
    return kept[:MAX_VOICES]


class References:
    """Finds, for every utterance, another one of the same speaker."""

    def __init__(self, states: StatesFolder, voices: Sequence[str]) -> None:
        """
        Args:
            voices: names of those that the head is to know.
        """
        self._states = states
        speakers = find_speakers(states)
        self._names = speakers.names
        self._speaker_N = speakers.speaker_N
        # The utterances of each speaker, one after the other; and where in them each utterance is.
        self._order_N = np.argsort(speakers.speaker_N, kind="stable").astype(np.int32)
        counts_G = np.bincount(speakers.speaker_N, minlength=len(speakers.names))
        self._first_G = np.cumsum(counts_G) - counts_G
        self._count_G = counts_G
        self._voice_G = [voices.index(n) if n in voices else NO_VOICE for n in speakers.names]

    def draw(self, rows: Sequence[int]) -> list[Reference]:
        """A part of 1 to 5 s of another utterance of each speaker, drawn from torch's global
        generator; of the same utterance, where the speaker has no other."""
        draws_B3 = torch.rand(len(rows), 3).tolist()
        return [
            self._part(self._other(row, which), length, where)
            for row, (which, length, where) in zip(rows, draws_B3, strict=True)
        ]

    def first(self, rows: Sequence[int]) -> list[Reference]:
        """The first 5 s of another utterance of each speaker, always the same."""
        return [self._part(self._other(row, 0.0), 1.0, 0.0) for row in rows]

    def read(self, references: Sequence[Reference]) -> list[Tensor]:
        """Mimi codes `[R, K]` of each."""
        utterances = [self._states.utterances[reference.row] for reference in references]
        return [
            self._states.read_codes(utterance)[r.first_frame : r.first_frame + r.num_frames]
            for utterance, r in zip(utterances, references, strict=True)
        ]

    def voices(self, references: Sequence[Reference]) -> Tensor:
        """Whose voice each shows: int64 `[B]`, places in the list of names; `NO_VOICE` where it is
        not in it."""
        return torch.tensor([self._voice_G[self._speaker_N[r.row]] for r in references])

    def of_speaker(self, name: str) -> list[Tensor]:
        """Mimi codes `[R, K]` of up to `NUM_AVERAGED` utterances of a speaker, evenly from all."""
        g = self._names.index(name)
        first, count = int(self._first_G[g]), int(self._count_G[g])
        number = min(count, NUM_AVERAGED)
        rows = [int(self._order_N[first + i * count // number]) for i in range(number)]
        return self.read([self._part(row, 1.0, 0.0) for row in rows])

    def _other(self, row: int, draw: float) -> int:
        g = self._speaker_N[row]
        first, count = int(self._first_G[g]), int(self._count_G[g])
        if count == 1:
            return row
        own = int(np.searchsorted(self._order_N[first : first + count], row))
        steps = 1 + int(draw * (count - 1))  # beyond its own place, and never around to it
        return int(self._order_N[first + (own + steps) % count])

    def _part(self, row: int, length: float, where: float) -> Reference:
        """`length` and `where` are in [0, 1]: from the shortest to the longest part, and from the
        beginning to the end."""
        rate_hz = self._states.format.frame_rate_hz
        whole = int(self._states.num_frames_N[row])
        wanted = round((MIN_VOICE_S + length * (MAX_REFERENCE_S - MIN_VOICE_S)) * rate_hz)
        num_frames = max(1, min(whole, wanted))
        return Reference(row, int(where * (whole - num_frames + 1)), num_frames)
