"""Our own voice as the speaker hears it: how long it is played, and its echo in the microphone.

    own_voice = OwnVoice(24_000, time.monotonic)
    own_voice.say(samples_N)                         # what is passed on to be played
    heard_N = own_voice.take_echo_out(microphone_N)  # in step with it

The voice detector takes our answer for speech however softly it comes back from the loudspeaker. So
it is taken out, by WebRTC's echo canceller (`livekit` brings it), which finds out by itself how
late and how loud the echo is. Browsers do the same; a loudspeaker in a room needs it too. What is
louder than the echo can be (`echo_level.py`) is left as it is.
"""

# N samples (of our voice at its own rate, of the microphone at 16 kHz)

from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import soxr

from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, to_pcm16
from voice_chat.echo_level import FRAMES_A_SECOND, EchoLevel

FRAME_SAMPLES = GEMMA_SAMPLE_RATE_HZ // FRAMES_A_SECOND  # what the canceller takes at a time
TAIL_S = 0.6  # so long after our last sound its echo may still come
# In the first moments of an answer the canceller does not know its echo yet.
FIRST_S = 0.6
BEFORE_WORD = 6  # frames that are heard as they are, before one that is louder than the echo
MOST_AHEAD_S = 1.0  # by which the played sound may differ from what the clock says


