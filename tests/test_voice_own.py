"""Our own voice: how long it is played, and its echo taken out of what the microphone hears."""

from importlib.util import find_spec

import numpy as np
import pytest
import soxr

from data_manifests.audio import read_audio
from voice_chat.echo_level import EchoLevel
from voice_chat.own_voice import EchoCanceller, OwnVoice

pytestmark = pytest.mark.skipif(find_spec("livekit") is None, reason="livekit is not installed")
RATE_HZ = 16_000


class Clock:
    """Seconds of sound that were heard."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_what_is_played_lasts_as_long_as_its_sound_and_its_pauses():
    clock = Clock()
    voice = OwnVoice(24_000, clock)
    assert not voice.is_heard
    voice.say(np.zeros(12_000, np.float32))
    voice.say(np.zeros(12_000, np.float32))
    clock.seconds = 0.75
    assert voice.is_heard
    voice.hold()
    clock.seconds = 5.0
    voice.say(np.zeros(2_400, np.float32))
    assert voice.is_heard and voice.is_held
    voice.go_on()
    for seconds, is_heard in ((5.3, True), (5.4, False)):
        clock.seconds = seconds
        assert voice.is_heard == is_heard
    voice.say(np.zeros(24_000, np.float32))
    voice.stop()
    assert not voice.is_heard and not voice.is_held


@pytest.mark.parametrize("size", [512, 160, 7])
def test_what_others_say_passes_unchanged_where_nothing_is_played(size):
    voice = OwnVoice(24_000, Clock())
    sound = np.random.default_rng(0).standard_normal(5_000).astype(np.float32)
    heard = [voice.take_echo_out(sound[i : i + size]) for i in range(0, len(sound), size)]
    found = np.concatenate(heard)
    assert len(sound) - len(found) < 160
    np.testing.assert_array_equal(found, sound[: len(found)])


def test_who_speaks_after_the_microphone_was_off_is_heard_at_once():
    clock = Clock()
    voice = OwnVoice(24_000, clock)
    voice.say(np.random.default_rng(0).standard_normal(48_000).astype(np.float32))
    voice.take_echo_out(np.zeros(1_600, np.float32))
    assert voice.is_beginning
    clock.seconds = 10.0  # all has been played
    sound = np.random.default_rng(1).standard_normal(1_600).astype(np.float32)
    np.testing.assert_array_equal(voice.take_echo_out(sound), sound)
    assert not voice.is_beginning


@pytest.fixture(scope="module")
def speech(corpus):
    """Six seconds of somebody speaking, at 24 kHz."""
    paths = sorted((corpus / "audio").glob("*.wav"))[:3]
    sound = np.concatenate([read_audio(path, 24_000) for path in paths])
    return np.tile(sound, 10)[: 6 * 24_000].astype(np.float32)


def test_the_canceller_is_told_of_every_sample_when_it_is_played(speech, monkeypatch):
    told = []
    monkeypatch.setattr(
        EchoCanceller, "take_out", lambda self, played, heard: told.append(played) or heard
    )
    clock = Clock()
    voice = OwnVoice(24_000, clock)
    chunks = iter(speech[24_000:110_400].reshape(-1, 1_920))  # 80 ms: 2.5 windows of the microphone
    waiting, played = np.zeros(0, np.float32), []
    # As they come, one window late, and after nothing was left to be played.
    arrivals = {0, 2, 5, 7, 10, 13, 15, 19, 20, 22, 27, 30, 40, 42}
    for window in range(50):
        if window in arrivals:
            chunk = next(chunks)
            waiting = np.concatenate([waiting, chunk])
            voice.say(chunk)
        if window == 8:
            voice.hold()
        if window == 16:
            voice.go_on()
        piece = waiting[: 0 if voice.is_held else 768]
        waiting = waiting[len(piece) :]
        played.append(np.pad(piece, (0, 768 - len(piece))))
        clock.seconds += 512 / RATE_HZ
        voice.take_echo_out(np.zeros(512, np.float32))
        if window == 41:  # interrupted
            voice.stop()
            waiting = waiting[:0]
    expected = soxr.resample(np.concatenate(played), 24_000, RATE_HZ)
    found = np.concatenate(told)
    error = found - expected[: len(found)]
    assert len(found) > 49 * 512
    assert loudness_db(error) < loudness_db(expected) - 30


def converse(speech, echo_s, echo_level, other):
    """What is left where an answer is played and comes back so late and loud, and another talks."""
    clock = Clock()
    voice = OwnVoice(24_000, clock)
    voice.say(speech)
    played = soxr.resample(speech, 24_000, RATE_HZ)
    late = round(echo_s * RATE_HZ)
    heard = other + echo_level * np.concatenate([np.zeros(late), played])[: len(other)]
    pieces = []
    for start in range(0, len(heard), 512):
        clock.seconds += 512 / RATE_HZ
        pieces.append(voice.take_echo_out(heard[start : start + 512].astype(np.float32)))
    return np.concatenate(pieces)


def loudness_db(sound):
    return 10 * np.log10(np.mean(np.square(sound)))


@pytest.mark.parametrize("echo_s", [0.04, 0.2])
@pytest.mark.parametrize("echo_level", [1.0, 0.1])
def test_an_echo_is_taken_out(speech, echo_s, echo_level):
    noise = 1e-4 * np.random.default_rng(0).standard_normal(6 * RATE_HZ)
    left = converse(speech, echo_s, echo_level, noise)
    second = slice(RATE_HZ, 5 * RATE_HZ)  # it takes a moment to know the room
    played = echo_level * soxr.resample(speech, 24_000, RATE_HZ)
    assert loudness_db(left[second]) < loudness_db(played[second]) - 25


def test_who_speaks_at_the_same_time_is_heard(speech, corpus):
    other = read_audio(sorted((corpus / "audio").glob("*.wav"))[5], RATE_HZ)
    begin = 3 * RATE_HZ
    sound = 1e-4 * np.random.default_rng(0).standard_normal(6 * RATE_HZ)
    sound[begin : begin + len(other)] += other[: len(sound) - begin]
    left = converse(speech, 0.1, 0.1, sound)
    end = min(begin + len(other), len(left))
    assert loudness_db(left[begin:end]) > loudness_db(sound[begin:end]) - 6


def test_what_is_louder_than_the_echo_can_be_is_heard_as_it_is(speech, corpus):
    word = read_audio(sorted((corpus / "audio").glob("*.wav"))[5], RATE_HZ)[: RATE_HZ // 2]
    begin, end = 3 * RATE_HZ, 3 * RATE_HZ + len(word)
    other = 1e-4 * np.random.default_rng(0).standard_normal(6 * RATE_HZ)
    other[begin:end] += 0.9 * word / np.abs(word).max()
    left = converse(speech, 0.1, 0.05, other)
    late = round(0.1 * RATE_HZ)
    played = np.concatenate([np.zeros(late), soxr.resample(speech, 24_000, RATE_HZ)])[: len(other)]
    heard = (other + 0.05 * played).astype(np.float32)
    loud = [i for i in range(begin, end - 160, 160) if loudness_db(heard[i : i + 160]) > -25]
    assert len(loud) > 10
    for i in loud:
        np.testing.assert_array_equal(left[i : i + 160], heard[i : i + 160])
    # The echo before and after it is taken out all the same.
    assert loudness_db(left[2 * RATE_HZ : begin - 2_000]) < -60
    assert loudness_db(left[end + RATE_HZ // 2 :]) < -60


def test_an_echo_that_becomes_louder_is_learned_slowly():
    level = EchoLevel()
    generator = np.random.default_rng(0)
    silence = np.zeros(160)

    def hear(scale, left=silence, *, seconds, is_alone=False):
        """The share of frames that are louder than the echo can be."""
        frames = generator.standard_normal((round(100 * seconds), 160))
        found = [level.is_louder(frame, scale * frame, left, is_alone=is_alone) for frame in frames]
        return np.mean(found)

    assert hear(0.1, seconds=0.6, is_alone=True) == 0
    assert hear(1.0, seconds=0.3) == 0  # not before an echo is known for a second
    assert hear(0.1, seconds=3) == 0
    assert hear(0.15, seconds=3) == 0  # 3.5 dB
    assert hear(1.0, seconds=0.3) > 0.9  # a word, which the canceller takes for echo
    assert hear(1.0, seconds=6) > 0.2
    assert hear(1.0, seconds=1) == 0  # it was an echo: the loudspeaker has been turned up
