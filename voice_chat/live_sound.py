"""A buffer of an answer's samples between the speaker and a listener, who may interrupt.

sound = LiveSound()
sound.add(samples_N)            # the thread that speaks
sound.end()
while (samples_N := sound.take()) is not None:
    play(samples_N)             # the thread that listens
"""

# N samples (24,000 per second)

import threading

import numpy as np


class LiveSound:
    """Samples that one thread adds and another takes; none is lost, and none is taken twice."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self._has_ended = False
        self._is_interrupted = False
        self._is_awaited = False
        self._changed = threading.Condition()

    @property
    def is_interrupted(self) -> bool:
        """Whether the listener wants no more."""
        return self._is_interrupted

    def add(self, samples_N: np.ndarray) -> None:
        """Add the next samples, float32."""
        with self._changed:
            self._pieces.append(samples_N)
            self._changed.notify_all()

    def end(self) -> None:
        """Mark the sound as complete: nothing more will be added."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Mark the sound as interrupted: samples not yet taken are dropped."""
        with self._changed:
            self._is_interrupted = True
            self._pieces.clear()
            self._changed.notify_all()

    def take(self, timeout_s: float | None = None) -> np.ndarray | None:
        """Take everything added since the last call; waits until there is something.

        Only one thread waits at a time, so that a listener who asks often blocks one thread, not
        all of them: a second one gets an empty array at once.

        Args:
            timeout_s: longest wait, after which an empty array is returned; None waits for ever.

        Returns:
            float32 `[N]`; None once everything has been taken or the listener has interrupted.
        """
        with self._changed:
            if not self._is_awaited:
                self._is_awaited = True
                self._changed.wait_for(
                    lambda: self._pieces or self._has_ended or self._is_interrupted, timeout_s
                )
                self._is_awaited = False
            pieces, self._pieces = self._pieces, []
            if not pieces and (self._has_ended or self._is_interrupted):
                return None
            return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
