"""The benchmark of echo: its room, and its tables."""

from importlib.util import find_spec

import numpy as np
import pytest

from benchmarks import echo
from benchmarks.echo import Heard
from voice_chat.updates import Ended, Held, Interrupted, Resumed, Said


def hear(room, seconds):
    return np.concatenate([room.hear() for _ in range(round(seconds / 0.032))])


def loudness_db(sound):
    return 10 * np.log10(np.mean(np.square(sound)))


def test_what_is_said_comes_back_late_and_softer():
    room = echo._Room(-20.0, np.random.default_rng(0))
    quiet = hear(room, 0.32)
    noise = 0.1 * np.random.default_rng(1).standard_normal(24_000).astype(np.float32)
    room.take(Said(noise, ""))
    heard = hear(room, 1.6)
    assert room.began_s == pytest.approx(0.32)
    begin = round(echo.DELAY_S * 16_000)
    assert loudness_db(heard[: begin - 160]) == pytest.approx(loudness_db(quiet), abs=1.0)
    # Half of the noise's power lies above 8 kHz, where a microphone at 16 kHz hears nothing.
    expected_db = loudness_db(noise) - 20 - 1.8
    assert loudness_db(heard[begin + 3_000 : begin + 12_000]) == pytest.approx(expected_db, abs=1.5)


def test_what_is_held_is_played_later_and_what_is_interrupted_never():
    room = echo._Room(0.0, np.random.default_rng(0))
    sound = 0.1 * np.ones(12_000, np.float32)
    room.take(Said(sound, ""))
    room.take(Held())
    assert loudness_db(hear(room, 0.5)) < -70 and room.began_s is None
    room.take(Resumed())
    hear(room, 0.1)
    assert room.began_s is not None
    room.take(Interrupted())
    hear(room, 0.4)
    assert loudness_db(hear(room, 0.3)) < -70


def test_what_comes_late_is_played_when_it_comes():
    room = echo._Room(0.0, np.random.default_rng(0))
    noise = 0.1 * np.random.default_rng(1).standard_normal(1_920).astype(np.float32)  # 80 ms
    room.take(Said(noise, ""))
    hear(room, 0.64)
    room.take(Said(noise, ""))
    heard = hear(room, 0.64)
    begin = round(echo.DELAY_S * 16_000)
    assert loudness_db(heard[: begin - 160]) < -50 and loudness_db(heard[begin:][:1_200]) > -25


def said(seconds):
    return [Said(0.1 * np.ones(round(24_000 * seconds), np.float32), ""), Ended("")]


class Answering:
    """Says so much at once, and takes what it hears for a question if it is told so: after the
    latest word, it says two seconds more."""

    is_answering = False

    def __init__(self, seconds, *, answers_word):
        self._seconds = seconds
        self._later = said(2.0) if answers_word else []
        self._num_heard = 0

    def typed_turn(self, text):
        return text

    def ask(self, question):
        return said(self._seconds)

    def hear(self, samples_N):
        self._num_heard += len(samples_N)
        return []

    def work(self):
        latest_s = echo.WORD_AFTER_S[1] + echo.TOO_LATE_S + 0.1
        if self._num_heard < 16_000 * latest_s:
            return []
        later, self._later = self._later, []
        return later


@pytest.mark.parametrize("answers_word", [False, True])
@pytest.mark.parametrize(("seconds", "was_over"), [(0.5, True), (3.0, False)])
def test_an_answer_that_ends_before_the_word_is_over(monkeypatch, seconds, was_over, answers_word):
    monkeypatch.setattr(echo, "_first_speech_s", lambda word_N: 0.0)
    room = echo._Room(-20.0, np.random.default_rng(0))
    live = Answering(seconds, answers_word=answers_word)
    found = echo._answer(live, room, "", np.ones(1_600, np.float32))
    assert found == Heard(0, False, was_over, None)


def test_rows_of_the_tables():
    found = [
        Heard(0, False, False, None),
        Heard(1, True, False, 0.25),
        Heard(2, False, False, 0.15),
    ]
    assert echo.format_row(found).split() == ["3", "67%", "33%"]
    assert echo.format_reactions(found).split() == ["200,", "250"]
    assert echo.format_reactions(found[:1]).split() == ["-"]


@pytest.mark.skipif(find_spec("silero_vad") is None, reason="silero-vad is not installed")
def test_where_a_word_begins(corpus):
    from data_manifests.audio import read_audio

    word = read_audio(corpus / "audio" / "train_question_0000.wav", 16_000)
    begin = echo._first_speech_s(word)
    later = echo._first_speech_s(np.concatenate([np.zeros(16_000, np.float32), word]))
    assert later - begin == pytest.approx(1.0, abs=0.07)
