"""Hands free at the terminal: a recording in place of the microphone, and a sound card that is not
there."""

import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile
from head_world import let_gemma_write, models

from commands.errors import InputError
from voice_chat import sound_source, talk
from voice_chat.sound_card import Loudspeaker, Microphone

WRITTEN = "Yoo, me te wo ase."


class PortAudioError(Exception):
    pass


class Stream:
    """In place of sounddevice's streams; a test calls back."""

    def __init__(self, **settings):
        if settings.get("device") == "no such":
            raise PortAudioError("No device matching 'no such'")
        self.settings, self.is_open = settings, False

    def start(self):
        self.is_open = True

    def close(self):
        self.is_open = False


@pytest.fixture
def opened(monkeypatch):
    """Streams that were opened."""
    streams = []

    def open_stream(**settings):
        streams.append(Stream(**settings))
        return streams[-1]

    module = types.SimpleNamespace(
        InputStream=open_stream, OutputStream=open_stream, PortAudioError=PortAudioError
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return streams


def test_a_microphone_gives_every_sample_once(opened):
    with Microphone() as microphone:
        [stream] = opened
        assert stream.is_open and stream.settings["samplerate"] == 16_000
        assert len(microphone.take(0.0)) == 0
        block = np.zeros((512, 1), np.float32)
        for i in range(3):
            block[:] = i  # PortAudio uses one array again and again
            stream.settings["callback"](block, 512, None, None)
        np.testing.assert_array_equal(microphone.take(1.0), np.repeat([0, 1, 2], 512))
    assert not stream.is_open


def test_a_loudspeaker_plays_in_order_and_stops(opened):
    with Loudspeaker(24_000) as loudspeaker:
        [stream] = opened

        def play(count):
            block = np.full((count, 1), np.nan, np.float32)
            stream.settings["callback"](block, count, None, None)
            return block[:, 0].tolist()

        assert play(3) == [0, 0, 0]
        loudspeaker.add(np.array([1, 2], np.float32))
        loudspeaker.add(np.array([3, 4], np.float32))
        assert play(3) == [1, 2, 3]
        loudspeaker.hold()
        assert play(1) == [0]
        loudspeaker.go_on()
        assert play(1) == [4]
        loudspeaker.hold()
        loudspeaker.stop()
        assert play(2) == [0, 0]
        loudspeaker.add(np.array([5], np.float32))
        assert play(1) == [5]


def test_a_missing_sound_card_is_told_in_one_line(opened, monkeypatch):
    with pytest.raises(InputError, match=r"no microphone can be used \(No device matching"):
        Microphone("no such")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match="need sounddevice and PortAudio"):
        Microphone()


@pytest.fixture
def asked(head_world, monkeypatch, tmp_path):
    """Words of the command, with a recorded question that is heard at once."""
    if None in map(find_spec, ("silero_vad", "livekit")):
        pytest.skip("needs silero-vad and livekit")
    let_gemma_write(monkeypatch, WRITTEN)
    monkeypatch.setattr(sound_source.time, "sleep", lambda seconds: None)
    # A second a look.
    monkeypatch.setattr(sound_source.time, "monotonic", iter(range(10**9)).__next__)
    return [*models(head_world), "--out", tmp_path / "out", "--recording"]


def test_a_recording_is_answered_aloud(asked, corpus, tmp_path, capsys):
    recording = corpus / "audio" / "train_question_0000.wav"
    talk.main([str(word) for word in (*asked, recording)])
    written = capsys.readouterr()
    path = tmp_path / "out" / "answer_001.wav"
    assert written.out == f"{WRITTEN}\n{path}\n" and "error" not in written.err
    assert soundfile.info(path).frames % 1920 == 0


def test_silence_is_not_answered(asked, tmp_path, capsys):
    quiet = 1e-3 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(tmp_path / "quiet.wav", quiet, 16_000)
    talk.main([str(word) for word in (*asked, tmp_path / "quiet.wav")])
    assert capsys.readouterr().out == "" and not (tmp_path / "out").exists()
