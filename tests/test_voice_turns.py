"""When a turn begins, pauses and ends."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commands.device import use_threads
from data_manifests.audio import read_audio
from voice_chat.turn_taking import (
    WINDOW_S,
    WINDOW_SAMPLES,
    TurnDetector,
    TurnSettings,
    VoiceDetector,
)

SETTINGS = TurnSettings(min_speech_s=0.2, early_pause_s=0.2, pause_s=0.7, max_turn_s=5.0)


def events_of(*parts):
    """(probability, seconds) after another -> what the speaker did: (kind, time)."""
    detector = TurnDetector(SETTINGS)
    steps = [probability for probability, s in parts for _ in range(round(s / WINDOW_S))]
    return [(e.kind, e.time_s) for e in map(detector.step, steps) if e]


def test_a_turn_with_a_pause_in_it():
    found = events_of((0, 1.0), (1, 1.0), (0, 0.4), (1, 1.0), (0, 2.0))
    assert [kind for kind, _ in found] == ["began", "paused", "resumed", "paused", "ended"]
    for (_, time_s), expected_s in zip(found, (1.0, 2.0, 2.4, 3.4, 3.4), strict=True):
        assert time_s == pytest.approx(expected_s, abs=2 * WINDOW_S)


def test_what_is_too_short_is_no_turn():
    assert events_of((1, 0.15), (0, 1.0), (1, 0.15), (0, 1.0)) == []
    # A word has gaps.
    kind, _ = events_of((1, 0.15), (0, 0.06), (1, 0.15), (0, 1.0))[0]
    assert kind == "began"


def test_a_probability_between_begins_nothing_but_goes_on():
    assert events_of((0.4, 3.0)) == []
    assert [kind for kind, _ in events_of((0.6, 1.0), (0.4, 3.0))] == ["began"]


def test_an_endless_turn_is_ended():
    found = events_of((1, 12.0))
    assert [kind for kind, _ in found] == ["began", "ended", "began", "ended", "began"]


FOLLOWS = {
    None: {"began"}, "began": {"paused", "ended"}, "paused": {"resumed", "ended"},
    "resumed": {"paused", "ended"}, "ended": {"began"},
}  # fmt: skip


@given(st.lists(st.sampled_from([0.0, 0.4, 0.9]).flatmap(
    lambda p: st.integers(1, 40).map(lambda n: [p] * n)), max_size=20))  # fmt: skip
def test_events_follow_one_another_in_order(runs):
    detector, last, last_time_s = TurnDetector(SETTINGS), None, 0.0
    for count, probability in enumerate(p for run in runs for p in run):
        event = detector.step(probability)
        if event:
            assert event.kind in FOLLOWS[last]
            assert last_time_s <= event.time_s <= (count + 1) * WINDOW_S
            last, last_time_s = event.kind, event.time_s


# Not importorskip: its import sets the number of threads for all tests.
@pytest.mark.skipif(find_spec("silero_vad") is None, reason="silero-vad is not installed")
def test_silero_hears_speech_in_any_pieces(corpus):
    speech = read_audio(corpus / "audio" / "train_question_0000.wav", 16_000)
    sound = np.concatenate([np.zeros(16_000), speech, np.zeros(16_000)]).astype(np.float32)
    with use_threads(3):
        whole = VoiceDetector().push(sound)
        assert torch.get_num_threads() == 3
    assert len(whole) == len(sound) // WINDOW_SAMPLES
    voice = VoiceDetector()
    pieces = [p for piece in np.array_split(sound, 37) for p in voice.push(piece)]
    assert pieces == pytest.approx(whole, abs=1e-6)
    is_speech = np.array(whole) > 0.5
    assert not is_speech[:28].any() and is_speech[33:50].any() and not is_speech[-20:].any()
