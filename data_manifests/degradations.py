"""What noise, rooms and telephones do to speech, made reproducibly: nothing recorded is needed.

    condition = read_condition("babble-10+telephone")
    degraded_M = degrade(samples_N, condition, generator, talkers)

| condition | what is done |
|---|---|
| clean | nothing |
| babble-DB | other recordings at once, `NUM_TALKERS` of them, DB decibels below the speech |
| street-DB | the rumble of passing vehicles, likewise |
| white-DB | white noise, likewise |
| reverberation-S | a room in which sound takes S seconds to fall by 60 dB |
| telephone | 300 to 3400 Hz, 8 kHz, G.711's mu-law |
| clipping-DB | recorded DB decibels too loud, and cut off |

Conditions joined by "+" are applied from left to right.
"""

# N samples of speech, M samples of what becomes of it

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, resample

SAMPLE_RATE_HZ = GEMMA_SAMPLE_RATE_HZ
NUM_TALKERS = 6
TELEPHONE_RATE_HZ = 8_000
TELEPHONE_BAND_HZ = (300, 3_400)
MU = 255.0  # G.711
# Of the level of speech: frames that are this much weaker than the strongest are pauses.
FRAME_S, PAUSE_DB = 0.02, 40.0
# A vehicle comes every so many seconds, on average, takes so long to pass, and is so much louder
# than the traffic further away.
VEHICLES_EVERY_S, PASSING_S, VEHICLE_DB = 3.0, (0.4, 1.5), (3.0, 15.0)
RUMBLE_FROM_HZ = 50.0
# A talker some metres away: as much sound comes from the walls as directly, 2 ms later and more.
DIRECT_TO_REVERBERANT_DB, FIRST_REFLECTION_S = 0.0, 0.002


@dataclass(frozen=True)
class Step:
    """One thing that is done to the speech.

    Attributes:
        kind: a key of `KINDS`.
        amount: decibels or seconds; 0 where the kind has none.
    """

    kind: str
    amount: float = 0.0


@dataclass(frozen=True)
class Condition:
    """What is done to the speech, in order, and its name: "babble-10+telephone"."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class _Kind:
    """A kind of degradation: the unit of its amount, "" if it has none; its range; what does it."""

    unit: str
    between: tuple[float, float]
    apply: Callable[
        [np.ndarray, float, np.random.Generator, Sequence[np.ndarray]], np.ndarray
    ]  # speech, amount, draws, talkers


def read_condition(name: str) -> Condition:
    """Understand the name of a condition.

    Raises:
        InputError: there is no such condition, or its number is missing or out of range.
    """
    return Condition(name, tuple(_read_step(part, name) for part in name.split("+")))


def degrade(
    samples_N: np.ndarray,
    condition: Condition,
    generator: np.random.Generator,
    talkers: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Degrade one recording.

    Noise is added at a signal-to-noise ratio: the power of the speech without its pauses
    (`speech_power`), over the mean power of the noise. The level of the speech is kept, unless it
    would exceed full scale then: all of it is made quieter in that case.

    Args:
        samples_N: float32 in [-1, 1], at `SAMPLE_RATE_HZ`.
        condition: what is done.
        generator: of all that is drawn.
        talkers: recordings of other people, as samples_N; for babble.

    Returns:
        float32 `[M]` in [-1, 1]; reverberation makes it longer.

    Raises:
        InputError: babble, and there are no talkers.
    """
    degraded_M = samples_N.astype(np.float64)
    for step in condition.steps:
        degraded_M = KINDS[step.kind].apply(degraded_M, step.amount, generator, talkers)
    peak = float(np.abs(degraded_M).max(initial=0.0))
    return (degraded_M / max(1.0, peak)).astype(np.float32)


def speech_power(samples_N: np.ndarray) -> float:
    """Mean power of a recording without its pauses: of the frames of 20 ms that are at most 40 dB
    weaker than its strongest one."""
    length = round(FRAME_S * SAMPLE_RATE_HZ)
    padded_N = np.pad(samples_N, (0, -len(samples_N) % length))
    power_F = np.square(padded_N).reshape(-1, length).mean(axis=1)
    is_speech_F = power_F >= power_F.max(initial=0.0) * 10 ** (-PAUSE_DB / 10)
    return float(power_F[is_speech_F].mean()) if is_speech_F.any() else 0.0


def _read_step(part: str, name: str) -> Step:
    kind, _, number = part.partition("-")
    if kind not in KINDS:
        raise InputError(f"condition {name}: {kind!r} is none of {', '.join(KINDS)}")
    known = KINDS[kind]
    if not known.unit:
        if number:
            raise InputError(f"condition {name}: {kind} takes no number")
        return Step(kind)
    low, high = known.between
    is_number = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", number) is not None
    if not is_number or not low <= float(number) <= high:
        raise InputError(
            f"condition {name}: {kind} takes a number of {known.unit} from {low:g} to {high:g}, as "
            f"in {kind}-{high / 2:g}"
        )
    return Step(kind, float(number))


def _nothing(
    speech_N: np.ndarray, _: float, generator: np.random.Generator, talkers: Sequence[np.ndarray]
) -> np.ndarray:
    return speech_N


