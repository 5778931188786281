"""Text to speech with espeak-ng, in this process: the speech that the demo's models hear.

    speech = Synthesizer().speak("Me din de Kofi.", "hi+m3", sample_rate_hz=24_000)

A formant synthesiser with an Indian voice that is given every phoneme (`phonemes.py`):
intelligible, but without tone, and not like a Twi speaker. Results on it do not predict how a model
performs on people.

espeak-ng (GPL-3) is a separate program: the `espeakng-loader` wheel or the system's library. Its
state belongs to the process (`espeak.py`): all `Synthesizer` objects share it, and only one thread
at a time may speak.
"""

# N samples

from dataclasses import dataclass

import numpy as np
import soxr

from data_manifests.pronunciation import Clause
from demo.voice.espeak import IPA_OF, PITCH, PITCH_RANGE, RATE, start_espeak
from demo.voice.phonemes import phonemize
from demo.voice.voice_variants import FLAT_PITCH_HZ, MEASURED_PITCH_HZ

EDGE_S = 0.05
"""Seconds of silence before and after the speech."""
AUDIBLE = 0.01
"""Share of the peak below which either end counts as silence."""
PEAK = 0.5


class PhonemesDroppedError(RuntimeError):
    """espeak-ng did not speak the phonemes it was given."""


@dataclass(frozen=True)
class PhonemeEvent:
    """A sound and when it starts: `phoneme` in IPA without stress marks, a value of
    `espeak.IPA_OF`, or "" for a pause."""

    phoneme: str
    start_s: float


@dataclass(frozen=True)
class SynthesizedSpeech:
    """Speech and its alignment.

    Args:
        samples_N: float32, peak 0.5, `EDGE_S` of silence at both ends.
        sample_rate_hz: sampling rate of the samples.
        phonemes: in order of time, the first at 0; each lasts until the next.
    """

    samples_N: np.ndarray
    sample_rate_hz: int
    phonemes: tuple[PhonemeEvent, ...]


class Synthesizer:
    """espeak-ng's voice `hi` and its variants, given every phoneme."""

    def __init__(self) -> None:
        """Find and start espeak-ng, unless this process has done so before.

        Raises:
            InputError: espeak-ng is not installed.
        """
        self._espeak = start_espeak()

    def speak(
        self,
        text: str,
        voice: str,
        *,
        sample_rate_hz: int,
        rate_wpm: int = 180,
        pitch: int = 50,
        pitch_range: int = 50,
        warp: float = 1.0,
    ) -> SynthesizedSpeech:
        """Read a text aloud.

        The same calls in the same order give the same samples in every process. A single call does
        not: espeak-ng carries over a voice's flutter, and the sign of its period, from what it
        spoke before.

        Args:
            text: in Twi, or in Ewe where that is the language in use; numbers written as words.
            voice: `hi`, or `hi+` and a variant, espeak-ng's own or of `voice_variants.VARIANTS`.
            sample_rate_hz: sampling rate of the result.
            rate_wpm: speed, 80 to 450 words per minute.
            pitch: 0 to 100; 50 is the voice's own.
            pitch_range: 0 to 100; 50 is the voice's own.
            warp: scales formants, pitch and tempo together, like a tape played faster.

        Raises:
            ValueError: a character that cannot be read, an unknown voice, a rate or a pitch out
                of range.
            PhonemesDroppedError: a word did not come out as asked for; it is named.
        """
        clauses = phonemize(text)
        for name, value, low, high in (
            ("rate_wpm", rate_wpm, 80, 450),
            ("pitch", pitch, 0, 100),
            ("pitch_range", pitch_range, 0, 100),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} {value}: must be {low} to {high}")
        self._espeak.set_voice(voice)
        self._espeak.set_parameter(RATE, rate_wpm)
        self._espeak.set_parameter(PITCH, pitch)
        self._espeak.set_parameter(PITCH_RANGE, pitch_range)
        raw_N, events = self._espeak.synthesize(to_espeak_input(clauses))
        events = check_echo(clauses, events)
        speed = warp
        if voice in FLAT_PITCH_HZ:
            speed *= FLAT_PITCH_HZ[voice] / MEASURED_PITCH_HZ[voice]
        raw_rate_hz = self._espeak.sample_rate_hz * speed
        samples_N = soxr.resample(raw_N.astype(np.float32), raw_rate_hz, sample_rate_hz)
        timed = [PhonemeEvent(phoneme, at / raw_rate_hz) for at, phoneme in events]
        return _trim(samples_N, sample_rate_hz, timed)


def to_espeak_input(clauses: list[Clause]) -> str:
    """Phonemes in espeak-ng's `[[...]]`. The bars separate neighbours: without them, a and I would
    become the diphthong aI."""
    spoken = []
    for clause in clauses:
        words = " ".join(f"[[{'|'.join(word)}]]" for word in clause.words)
        spoken.append(words + (clause.punctuation or "."))
    return " ".join(spoken)


def check_echo(clauses: list[Clause], events: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Compare the spoken phonemes with the requested ones; espeak-ng drops an unknown phoneme and
    the rest of its word without a message.

    Returns:
        The events without the only thing that voice `hi` adds: a glide, reported as "", between i
        or ɪ and a vowel; its time is added to the i. Pauses stay.

    Raises:
        PhonemesDroppedError: anything else differs.
    """
    wanted = [
        (IPA_OF[phoneme], spelling, place)
        for place, clause in enumerate(clauses)
        for spelling, word in zip(clause.spellings, clause.words, strict=True)
        for phoneme in word
    ]
    kept: list[tuple[int, str]] = []
    num_said = 0
    for at, phoneme in events:
        if phoneme:
            if num_said == len(wanted) or wanted[num_said][0] != phoneme:
                break
            num_said += 1
        elif 0 < num_said < len(wanted) and wanted[num_said - 1][2] == wanted[num_said][2]:
            continue
        if phoneme or not kept or kept[-1][1]:
            kept.append((at, phoneme))
    else:
        if num_said == len(wanted):
            return kept
    said = " ".join(phoneme for _, phoneme in events if phoneme)
    word = wanted[min(num_said, len(wanted) - 1)][1]
    raise PhonemesDroppedError(f"espeak-ng did not say {word!r} as asked for; it said: {said}")


def _trim(
    samples_N: np.ndarray, sample_rate_hz: int, events: list[PhonemeEvent]
) -> SynthesizedSpeech:
    """Scale to `PEAK`; leave exactly `EDGE_S` before the first audible sample and after the last;
    shift the events accordingly."""
    loudness_N = np.abs(samples_N)
    peak = loudness_N.max()
    audible = np.flatnonzero(loudness_N > AUDIBLE * peak)
    num_edge = round(EDGE_S * sample_rate_hz)
    first, last = int(audible[0]), int(audible[-1]) + 1
    padded_N = np.pad(samples_N * (PEAK / peak), num_edge)
    trimmed_N = np.ascontiguousarray(padded_N[first : last + 2 * num_edge], dtype=np.float32)
    shift_s = (num_edge - first) / sample_rate_hz
    moved = [PhonemeEvent(e.phoneme, max(0.0, e.start_s + shift_s)) for e in events]
    duration_s = len(trimmed_N) / sample_rate_hz
    moved = [event for event in moved if event.start_s < duration_s]
    if moved[0].start_s > 0:
        moved.insert(0, PhonemeEvent("", 0.0))
    return SynthesizedSpeech(trimmed_N, sample_rate_hz, tuple(moved))
