"""Voices, rates, pitches and noise of the demo's recordings, for training and held out."""

# N samples

from dataclasses import dataclass
from typing import Literal

import numpy as np

from demo.voice.synthesizer import Synthesizer

TRAINING_VOICES = (
    "hi", "hi+m1", "hi+m2", "hi+m3", "hi+m4", "hi+m6", "hi+m7", "hi+f1", "hi+f3", "hi+f4",
    "hi+tall", "hi+bass", "hi+bright", "hi+alto", "hi+girl", "hi+airy",
)  # fmt: skip
HELD_OUT_VOICES = ("hi+m5", "hi+f2", "hi+uncle", "hi+aunt")
MONOTONE_VOICES = ("hi+flat100", "hi+flat200")
"""Voices of the demo's answers: the tiny Mimi does not preserve intonation."""

# Half-open ranges. Held-out takes lie outside the training ranges, on either side.
TRAINING_RATES_WPM = ((165, 226),)
HELD_OUT_RATES_WPM = ((150, 165), (226, 241))
TRAINING_PITCHES = ((35, 66),)
HELD_OUT_PITCHES = ((28, 35), (66, 73))
PITCH_RANGES = (30, 71)
WARPS = (0.95, 1.05)
GAINS_DB = (-12.0, 3.0)
TRAINING_SNR_DB = (18.0, 40.0)
HELD_OUT_SNR_DB = (14.0, 18.0)
NOISY_SHARE = {False: 0.8, True: 0.5}
"""Share of noisy takes, in training (False) and held out (True)."""
# Most silence before and after the speech, in seconds. A microphone that stays on brings some; the
# answering voice, which is to be learned, has little.
SILENCE_S = (0.3, 0.3)
MONOTONE_SILENCE_S = (0.1, 0.15)
LEAST_SILENCE_S = (0.0, 0.05)


@dataclass(frozen=True)
class SpeakingStyle:
    """How one sentence is spoken and recorded.

    Attributes:
        voice: a voice of `Synthesizer.speak`.
        rate_wpm: words per minute.
        pitch: 0 to 100; 50 is the voice's own.
        pitch_range: 0 to 100.
        warp: scales formants, pitch and tempo together.
        gain_db: loudness relative to a peak of 0.5.
        noise_snr_db: signal-to-noise ratio; None without noise.
        noise_color: spectrum of the noise.
        most_silence_s: most silence before and after the speech.
    """

    voice: str
    rate_wpm: int
    pitch: int
    pitch_range: int
    warp: float
    gain_db: float
    noise_snr_db: float | None
    noise_color: Literal["white", "pink"]
    most_silence_s: tuple[float, float]


def draw_style(generator: np.random.Generator, *, held_out: bool) -> SpeakingStyle:
    """A random take: a training voice, or a held-out voice, rate, pitch and noise level."""
    snr_db = generator.uniform(*(HELD_OUT_SNR_DB if held_out else TRAINING_SNR_DB))
    is_noisy = generator.random() < NOISY_SHARE[held_out]
    return SpeakingStyle(
        voice=str(generator.choice(HELD_OUT_VOICES if held_out else TRAINING_VOICES)),
        rate_wpm=_integer(generator, HELD_OUT_RATES_WPM if held_out else TRAINING_RATES_WPM),
        pitch=_integer(generator, HELD_OUT_PITCHES if held_out else TRAINING_PITCHES),
        pitch_range=_integer(generator, (PITCH_RANGES,)),
        warp=float(generator.uniform(*WARPS)),
        gain_db=float(generator.uniform(*GAINS_DB)),
        noise_snr_db=float(snr_db) if is_noisy else None,
        noise_color="pink" if generator.random() < 0.5 else "white",
        most_silence_s=SILENCE_S,
    )


def monotone_style(generator: np.random.Generator, voice: str) -> SpeakingStyle:
    """A random take by one of `MONOTONE_VOICES`: clean, at a moderate rate, its pitch exact."""
    rate_wpm = int(generator.integers(135, 166))
    return SpeakingStyle(voice, rate_wpm, 50, 50, 1.0, 0.0, None, "white", MONOTONE_SILENCE_S)


def record(
    synthesizer: Synthesizer,
    text: str,
    take: SpeakingStyle,
    *,
    sample_rate_hz: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Speak a sentence and record it.

    Args:
        generator: draws the silence around the speech, and the noise.

    Returns:
        float32 `[N]` in [-1, 1].
    """
    speech = synthesizer.speak(
        text, take.voice, sample_rate_hz=sample_rate_hz, rate_wpm=take.rate_wpm, pitch=take.pitch,
        pitch_range=take.pitch_range, warp=take.warp,
    )  # fmt: skip
    before, after = generator.uniform(LEAST_SILENCE_S, take.most_silence_s)
    quiet = round(before * sample_rate_hz), round(after * sample_rate_hz)
    samples_N = np.pad(speech.samples_N, quiet)
    if take.noise_snr_db is not None:
        speech_power = np.mean(speech.samples_N**2)
        noise_N = _noise(len(samples_N), take.noise_color, generator)
        samples_N = samples_N + noise_N * np.sqrt(speech_power / 10 ** (take.noise_snr_db / 10))
    return np.clip(samples_N * 10 ** (take.gain_db / 20), -1.0, 1.0).astype(np.float32)


def _integer(generator: np.random.Generator, ranges: tuple[tuple[int, int], ...]) -> int:
    low, high = ranges[int(generator.integers(len(ranges)))]
    return int(generator.integers(low, high))


def _noise(
    num_samples: int, color: Literal["white", "pink"], generator: np.random.Generator
) -> np.ndarray:
    """Noise of unit power; pink noise falls by 3 dB per octave."""
    noise_N = generator.standard_normal(num_samples)
    if color == "pink":
        spectrum = np.fft.rfft(noise_N)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        noise_N = np.fft.irfft(spectrum, num_samples)
    return noise_N / noise_N.std()
