"""Somebody who asks the server of `voice_chat.serve` recorded questions, as a page would.

for told in await converse(address, questions):
    print(told.wait_s, told.text)
"""

# N samples at 16 kHz

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.quiet_room import ROOM_NOISE
from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ, to_pcm16
from voice_chat.sound_source import PIECE_SAMPLES

SILENCE_S = 0.5  # before a question, and after an answer
PATIENCE_S = 30.0  # after a question, in which its answer must have ended


@dataclass
class Told:
    """What a client is told of one answer.

    Attributes:
        last_word_s: when the last word was said, in the clock of the machine; None until known.
        first_sound_s: when the first sound arrived.
        last_sound_s: when the last one did.
        sound_s: how much there was of it.
        stalled_s: how long a player would have had nothing to play.
        text: the answer, once it is complete.
        ended: set when it is.
    """

    last_word_s: float | None = None
    first_sound_s: float | None = None
    last_sound_s: float = 0.0
    sound_s: float = 0.0
    stalled_s: float = 0.0
    text: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, event: dict[str, Any], began_s: float) -> None:
        """Note what the server says.

        Args:
            began_s: when the conversation began, in the clock of the machine.
        """
        if event["type"] == "input_audio_buffer.speech_stopped":
            self.last_word_s = began_s + event["audio_end_ms"] / 1000
        elif event["type"] == "response.output_audio.delta":
            self.take_sound(len(base64.b64decode(event["delta"])) // 2)
        elif event["type"] == "response.output_audio_transcript.done":
            self.text = event["transcript"]
        elif event["type"] == "response.done":
            self.ended.set()

    def take_sound(self, num_samples: int) -> None:
        """Note that sound has arrived."""
        now_s = time.monotonic()
        if self.first_sound_s is None:
            self.first_sound_s = now_s
        self.stalled_s += max(0.0, now_s - self.first_sound_s - self.stalled_s - self.sound_s)
        self.sound_s += num_samples / MIMI_SAMPLE_RATE_HZ
        self.last_sound_s = now_s

    @property
    def wait_s(self) -> float:
        """From the last word to the first sound."""
        assert self.first_sound_s is not None and self.last_word_s is not None
        return self.first_sound_s - self.last_word_s

    @property
    def speed(self) -> float:
        """Seconds of sound that arrived in a second, from the first to the last."""
        assert self.first_sound_s is not None
        return self.sound_s / max(0.08, self.last_sound_s - self.first_sound_s)


def in_a_room(sound_N: np.ndarray) -> np.ndarray:
    """A recording as `converse` says its first one: float32 `[N]`, between silences of a room."""
    before_N = np.zeros(round(SILENCE_S * GEMMA_SAMPLE_RATE_HZ), np.float32)
    after_N = np.zeros(2 * GEMMA_SAMPLE_RATE_HZ, np.float32)
    noisy_N = _with_noise(np.concatenate([before_N, sound_N, after_N]), np.random.default_rng(0))
    return np.frombuffer(to_pcm16(noisy_N), "<i2").astype(np.float32) / 32768  # as it arrives


async def converse(address: str, questions: Sequence[np.ndarray]) -> list[Told]:
    """Have one conversation: ask each question when the answer before it was heard to its end.

    Args:
        address: of the server, ws://...
        questions: float32 `[N]` in [-1, 1], mono.

    Returns:
        What was told of each.

    Raises:
        InputError: one was not answered aloud within `PATIENCE_S`.
    """
    import websockets

    async with websockets.connect(f"{address}/v1/realtime", max_size=2**22) as socket:
        audio_format = {"type": "audio/pcm", "rate": GEMMA_SAMPLE_RATE_HZ}
        settings = {"audio": {"input": {"format": audio_format}}}
        await socket.send(json.dumps({"type": "session.update", "session": settings}))
        began_s = time.monotonic()
        told: list[Told] = []

        async def read() -> None:
            async for message in socket:
                if told:
                    told[-1].take(json.loads(message), began_s)

        reading = asyncio.create_task(read())
        microphone = _Microphone(socket, began_s)
        for sound_N in questions:
            told.append(now := Told())
            await microphone.say(np.zeros(round(SILENCE_S * GEMMA_SAMPLE_RATE_HZ), np.float32))
            await microphone.say(sound_N)
            await microphone.be_silent(now.ended, PATIENCE_S)
            if now.first_sound_s is None or now.last_word_s is None:
                raise InputError(f"a question was not answered aloud within {PATIENCE_S:g} s")
            left_s = now.first_sound_s + now.stalled_s + now.sound_s - time.monotonic()
            await microphone.be_silent(asyncio.Event(), max(0.0, left_s) + SILENCE_S)
        reading.cancel()
    return told


class _Microphone:
    """Sends sound at the speed of speech."""

    def __init__(self, socket: Any, began_s: float) -> None:
        self._socket = socket
        self._began_s = began_s
        self._num_sent = 0
        self._noise = np.random.default_rng(0)

    async def say(self, sound_N: np.ndarray) -> None:
        """Send this, with the noise of the room."""
        noisy_N = _with_noise(sound_N, self._noise)
        for start in range(0, len(noisy_N), PIECE_SAMPLES):
            piece_N = noisy_N[start : start + PIECE_SAMPLES]
            self._num_sent += len(piece_N)
            due_s = self._began_s + self._num_sent / GEMMA_SAMPLE_RATE_HZ
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            audio = base64.b64encode(to_pcm16(piece_N)).decode("ascii")
            await self._socket.send(
                json.dumps({"type": "input_audio_buffer.append", "audio": audio})
            )

    async def be_silent(self, event: asyncio.Event, seconds: float) -> None:
        """Send the noise of the room until something happens, or so long."""
        until = self._num_sent + seconds * GEMMA_SAMPLE_RATE_HZ
        while not event.is_set() and self._num_sent < until:
            await self.say(np.zeros(PIECE_SAMPLES, np.float32))


def _with_noise(sound_N: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return sound_N + ROOM_NOISE * generator.standard_normal(len(sound_N)).astype(np.float32)
