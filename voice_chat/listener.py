"""The listening side of a conversation: turns of the other, and the sound that belongs to them."""

# N samples at 16 kHz

from collections.abc import Iterator

import numpy as np

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from voice_chat.turn_taking import TurnDetector, TurnEvent, TurnSettings, VoiceDetector

# So much sound before the first speech belongs to the turn: consonants are softer than what is
# detected.
LEAD_S = 0.1


class Listener:
    """What is heard of one speaker.

    Attributes:
        turns: the detector of the speaker's turns.
    """

    def __init__(self, settings: TurnSettings, voice: VoiceDetector) -> None:
        self.turns = TurnDetector(settings)
        self._voice = voice
        self._recent_N = np.zeros(0, np.float32)  # the end of what was heard
        self._num_heard = 0  # samples

    @property
    def heard_s(self) -> float:
        """How much was heard."""
        return self._num_heard / GEMMA_SAMPLE_RATE_HZ

    def hear(
        self, samples_N: np.ndarray, *, may_be_speech: bool = True
    ) -> Iterator[TurnEvent | None]:
        """Hear more.

        Args:
            samples_N: float32 in [-1, 1], mono, 16 kHz.
            may_be_speech: whether it may be that of the speaker.

        Yields:
            For every 32 ms, what the speaker did by it, if anything.
        """
        self._num_heard += len(samples_N)
        self._recent_N = np.concatenate([self._recent_N, samples_N])
        for probability in self._voice.push(samples_N):
            yield self.turns.step(probability if may_be_speech else 0.0)
        self._recent_N = self._recent_N[self._begin(self.turns.may_have_begun_s) :].copy()

    def sound_of_turn(self, first_speech_s: float) -> np.ndarray:
        """The sound of a turn that has just begun, from a little before its first speech."""
        return self._recent_N[self._begin(first_speech_s) :]

    def _begin(self, first_speech_s: float) -> int:
        """Where in the recent sound such a turn begins."""
        start = round((first_speech_s - LEAD_S) * GEMMA_SAMPLE_RATE_HZ)
        return max(0, start - self._num_heard + len(self._recent_N))
