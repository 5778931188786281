"""The computer's microphone and loudspeaker, through sounddevice (PortAudio).

with Microphone() as microphone, Loudspeaker(24_000) as loudspeaker:
    loudspeaker.add(answer_N)
    while True:
        samples_N = microphone.take(timeout_s=0.1)
"""

# N samples

import queue
import threading
from types import ModuleType
from typing import Any, Self

import numpy as np

from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from voice_chat.sound_source import PIECE_SAMPLES


class _Stream:
    """One of PortAudio's streams, which runs in a `with` block."""

    def __init__(self, kind: str, name: str, **settings: Any) -> None:
        sounddevice = _import_sounddevice()
        try:
            self._stream = getattr(sounddevice, kind)(channels=1, dtype="float32", **settings)
        except (sounddevice.PortAudioError, ValueError) as error:
            message = f"no {name} can be used ({error}): see python -m sounddevice"
            raise InputError(message) from None

    def __enter__(self) -> Self:
        self._stream.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


class Microphone(_Stream):
    """Sound of the microphone, mono, 16 kHz, from the beginning of a `with` block to its end."""

    def __init__(self, device: str | None = None) -> None:
        """
        Args:
            device: a part of its name (`python -m sounddevice` lists them); None is the usual one.

        Raises:
            InputError: sounddevice or its library is missing, or there is no such microphone.
        """
        self._pieces: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        super().__init__(
            "InputStream", "microphone", device=device, samplerate=GEMMA_SAMPLE_RATE_HZ,
            blocksize=PIECE_SAMPLES, callback=self._keep,
        )  # fmt: skip

    def take(self, timeout_s: float) -> np.ndarray:
        """All that was heard since the last call, float32; waits for it, at most `timeout_s`."""
        pieces = []
        try:
            pieces.append(self._pieces.get(timeout=timeout_s) if timeout_s else
                          self._pieces.get_nowait())  # fmt: skip
            while True:
                pieces.append(self._pieces.get_nowait())
        except queue.Empty:
            pass
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _keep(self, samples_N1: np.ndarray, *_: object) -> None:
        self._pieces.put(samples_N1[:, 0].copy())  # the array is used again


class Loudspeaker(_Stream):
    """Plays what is added, from the beginning of a `with` block to its end."""

    def __init__(self, sample_rate_hz: int) -> None:
        """
        Raises:
            InputError: as `Microphone`.
        """
        self._waiting_N = np.zeros(0, np.float32)
        self._is_held = False
        self._lock = threading.Lock()
        super().__init__(
            "OutputStream", "loudspeaker", samplerate=sample_rate_hz, callback=self._fill
        )

    def add(self, samples_N: np.ndarray) -> None:
        """Play these after what waits; returns at once."""
        with self._lock:
            self._waiting_N = np.concatenate([self._waiting_N, samples_N])

    def stop(self) -> None:
        """Do not play what waits."""
        with self._lock:
            self._waiting_N = np.zeros(0, np.float32)
            self._is_held = False

    def hold(self) -> None:
        """Play no more until `go_on` or `stop`."""
        self._is_held = True

    def go_on(self) -> None:
        """Play what waits."""
        self._is_held = False

    def _fill(self, samples_N1: np.ndarray, *_: object) -> None:
        with self._lock:
            count = 0 if self._is_held else min(len(samples_N1), len(self._waiting_N))
            samples_N1[:count, 0] = self._waiting_N[:count]
            samples_N1[count:] = 0
            self._waiting_N = self._waiting_N[count:]


def _import_sounddevice() -> ModuleType:
    try:
        import sounddevice
    except (ModuleNotFoundError, OSError) as error:  # OSError: PortAudio itself is missing
        raise InputError(
            f"microphone and loudspeaker need sounddevice and PortAudio ({error}): pip install -c "
            "constraints.txt -e '.[live]', and on Debian apt install libportaudio2"
        ) from None
    return sounddevice
