"""Sound that a hands-free conversation hears, and how the two are driven.

for update in follow(HandsFree(...), RecordingSource(sound_N)):
    ...
"""

# N samples at 16 kHz

import time
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from voice_chat.hands_free import HandsFree
from voice_chat.updates import Update

PIECE_SAMPLES = 512  # 32 ms, as a microphone gives them
WAIT_S = 0.1  # for sound, when there is nothing to compute


class Source(Protocol):
    """Where sound comes from."""

    def take(self, timeout_s: float) -> np.ndarray | None:
        """float32 `[N]` of the sound since the last call; waits for some, at most `timeout_s`. None
        when there is no more."""


class RecordingSource:
    """A recording at the speed of speech, from the first `take` on."""

    def __init__(self, sound_N: np.ndarray) -> None:
        self._sound_N = sound_N
        self._began: float | None = None
        self._num_taken = 0

    def take(self, timeout_s: float) -> np.ndarray | None:
        """One piece, once it is due."""
        if self._began is None:
            self._began = time.monotonic()
        piece_N = self._sound_N[self._num_taken : self._num_taken + PIECE_SAMPLES]
        if not len(piece_N):
            return None
        due = self._began + (self._num_taken + len(piece_N)) / GEMMA_SAMPLE_RATE_HZ
        left_s = due - time.monotonic()
        time.sleep(min(max(left_s, 0.0), timeout_s))
        if left_s > timeout_s:
            return piece_N[:0]
        self._num_taken += len(piece_N)
        return piece_N


def follow(live: HandsFree, source: Source) -> Iterator[Update]:
    """Let a conversation hear a source to its end and work in between; what happens."""
    while (samples_N := source.take(0.0 if live.is_busy else WAIT_S)) is not None:
        yield from live.hear(samples_N)
        yield from live.work()
    while live.is_busy:
        yield from live.work()
