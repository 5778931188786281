"""Speak, and measure the time to the first sound and to the last."""

# N samples (24,000 per second)

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from speech_head.answer import AnswerTokens
from speech_head.speech import Speech


@dataclass(frozen=True)
class TimedSpeech:
    """The speech, and how long it took.

    Attributes:
        samples_N: float32, 24 kHz.
        duration_s: length of the speech.
        first_sound_s: from the question to the first 80 ms of speech.
        total_s: from the question to the last 80 ms.
    """

    samples_N: np.ndarray
    duration_s: float
    first_sound_s: float
    total_s: float


def record(
    speech: Speech,
    answer: Iterable[AnswerTokens],
    on_samples: Callable[[np.ndarray], None] = lambda samples_N: None,
) -> TimedSpeech:
    """Speak an answer to its end; `on_samples` gets every 80 ms as soon as they are ready.

    Raises:
        InputError: as `Speech.say`.
    """
    began = time.perf_counter()
    pieces: list[np.ndarray] = []
    first_sound_s = 0.0
    for samples_N in speech.say(answer):
        if not pieces:
            first_sound_s = time.perf_counter() - began
        pieces.append(samples_N)
        on_samples(samples_N)
    samples_N = np.concatenate(pieces)
    duration_s = len(samples_N) / speech.talker.mimi.sample_rate_hz
    return TimedSpeech(samples_N, duration_s, first_sound_s, time.perf_counter() - began)


def describe(speech: Speech, recording: TimedSpeech) -> str:
    """The times in one line, and how the speech ended if it did not end by itself."""
    factor = recording.total_s / recording.duration_s
    ended = "" if speech.end == "ended" else f"; warning: the speech was {speech.end}"
    return (
        f"first sound after {recording.first_sound_s:.2f} s, {recording.duration_s:.2f} s of "
        f"speech in {recording.total_s:.2f} s (real-time factor {factor:.2f}){ended}"
    )
