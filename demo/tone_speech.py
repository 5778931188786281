"""Stand-in for speech: every letter is a fixed sound, every voice its own pitch and vocal tract.

Not speech, and nothing measured on it says anything about Twi. It carries its text exactly, so that
a reader can learn it and every stage can be exercised without a synthesiser.
"""

# N samples

from dataclasses import dataclass

import numpy as np

from data_manifests.twi_text import normalize_for_scoring

LETTER_S = 0.075
PAUSE_S = 0.09
VOWEL_FORMANTS_HZ = {
    "a": (750, 1250), "e": (420, 2050), "ɛ": (580, 1800), "i": (300, 2300), "o": (430, 850),
    "ɔ": (600, 950), "u": (320, 700),
}  # fmt: skip
CONSONANTS = "bcdfghjklmnpqrstvwxyz"
VOICED = "bdgjlmnrvwyz"


@dataclass(frozen=True)
class Voice:
    """A speaker: pitch in hertz, vocal tract (scales all formants), seconds per letter relative to
    1."""

    name: str
    pitch_hz: float
    tract: float
    pace: float


VOICES = (
    Voice("low", 110, 1.0, 1.0),
    Voice("high", 200, 1.12, 0.95),
    Voice("middle", 150, 1.05, 1.1),
    Voice("child", 260, 1.2, 1.0),
)


def synthesise(text: str, voice: Voice, *, sample_rate_hz: int, seed: int) -> np.ndarray:
    """Turn Twi text into its sounds.

    Args:
        text: normalised for scoring here; letters without a sound are left out.
        voice: who speaks.
        sample_rate_hz: of the result.
        seed: of noise, so that no two recordings are equal.

    Returns:
        float32 `[N]`, peak about 0.6, with a tenth of a second of near silence around it.
    """
    generator = np.random.default_rng(seed)
    parts = [np.zeros(int(0.1 * sample_rate_hz))]
    for letter in normalize_for_scoring(text):
        if letter == " ":
            parts.append(np.zeros(int(PAUSE_S * voice.pace * sample_rate_hz)))
        else:
            parts.append(_sound(letter, voice, sample_rate_hz, generator))
    parts.append(np.zeros(int(0.1 * sample_rate_hz)))
    samples = np.concatenate(parts)
    samples += 0.003 * generator.standard_normal(len(samples))
    return (0.6 * samples / np.abs(samples).max()).astype(np.float32)


def _sound(
    letter: str, voice: Voice, sample_rate_hz: int, generator: np.random.Generator
) -> np.ndarray:
    num_samples = int(LETTER_S * voice.pace * sample_rate_hz)
    time_s = np.arange(num_samples) / sample_rate_hz
    envelope = np.sin(np.pi * np.arange(num_samples) / num_samples) ** 0.5
    if letter in VOWEL_FORMANTS_HZ:
        formants_hz, voiced = VOWEL_FORMANTS_HZ[letter], True
    elif letter in CONSONANTS:
        place = CONSONANTS.index(letter)
        formants_hz, voiced = (250 + 37 * place, 1500 + 260 * place), letter in VOICED
    else:
        return np.zeros(0)
    sound = np.zeros(num_samples)
    for formant_hz in formants_hz:
        centre_hz = formant_hz * voice.tract
        if voiced:
            harmonic = max(1, round(centre_hz / voice.pitch_hz))
            for h in (harmonic - 1, harmonic, harmonic + 1):
                frequency_hz = h * voice.pitch_hz
                if 0 < frequency_hz < 7600:
                    weight = 1.0 if h == harmonic else 0.4
                    sound += weight * np.sin(2 * np.pi * frequency_hz * time_s)
        elif centre_hz < 7600:
            hiss = 1 + 0.5 * generator.standard_normal(num_samples)
            sound += 0.5 * hiss * np.sin(2 * np.pi * centre_hz * time_s)
    return envelope * sound
