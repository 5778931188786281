"""The benchmark of many talkers: how answers are timed, and its table."""

import pytest

from benchmarks import realtime_client
from benchmarks.many_talkers import Answer, Expected, Outcome, format_memory, format_outcome, judge
from benchmarks.realtime_client import Told


def test_sound_that_comes_late_is_a_stall(monkeypatch):
    """Three pieces of 80 ms: one at once, one in time, one 50 ms after the second has ended."""
    told = Told()
    for now_s in (10.0, 10.05, 10.21):
        monkeypatch.setattr(realtime_client.time, "monotonic", lambda now_s=now_s: now_s)
        told.take_sound(1920)
    assert told.first_sound_s == 10.0 and told.last_sound_s == 10.21
    assert told.sound_s == pytest.approx(0.24) and told.stalled_s == pytest.approx(0.05)


def test_events_say_when_the_last_word_was_and_what_was_answered():
    told = Told()
    events = [
        {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 1500},
        {"type": "response.output_audio.delta", "delta": "AAAA"},
        {"type": "response.output_audio_transcript.done", "transcript": "Yoo."},
        {"type": "response.done"},
    ]
    for event in events:
        assert not told.ended.is_set()
        told.take(event, 100.0)
    assert told.last_word_s == 101.5 and told.text == "Yoo." and told.ended.is_set()


def test_an_answer_is_compared_with_both_files():
    told = Told(last_word_s=1.0, first_sound_s=1.7, last_sound_s=2.7, sound_s=2.0, text="Yoo.")
    answer = judge(told, Expected(heard="Yoo.", recorded="Aane."))
    assert answer == Answer(pytest.approx(0.7), pytest.approx(2.0), False, True, False)


def test_a_row_of_the_table():
    answers = [Answer(0.7, 3.0, False, True, True), Answer(0.8, 1.0, True, True, False)]
    row = format_outcome(Outcome(4, answers, [600.0, 640.0, 620.0], 0.5))
    assert row.split() == [
        "4", "2", "750", "795", "2.0", "50.0%", "100.0%", "50.0%", "600", "640", "0.50"
    ]  # fmt: skip
    line = format_memory([float(mb) for mb in range(24)])
    assert line.split(": ")[1].split() == [str(mb) for mb in range(1, 24, 2)]
