"""When a speaker's turn begins, pauses and ends, from the sound of a microphone as it arrives.

    voice, turns = VoiceDetector(), TurnDetector(TurnSettings())
    for samples_N in microphone:
        for probability in voice.push(samples_N):
            event = turns.step(probability)

Silero's voice detector (MIT; its weights are in its wheel) gives a probability of speech for every
32 ms. A turn ends with a pause of a set length. The answer is begun earlier, in the pause itself,
and thrown away if the speaker goes on: so the pause costs time that is used.
"""

# N samples at 16 kHz

import copy
import functools
import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch

from commands.device import use_threads
from commands.errors import InputError
from commands.setting_types import PositiveFloat, Probability
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ

WINDOW_SAMPLES = 512  # what silero judges at a time at 16 kHz
WINDOW_S = WINDOW_SAMPLES / GEMMA_SAMPLE_RATE_HZ
# Speech begins above a probability, and lasts until it falls so far below that: silero's own rule.
HYSTERESIS = 0.15
# Windows without speech inside a word that has just begun, before it is taken for a noise.
MAX_GAP_S = 0.1

EventKind = Literal["began", "paused", "resumed", "ended"]


@dataclass(frozen=True, kw_only=True)
class TurnSettings:
    """How a speaker's turn is told from silence."""

    speech_probability: Probability = 0.5
    """from here on, 32 ms of sound are speech"""
    min_speech_s: PositiveFloat = 0.15
    """shorter sounds are no turn, in seconds"""
    early_pause_s: PositiveFloat = 0.2
    """after so long a silence the answer is begun, and thrown away if the speaker goes on"""
    pause_s: PositiveFloat = 0.7
    """after so long a silence the turn has ended"""
    max_turn_s: PositiveFloat = 60.0
    """a longer turn is ended, in seconds"""


@dataclass(frozen=True)
class TurnEvent:
    """Something that a speaker did.

    Attributes:
        kind: "began"; "paused", for `early_pause_s`; "resumed" after that; "ended".
        time_s: where in the sound it happened, in seconds since its beginning: the first speech of
            the turn, or of what follows a pause; where it "paused" or "ended", the end of the last.
    """

    kind: EventKind
    time_s: float


class TurnDetector:
    """One speaker's turns, from probabilities of speech."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._num_windows = 0
        self._is_in_turn = False
        self._has_paused = False
        self._first_speech: int | None = None  # of a turn that may have begun
        self._num_speech = 0  # windows of speech in it
        self._end_of_speech = 0  # the window after the last with speech

    @property
    def silence_s(self) -> float:
        """For how long there has been no speech."""
        return (self._num_windows - self._end_of_speech) * WINDOW_S

    @property
    def may_have_begun_s(self) -> float:
        """Where a turn's first speech is, if one may be beginning; else now."""
        if self._first_speech is None or self._is_in_turn:
            return self._num_windows * WINDOW_S
        return self._first_speech * WINDOW_S

    @property
    def speech_s(self) -> float:
        """How much speech there is in this turn so far, pauses apart."""
        return self._num_speech * WINDOW_S

    def step(self, probability: float) -> TurnEvent | None:
        """Take the next window.

        Args:
            probability: of speech in the next 32 ms.

        Returns:
            What the speaker did by it.
        """
        window, self._num_windows = self._num_windows, self._num_windows + 1
        threshold = self._settings.speech_probability
        is_speech = probability >= (threshold - HYSTERESIS if self._is_in_turn else threshold)
        if is_speech:
            self._end_of_speech = window + 1
        judge = self._in_turn if self._is_in_turn else self._before
        return judge(window, is_speech)

    def end(self) -> TurnEvent | None:
        """End the turn now; returns what that is, or None where none has begun."""
        self._first_speech = None
        if not self._is_in_turn:
            return None
        self._is_in_turn = False
        return TurnEvent("ended", self._end_of_speech * WINDOW_S)

    def _before(self, window: int, is_speech: bool) -> TurnEvent | None:
        if is_speech:
            if self._first_speech is None:
                self._first_speech, self._num_speech = window, 0
            self._num_speech += 1
            if self._num_speech >= _windows(self._settings.min_speech_s):
                self._is_in_turn, self._has_paused = True, False
                return TurnEvent("began", self._first_speech * WINDOW_S)
        elif self.silence_s > MAX_GAP_S:
            self._first_speech = None
        return None

    def _in_turn(self, window: int, is_speech: bool) -> TurnEvent | None:
        assert self._first_speech is not None
        if window - self._first_speech >= _windows(self._settings.max_turn_s):
            return self.end()
        if is_speech:
            self._num_speech += 1
            if not self._has_paused:
                return None
            self._has_paused = False
            return TurnEvent("resumed", window * WINDOW_S)
        num_silent = self._num_windows - self._end_of_speech
        if num_silent >= _windows(self._settings.pause_s):
            return self.end()
        if not self._has_paused and num_silent >= _windows(self._settings.early_pause_s):
            self._has_paused = True
            return TurnEvent("paused", self._end_of_speech * WINDOW_S)
        return None


class VoiceDetector:
    """Silero's voice detector on one stream of sound."""

    def __init__(self) -> None:
        """
        Raises:
            InputError: silero-vad or onnxruntime is not installed.
        """
        refuse_missing_detector()
        self._model = copy.copy(_load_silero())  # the weights are shared, the state is its own
        self._model.reset_states()
        self._rest_N = np.zeros(0, np.float32)

    def push(self, samples_N: np.ndarray) -> list[float]:
        """Hear more.

        Args:
            samples_N: float32 in [-1, 1], mono, 16 kHz; any number.

        Returns:
            The probability of speech in every 32 ms that are complete by now.
        """
        sound_N = np.concatenate([self._rest_N, samples_N.astype(np.float32)])
        num_windows = len(sound_N) // WINDOW_SAMPLES
        self._rest_N = sound_N[num_windows * WINDOW_SAMPLES :]
        windows = sound_N[: num_windows * WINDOW_SAMPLES].reshape(num_windows, WINDOW_SAMPLES)
        with torch.no_grad():
            return [
                float(self._model(torch.from_numpy(window_N), GEMMA_SAMPLE_RATE_HZ))
                for window_N in windows
            ]


@functools.cache
def _load_silero() -> Any:
    # Its import sets the number of threads of the whole process to 1; so only here is it imported.
    with use_threads(torch.get_num_threads()):
        from silero_vad import load_silero_vad

        return load_silero_vad(onnx=True)  # half the time of the TorchScript model


def refuse_missing_detector() -> None:
    """Raise InputError if silero-vad or onnxruntime is not installed."""
    if find_spec("silero_vad") is None:
        raise InputError("needs silero-vad: pip install -c constraints.txt -e '.[live]'")
    if find_spec("onnxruntime") is None:
        raise InputError("needs onnxruntime: pip install -c constraints.txt -e '.[live]'")


def _windows(seconds: float) -> int:
    """The least number of windows that last so long."""
    return max(1, math.ceil(seconds / WINDOW_S - 1e-9))
