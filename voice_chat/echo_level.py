"""How loud the echo of our own voice can be, and so what cannot be echo.

    level = EchoLevel()
    level.is_louder(played_N, heard_N, left_N, is_alone=True)  # a hundredth of a second

An echo canceller takes a part of a short word out with the echo, and what is left of "gyae" is no
longer that word. But somebody who speaks into a microphone is mostly far louder there than what
comes back from the loudspeaker. What is louder than any echo can be is heard as it is.

The loudest echo is the loudest sound of the last second, times the most that was ever heard of
what was played: while nobody is listened to, in the first moments of an answer, and afterwards,
more slowly, wherever the canceller leaves next to nothing. Where somebody speaks in those moments,
too much is taken for echo, and for some seconds the canceller's sound is heard, as without this.
"""

# N samples at 16 kHz

import numpy as np

FRAMES_A_SECOND = 100
REMEMBERED = FRAMES_A_SECOND  # of what was played: the echo comes late, and lasts
LEARNED = FRAMES_A_SECOND  # frames of echo, before anything counts as louder
LEAST_PLAYED = 1e-5  # power; softer sound tells nothing about its echo
LEFT_OF_ECHO = 0.05  # a canceller that leaves so little has heard nothing else
LOUDER = 10 ** (6 / 10)
RISE = 10 ** (0.05 / 10)  # a frame: an echo becomes louder slowly, and a word begins at once
FORGOTTEN = 0.5 ** (1 / (10 * FRAMES_A_SECOND))  # half in ten seconds of what is played
HANGOVER = 15  # frames that belong to the loud ones before them


class EchoLevel:
    """The echo of one loudspeaker in one microphone."""

    def __init__(self) -> None:
        self._played = np.zeros(REMEMBERED)  # power of the last frames, in a ring
        self._frame = 0
        self._gain = 0.0  # power of the loudest echo, relative to the loudest sound
        self._num_learned = 0
        self._hangover = 0

    def is_louder(
        self, played_N: np.ndarray, heard_N: np.ndarray, left_N: np.ndarray, *, is_alone: bool
    ) -> bool:
        """Hear the next hundredth of a second.

        Args:
            played_N: what is played.
            heard_N: what the microphone hears.
            left_N: what the canceller leaves of it.
            is_alone: whether nobody else is listened to.

        Returns:
            Whether what is heard is louder than an echo can be.
        """
        self._played[self._frame % REMEMBERED] = np.square(played_N).mean()
        self._frame += 1
        loudest = float(self._played.max())
        heard, left = float(np.square(heard_N).mean()), float(np.square(left_N).mean())
        is_louder = heard > LOUDER * self._gain * loudest and self._num_learned >= LEARNED
        if loudest > LEAST_PLAYED:
            self._gain *= FORGOTTEN
            self._learn(heard / loudest, is_alone, is_echo=left < LEFT_OF_ECHO * heard)
        self._hangover = HANGOVER if is_louder else max(0, self._hangover - 1)
        return self._hangover > 0

    def _learn(self, ratio: float, is_alone: bool, *, is_echo: bool) -> None:
        if is_alone:
            self._gain = max(self._gain, ratio)
        elif is_echo:
            self._gain = max(self._gain, min(ratio, RISE * self._gain))
        self._num_learned += is_alone or is_echo
