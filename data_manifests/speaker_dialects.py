"""Which dialect a speaker's utterances are spelt in: the evidence of all of them, added up.

One utterance in three holds too few cues for a guess of its own, but people keep to one dialect: on
WAXAL's development texts, with 18 speakers, the guess from a speaker's other utterances is that of
an utterance's own spelling for 1,308 of 1,314 (`tests/test_data_speaker_dialects.py`).

Only numbers are kept of each utterance, four bytes.
"""

# N utterances

from array import array

import numpy as np

from data_manifests.manifest import Utterance
from data_manifests.twi_dialects import DIALECTS, MIN_EVIDENCE, MIN_RATIO, count_evidence

NO_GUESS = -1
_MOST_POINTS = 255


class SpeakerDialects:
    """Evidence for each dialect in utterances, in the order in which they are added."""

    def __init__(self) -> None:
        self._points = array("B")
        self._is_open = array("B")

    def add(self, utterance: Utterance) -> None:
        """Append an utterance. What has a dialect is no evidence and gets no guess, nor does one
        whose corpus names no speaker: several people may have spoken."""
        is_open = utterance.dialect == "unknown" and not utterance.speaker.endswith("/unknown")
        points = count_evidence(utterance.text) if is_open else {}
        self._points.extend(min(_MOST_POINTS, points.get(name, 0)) for name in DIALECTS)
        self._is_open.append(is_open)

    def guess(self, speakers_N: np.ndarray) -> np.ndarray:
        """Guess a dialect for each utterance, by the rules of `twi_dialects.guess_dialect`.

        Args:
            speakers_N: hashes of their speakers, uint64.

        Returns:
            int8 `[N]`: a position in `DIALECTS`, or `NO_GUESS`.
        """
        points_ND = np.frombuffer(self._points, dtype=np.uint8).reshape(-1, len(DIALECTS))
        _, speaker_N = np.unique(speakers_N, return_inverse=True)
        summed = [np.bincount(speaker_N, weights=column) for column in points_ND.T]
        points_SD = np.stack(summed, axis=1)
        best_S = points_SD.argmax(axis=1)
        ordered_SD = np.sort(points_SD, axis=1)
        is_sure_S = ordered_SD[:, -1] >= np.maximum(MIN_EVIDENCE, MIN_RATIO * ordered_SD[:, -2])
        guess_S = np.where(is_sure_S, best_S, NO_GUESS).astype(np.int8)
        is_open_N = np.frombuffer(self._is_open, dtype=np.uint8) > 0
        return np.where(is_open_N, guess_S[speaker_N], NO_GUESS).astype(np.int8)
