"""Recordings of any length, block by block, are what they are when read at once."""

import sys

import numpy as np
import pytest
import soundfile

from data_manifests.audio import decode_audio
from data_manifests.audio_defects import AudioDefect, CutShort
from data_manifests.long_audio import open_long_audio
from data_manifests.phone_audio import MissingPyAV

RATE_HZ = 8000


def tone(seconds):
    return 0.3 * np.sin(np.arange(int(RATE_HZ * seconds)) / 9).astype(np.float32)


def read_blocks(path):
    with open_long_audio(path) as recording:
        return np.concatenate(list(recording.blocks))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_blocks_are_the_recording(tmp_path, name):
    soundfile.write(tmp_path / name, np.stack([tone(2.5), tone(2.5) / 3], axis=1), RATE_HZ)
    whole = decode_audio(tmp_path / name)
    assert np.array_equal(read_blocks(tmp_path / name), whole.samples)
    with open_long_audio(tmp_path / name) as recording:
        assert recording.rate_hz == whole.sample_rate_hz
        assert recording.duration_s == pytest.approx(whole.duration_s, abs=0.2)


def test_what_a_phone_records(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    path = tmp_path / "talk.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        pcm = (tone(3) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        for one in (frame, None):
            container.mux(stream.encode(one))
    samples_N = read_blocks(path)
    assert len(samples_N) / RATE_HZ == pytest.approx(3, abs=0.3) and abs(samples_N).max() > 0.2
    assert np.array_equal(samples_N, decode_audio(path).samples)
    (tmp_path / "bad.m4a").write_bytes(path.read_bytes()[:40])
    with pytest.raises(AudioDefect, match=r"bad.m4a: not readable as audio"):
        read_blocks(tmp_path / "bad.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPyAV, match=r"\[phone\]"):
        read_blocks(path)


def test_damage_is_found_where_it_is(tmp_path):
    samples = tone(4)
    samples[RATE_HZ * 3 + 1] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE_HZ, subtype="FLOAT")
    with pytest.raises(AudioDefect, match=r"nan.wav: holds NaN .* after 3\.0 s"):
        read_blocks(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "cut.wav", tone(4), RATE_HZ)
    with (tmp_path / "cut.wav").open("r+b") as file:
        file.truncate(RATE_HZ * 4)
    with pytest.raises(CutShort):
        read_blocks(tmp_path / "cut.wav")