class OwnVoice:
    """What is played of our answers."""

    def __init__(self, sample_rate_hz: int, clock_s: Callable[[], float]) -> None:
        """
        Args:
            sample_rate_hz: of the answers.
            clock_s: seconds, by which they are played.

        Raises:
            InputError: livekit is not installed.
        """
        self._canceller = EchoCanceller()
        self._level = EchoLevel()
        # The last frames that were heard: as they were, and as they are passed on.
        self._waiting: deque[tuple[np.ndarray, np.ndarray]] = deque()
        self._sample_rate_hz = sample_rate_hz
        self._frame_samples = sample_rate_hz // FRAMES_A_SECOND
        self._clock_s = clock_s
        self._until_s = 0.0
        self._held_s: float | None = None  # since when nothing is played for now
        # What is played from the first sample on that the canceller has not heard yet.
        self._playing_N = np.zeros(0, np.float32)
        self._held_N = np.zeros(0, np.float32)  # what waits
        self._before_N = np.zeros(self._frame_samples, np.float32)  # the last frame played
        self._rest_N = np.zeros(0, np.float32)  # of the microphone, less than a frame
        self._tail_samples = 0
        self._played_samples = 0  # of what is said without a gap

    @property
    def is_heard(self) -> bool:
        """Whether there is still something to be played."""
        return self._now_s < self._until_s

    @property
    def is_held(self) -> bool:
        """Whether it waits."""
        return self._held_s is not None

    @property
    def is_beginning(self) -> bool:
        """Whether its first sound was played a moment ago."""
        return self.is_heard and 0 < self._played_samples < FIRST_S * GEMMA_SAMPLE_RATE_HZ

    def say(self, samples_N: np.ndarray) -> None:
        """Note sound that is played after what was said before."""
        self._until_s = max(self._now_s, self._until_s) + len(samples_N) / self._sample_rate_hz
        if self.is_held:
            self._held_N = np.concatenate([self._held_N, samples_N], dtype=np.float32)
        else:
            self._play(samples_N)

    def hold(self) -> None:
        """Note that the rest waits from now on."""
        self._held_s = self._clock_s()
        self._held_N = self._playing_N[self._num_played :]
        self._playing_N = self._playing_N[: self._num_played]

    def go_on(self) -> None:
        """Note that the rest is played after all."""
        if self._held_s is not None:
            self._until_s += self._clock_s() - self._held_s
            self._held_s = None
            self._play(self._held_N)

    def stop(self) -> None:
        """Note that the rest is not played."""
        self._held_s = None
        self._until_s = self._clock_s()
        self._playing_N = self._playing_N[: self._num_played]

    def take_echo_out(self, heard_N: np.ndarray) -> np.ndarray:
        """What the microphone heard of others.

        Args:
            heard_N: float32 in [-1, 1], mono, 16 kHz; all that it hears, in order.

        Returns:
            The same without the echo of what was played, in whole hundredths of a second: less than
            one waits for the next call, and while something is played, six more.
        """
        sound_N = np.concatenate([self._rest_N, heard_N.astype(np.float32)])
        num_samples = len(sound_N) // FRAME_SAMPLES * FRAME_SAMPLES
        sound_N, self._rest_N = sound_N[:num_samples], sound_N[num_samples:]
        self._forget_played()
        frames = []
        for frame_N in sound_N.reshape(-1, FRAME_SAMPLES):
            played_N = self._next_played()
            if self._tail_samples > 0:
                frames += self._without_echo(played_N, frame_N)
            else:
                frames += [*self._let_go(0), frame_N]
        return np.concatenate(frames) if frames else sound_N[:0]

    def _without_echo(self, played_N: np.ndarray, heard_N: np.ndarray) -> list[np.ndarray]:
        """Take the next frame; gives the one before the last few, when it is known whether a word
        begins in them: its first consonant is soft."""
        left_N = self._canceller.take_out(played_N, heard_N)
        self._waiting.append((heard_N, left_N))
        if self._level.is_louder(played_N, heard_N, left_N, is_alone=self.is_beginning):
            self._waiting = deque((as_heard_N, as_heard_N) for as_heard_N, _ in self._waiting)
        return self._let_go(BEFORE_WORD)

    def _let_go(self, num_kept: int) -> list[np.ndarray]:
        """What waits, but for the last frames."""
        return [self._waiting.popleft()[1] for _ in range(len(self._waiting) - num_kept)]

    def _play(self, samples_N: np.ndarray) -> None:
        """Play these next, or from now on if nothing is played."""
        gap_N = np.zeros(max(0, self._num_played - len(self._playing_N)), np.float32)
        self._playing_N = np.concatenate([self._playing_N, gap_N, samples_N], dtype=np.float32)

    @property
    def _num_played(self) -> int:
        """Samples that are played by now, though the canceller has not heard them."""
        return round(len(self._rest_N) / GEMMA_SAMPLE_RATE_HZ * self._sample_rate_hz)

    @property
    def _now_s(self) -> float:
        return self._clock_s() if self._held_s is None else self._held_s

    def _forget_played(self) -> None:
        """Drop what was played while the microphone was off."""
        left_s = self._until_s - self._now_s
        if left_s < -TAIL_S:
            self._playing_N, self._tail_samples = self._playing_N[:0], 0
            self._let_go(0)
        num_kept = round((max(0.0, left_s) + MOST_AHEAD_S) * self._sample_rate_hz)
        self._playing_N = self._playing_N[max(0, len(self._playing_N) - num_kept) :]

    def _next_played(self) -> np.ndarray:
        """The next hundredth of a second at 16 kHz, with zeros where nothing is played."""
        size = self._frame_samples
        played_N = np.zeros(size, np.float32)
        if len(self._playing_N):
            part_N = self._playing_N[:size]
            self._playing_N = self._playing_N[size:]
            played_N[: len(part_N)] = part_N
            self._tail_samples = round(TAIL_S * GEMMA_SAMPLE_RATE_HZ)
            self._played_samples += FRAME_SAMPLES
        elif self._tail_samples > 0:
            self._tail_samples -= FRAME_SAMPLES
        else:
            self._played_samples = 0
        return self._resampled(played_N)

    def _resampled(self, played_N: np.ndarray) -> np.ndarray:
        """A frame that is played, at 16 kHz.

        Each stands between its neighbours: a resampler of a stream holds back up to 50 ms, and the
        canceller must know when each sample is played.
        """
        after_N = self._playing_N[: len(played_N)]
        missing_N = np.zeros(len(played_N) - len(after_N), np.float32)
        around_N = np.concatenate([self._before_N, played_N, after_N, missing_N])
        self._before_N = played_N
        if not around_N.any():
            return np.zeros(FRAME_SAMPLES, np.float32)
        sound_N = soxr.resample(around_N, self._sample_rate_hz, GEMMA_SAMPLE_RATE_HZ)
        return np.asarray(sound_N[FRAME_SAMPLES : 2 * FRAME_SAMPLES])


class EchoCanceller:
    """WebRTC's, in frames of 10 ms."""

    def __init__(self) -> None:
        """Raises InputError if livekit is not installed."""
        refuse_missing_canceller()
        from livekit import rtc

        self._new_frame = rtc.AudioFrame
        self._processing = rtc.AudioProcessingModule(echo_cancellation=True)
        self._processing.set_stream_delay_ms(0)  # it measures what comes on top of that

    def take_out(self, played_N: np.ndarray, heard_N: np.ndarray) -> np.ndarray:
        """The next frame that was heard, without the echo of what has been played so far."""
        self._processing.process_reverse_stream(self._frame(played_N))
        heard = self._frame(heard_N)
        self._processing.process_stream(heard)
        return np.frombuffer(heard.data, np.int16).astype(np.float32) / 32768

    def _frame(self, samples_N: np.ndarray) -> Any:
        data = bytearray(to_pcm16(samples_N))
        return self._new_frame(data, GEMMA_SAMPLE_RATE_HZ, 1, len(samples_N))


def refuse_missing_canceller() -> None:
    """Raise InputError if livekit is not installed."""
    if find_spec("livekit") is None:
        raise InputError("needs livekit: pip install -c constraints.txt -e '.[live]'")
