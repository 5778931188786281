"""In which voice each held-out answer is to be spoken, and whether it was.

The voice of an answer is that of its recording, so that both can be compared: by name, if the head
was trained on that speaker; else from another recording of the same speaker among the test data.
Answers without a recording take the head's voices by turns.
"""

# N samples

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median

import librosa
import numpy as np

from data_manifests.audio import resample
from data_manifests.manifest import Utterance, read_utterance_audio
from data_manifests.quoted_rates import QuotedRates, quote_rates
from speech_head.held_out import HeldOut
from speech_head.spoken_answers import SpokenRow
from speech_head.talker import Talker
from speech_head.voice_encoder import MAX_VOICE_S, MIN_VOICE_S
from speech_head.voices import Voice, find_voice

PITCH_RATE_HZ = 16_000
LOWEST_PITCH_HZ, HIGHEST_PITCH_HZ = 60.0, 400.0  # of speech
PITCH_TOLERANCE = 0.2


@dataclass(frozen=True)
class VoiceMetrics:
    """How well a head speaks in one voice, or in all of them.

    Attributes:
        num_answers: spoken in it.
        rates: error rates of their transcripts; None if there are none.
        in_pitch: fraction whose median pitch is within `PITCH_TOLERANCE` of that of the voice's
            recordings, which tells apart voices that differ by more; None without recordings.
        in_pitch_mimi: the same fraction of the recordings coded by Mimi: the ceiling.
    """

    num_answers: int
    rates: QuotedRates | None
    in_pitch: float | None
    in_pitch_mimi: float | None

    def as_dict(self) -> dict[str, float | None]:
        """For `metrics.json`."""
        numbers = asdict(self)
        del numbers["rates"]
        rates = self.rates
        return {**numbers, "wer": rates.wer if rates else None, "cer": rates.cer if rates else None}


def ask_for_voices(rows: Sequence[HeldOut], talker: Talker, *, is_fixed: bool) -> list[HeldOut]:
    """The answers, each with the voice in which it is to be spoken.

    Args:
        talker: its head speaks.
        is_fixed: all are spoken in the talker's own voice.
    """
    head = talker.head
    if not head.config.voice_width:
        return list(rows)
    if is_fixed:
        return [replace(row, voice=talker.voice) for row in rows]
    names = head.config.voices
    by_turns = [find_voice(head, name) for name in names]
    heard: dict[str, Voice] = {}
    asked = []
    for i, row in enumerate(rows):
        voice = by_turns[i % len(names)] if names else None
        if row.recording is not None:
            speaker = row.recording.speaker
            other = _other_recording(row, rows) if speaker not in names else None
            if speaker in names:
                voice = find_voice(head, speaker)
            elif other is not None:
                if other.id not in heard:
                    heard[other.id] = _hear(other, talker)
                voice = heard[other.id]
        asked.append(replace(row, voice=voice))
    return asked


def _other_recording(row: HeldOut, rows: Sequence[HeldOut]) -> Utterance | None:
    """A recording of the same speaker that shows the voice, and is not of this answer."""
    for other in rows:
        found = other.recording
        if (
            found is not None and row.recording is not None and found.id != row.recording.id
            and found.speaker == row.recording.speaker and found.duration_s >= MIN_VOICE_S
        ):  # fmt: skip
            return found
    return None


def _hear(recording: Utterance, talker: Talker) -> Voice:
    mimi = talker.mimi
    samples_N = read_utterance_audio(recording, mimi.sample_rate_hz)
    [codes_RK] = mimi.encode([samples_N[: round(MAX_VOICE_S * mimi.sample_rate_hz)]])
    return Voice(recording.speaker, talker.head.voice_encoder.mean([codes_RK]))


def median_pitch_hz(samples_N: np.ndarray, sample_rate_hz: int) -> float | None:
    """Median over the voiced frames, by pYIN; None if there is none.

    Source: M. Mauch and S. Dixon, "pYIN", ICASSP 2014, as in librosa.
    """
    heard_N = resample(samples_N, sample_rate_hz, PITCH_RATE_HZ)
    pitch_T, is_voiced_T, _ = librosa.pyin(
        heard_N, fmin=LOWEST_PITCH_HZ, fmax=HIGHEST_PITCH_HZ, sr=PITCH_RATE_HZ, resolution=0.5,
    )  # fmt: skip
    return float(np.median(pitch_T[is_voiced_T])) if is_voiced_T.any() else None


def measure_voices(rows: Sequence[SpokenRow]) -> dict[str, VoiceMetrics]:
    """Metrics of every voice that answers were spoken in, by its name; empty for a head of one
    voice."""
    pitches: dict[str, list[float]] = {}
    for row in rows:
        if row.speaker is not None and row.pitch_hz_recording is not None:
            pitches.setdefault(row.speaker, []).append(row.pitch_hz_recording)
    expected_hz = {speaker: median(found) for speaker, found in pitches.items()}
    names = sorted({row.voice for row in rows if row.voice is not None})
    return {
        name: _measure([row for row in rows if row.voice == name], name, expected_hz)
        for name in names
    }


def _measure(rows: Sequence[SpokenRow], name: str, expected_hz: dict[str, float]) -> VoiceMetrics:
    spoken, mimi = [], []
    if name in expected_hz:
        spoken = [_is_near(row.pitch_hz, expected_hz[name]) for row in rows]
        mimi = [
            _is_near(row.pitch_hz_mimi, expected_hz[name])
            for row in rows if row.speaker == name and row.audio_through_mimi is not None
        ]  # fmt: skip
    return VoiceMetrics(
        num_answers=len(rows),
        rates=quote_rates([row.text for row in rows], [row.heard for row in rows]),
        in_pitch=sum(spoken) / len(spoken) if spoken else None,
        in_pitch_mimi=sum(mimi) / len(mimi) if mimi else None,
    )


def _is_near(found_hz: float | None, expected_hz: float) -> bool:
    """Speech without any pitch is in no voice."""
    return found_hz is not None and abs(found_hz / expected_hz - 1) <= PITCH_TOLERANCE