def _babble(
    speech_N: np.ndarray, db: float, generator: np.random.Generator, talkers: Sequence[np.ndarray]
) -> np.ndarray:
    """Add other recordings, equally loud, each from a random place on, and repeated if short."""
    loud_enough = [talker_N for talker_N in talkers if speech_power(talker_N) > 0]
    if not loud_enough:
        raise InputError("babble needs recordings of other people than the one who speaks")
    noise_N = np.zeros(len(speech_N))
    for number in generator.choice(len(loud_enough), NUM_TALKERS, len(loud_enough) < NUM_TALKERS):
        talker_N = loud_enough[number] / np.sqrt(speech_power(loud_enough[number]))
        start = int(generator.integers(len(talker_N)))
        noise_N += np.resize(np.roll(talker_N, -start), len(speech_N))
    return _add(speech_N, noise_N, db)


def _street(
    speech_N: np.ndarray, db: float, generator: np.random.Generator, talkers: Sequence[np.ndarray]
) -> np.ndarray:
    """Add noise whose power falls by 6 dB an octave, and rises and falls as vehicles pass."""
    time_N = np.arange(len(speech_N)) / SAMPLE_RATE_HZ
    spectrum = np.fft.rfft(generator.standard_normal(len(speech_N)))
    hz = np.fft.rfftfreq(len(speech_N), 1 / SAMPLE_RATE_HZ)
    spectrum *= (hz >= RUMBLE_FROM_HZ) / np.maximum(hz, RUMBLE_FROM_HZ)
    level_db_N = np.zeros(len(speech_N))
    duration_s = len(speech_N) / SAMPLE_RATE_HZ
    for _ in range(1 + generator.poisson(duration_s / VEHICLES_EVERY_S)):
        distance_N = (time_N - generator.uniform(0, duration_s)) / generator.uniform(*PASSING_S)
        level_db_N = np.maximum(level_db_N, generator.uniform(*VEHICLE_DB) - distance_N**2)
    noise_N = np.fft.irfft(spectrum, len(speech_N)) * 10 ** (level_db_N / 20)
    return _add(speech_N, noise_N, db)


def _white(
    speech_N: np.ndarray, db: float, generator: np.random.Generator, talkers: Sequence[np.ndarray]
) -> np.ndarray:
    return _add(speech_N, generator.standard_normal(len(speech_N)), db)


def _reverberation(
    speech_N: np.ndarray, s: float, generator: np.random.Generator, talkers: Sequence[np.ndarray]
) -> np.ndarray:
    """Play it in a room whose reflections are noise that dies away exponentially (Polack, 1988)."""
    time_M = np.arange(round(s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    response_M = generator.standard_normal(len(time_M)) * 10 ** (-3 * time_M / s)
    response_M[time_M < FIRST_REFLECTION_S] = 0.0
    response_M *= 10 ** (-DIRECT_TO_REVERBERANT_DB / 20) / np.sqrt(np.square(response_M).sum())
    response_M[0] = 1.0
    heard_M = fftconvolve(speech_N, response_M)
    louder = speech_power(heard_M) / max(speech_power(speech_N), np.finfo(float).tiny)
    return heard_M / np.sqrt(max(louder, np.finfo(float).tiny))


def _telephone(
    speech_N: np.ndarray, _: float, generator: np.random.Generator, talkers: Sequence[np.ndarray]
) -> np.ndarray:
    """Send it by telephone; it is brought to the line's level before, and back after."""
    narrow = resample(speech_N.astype(np.float32), SAMPLE_RATE_HZ, TELEPHONE_RATE_HZ)
    band = butter(4, TELEPHONE_BAND_HZ, "bandpass", fs=TELEPHONE_RATE_HZ, output="sos")
    narrow = sosfilt(band, narrow)
    peak = max(float(np.abs(narrow).max(initial=0.0)), 1e-9)
    compressed = np.sign(narrow) * np.log1p(MU * np.abs(narrow) / peak) / np.log1p(MU)
    steps = np.round(compressed * 127) / 127
    expanded = peak * np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(MU)) / MU
    wide = resample(expanded.astype(np.float32), TELEPHONE_RATE_HZ, SAMPLE_RATE_HZ)
    wide = np.pad(wide, (0, max(0, len(speech_N) - len(wide))))[: len(speech_N)]
    return wide.astype(np.float64)


def _clipping(
    speech_N: np.ndarray, db: float, generator: np.random.Generator, talkers: Sequence[np.ndarray]
) -> np.ndarray:
    """Cut off what is less than DB decibels below the loudest sample."""
    ceiling = float(np.abs(speech_N).max(initial=0.0)) * 10 ** (-db / 20)
    return np.clip(speech_N, -ceiling, ceiling)


def _add(speech_N: np.ndarray, noise_N: np.ndarray, db: float) -> np.ndarray:
    noise_power = float(np.square(noise_N).mean())
    if not noise_power:
        return speech_N
    wanted = speech_power(speech_N) * 10 ** (-db / 10)
    return np.asarray(speech_N + noise_N * np.sqrt(wanted / noise_power))


NOISES = ("babble", "street", "white")
"""Kinds whose amount is a signal-to-noise ratio, in decibels."""
_SNR_DB = (-10.0, 60.0)
KINDS = {
    "clean": _Kind("", (0, 0), _nothing),
    "babble": _Kind("decibels", _SNR_DB, _babble),
    "street": _Kind("decibels", _SNR_DB, _street),
    "white": _Kind("decibels", _SNR_DB, _white),
    "reverberation": _Kind("seconds", (0.05, 5.0), _reverberation),
    "telephone": _Kind("", (0, 0), _telephone),
    "clipping": _Kind("decibels", (0.0, 60.0), _clipping),
}
