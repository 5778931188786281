"""Audio files that lie, or are none: refused in one line, at once, and without the memory that
their headers ask for."""

import errno
import os
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import run

from commands.errors import InputError, WriteError
from data_manifests import audio, check, examinations
from data_manifests.audio import (
    audio_duration_s,
    decode_audio,
    encoded_duration_s,
    write_wav,
)
from data_manifests.audio_defects import AudioDefect, CutShort, MissingAudio
from data_manifests.manifest import read_manifest
from data_manifests.ordered_map import WorkerDied, map_in_order
from tests.attacks.audio import write_recordings
from tests.attacks.audio_files import LIARS, ODD_SAMPLES, as_file, encoded
from tests.attacks.manifests import good_rows
from tests.attacks.mutations import row_text


@pytest.mark.parametrize(
    ("liar", "message"),
    [
        ("flac of 34359738368 samples", "its header says that it lasts 2147484 s; at most 3600"),
        ("flac of 0 samples", "at most 3600"),  # a stream of unknown length
        ("flac of 1 Hz", "its header says 1 Hz, recordings have 4000 to 384000"),
        ("flac of 1048575 Hz", "its header says|not readable"),
        ("opus of 4611686018427387904 samples", "at most 3600"),
        ("ogg of 34359738368 samples", "at most 3600"),
        ("wav of 65535 channels", "channels|not readable"),
        ("wav of 1024 channels", "1024 channels"),
        ("wav of 100 Hz", "its header says 100 Hz"),
        ("wav of 80000 bytes", "cut short, its header promises 2.50 s and 2.00 s are there"),
        ("aiff of 2^31 samples", ""),
    ],
)
def test_headers_are_not_believed(tmp_path, liar, message):
    content = LIARS[liar]()
    (tmp_path / "a.audio").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if message:
        with pytest.raises(AudioDefect, match=message):
            decode_audio(tmp_path / "a.audio")
        with pytest.raises(AudioDefect, match=message):
            encoded_duration_s(content, "a.audio")
    else:  # libsndfile counts for itself
        assert len(decode_audio(tmp_path / "a.audio").samples) == 32_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path):
    (tmp_path / "a.wav").write_bytes(encoded("wav"))
    (tmp_path / "piped.wav").write_bytes(LIARS["wav of 4294967295 bytes"]())
    whole = decode_audio(tmp_path / "a.wav").samples
    np.testing.assert_array_equal(decode_audio(tmp_path / "piped.wav").samples, whole)


@pytest.mark.parametrize("name", ["a NaN", "infinity", "huge", "1e30", "integers as floats"])
def test_samples_that_are_no_levels(tmp_path, name):
    (tmp_path / "a.wav").write_bytes(as_file(ODD_SAMPLES[name], "float.wav"))
    with pytest.raises(AudioDefect, match=r"NaN or infinite|where 1 is full scale"):
        decode_audio(tmp_path / "a.wav")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    for name, message in (
        ("pipe.wav", "a pipe or a device"), ("folder.wav", "Is a directory"),
        ("loop.wav", "symbolic links"), ("/dev/zero", "a pipe or a device"),
        ("a\0b", "No file can have this name"), ("x" * 300, "name too long"),
    ):  # fmt: skip
        with pytest.raises(AudioDefect, match=message):
            audio_duration_s(tmp_path / name)
    with pytest.raises(MissingAudio):
        audio_duration_s(tmp_path / "folder.wav" / "a.wav")


@pytest.mark.parametrize("name", ["a.au", "a.gsm", "a.vox", "a.raw"])
def test_a_name_makes_no_audio(tmp_path, name):
    (tmp_path / name).write_text("This is no audio, whatever its name says. " * 100)
    with pytest.raises(AudioDefect, match="not readable as audio"):
        decode_audio(tmp_path / name)
    (tmp_path / name).write_bytes(encoded("wav"))
    assert len(decode_audio(tmp_path / name).samples) == 32_000


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_blocks_give_what_the_whole_gives(tmp_path, monkeypatch, channels):
    samples = 0.1 * np.random.default_rng(0).standard_normal((20_000, channels))
    soundfile.write(tmp_path / "a.flac", samples, 16_000)
    whole, _ = soundfile.read(tmp_path / "a.flac", dtype="float32", always_2d=True)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 997 * channels)
    np.testing.assert_array_equal(decode_audio(tmp_path / "a.flac").samples, whole.mean(axis=1))
    part = decode_audio(tmp_path / "a.flac", start_s=0.25, duration_s=0.5).samples
    np.testing.assert_array_equal(part, whole[4_000:12_000].mean(axis=1))
    for start_s, duration_s in ((1e300, 1.0), (1e9, 1.0)):
        with pytest.raises(CutShort):
            decode_audio(tmp_path / "a.flac", start_s=start_s, duration_s=duration_s)
    with pytest.raises(AudioDefect, match="at most 3600"):
        decode_audio(tmp_path / "a.flac", duration_s=1e300)


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    read_header = audio._duration_of

    def read_header_and(change):
        def read(*arguments):
            info = read_header(*arguments)
            change()
            return info

        return read

    path.write_bytes(encoded("wav"))
    monkeypatch.setattr(audio, "_duration_of", read_header_and(path.unlink))
    assert len(decode_audio(path).samples) == 32_000  # the file that was opened
    path.write_bytes(encoded("wav"))
    monkeypatch.setattr(audio, "_duration_of", read_header_and(lambda: os.truncate(path, 10_000)))
    with pytest.raises(CutShort):
        decode_audio(path)


def test_a_machines_refusal_is_no_defect_of_a_recording(tmp_path):
    (tmp_path / "a.wav").write_bytes(encoded("wav"))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    num_open = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (num_open + 2, limit[1]))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            decode_audio(tmp_path / "a.wav")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for descriptor in held:
            os.close(descriptor)


def test_a_recording_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def refuse(path, content):
        path.write_text("half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(WriteError, match="cannot write"):
        write_wav(tmp_path / "a.wav", np.zeros(10), 16_000)
    assert not list(tmp_path.iterdir())


def test_a_process_that_dies_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(WorkerDied, match="one of 2 items"):
        list(map_in_order(os._exit, [3, 4], num_workers=1))
    write_recordings(tmp_path)
    rows = [row_text(row) + "\n" for row in good_rows()]
    (tmp_path / "m.jsonl").write_text("".join(rows), encoding="utf-8")
    utterances = list(read_manifest(tmp_path / "m.jsonl"))

    def die(*arguments, **settings):
        raise WorkerDied(utterances)
        yield

    monkeypatch.setattr(examinations, "map_in_order", die)
    with pytest.raises(InputError, match=r"died .* between .*m.jsonl:1 and .*m.jsonl:4") as caught:
        run(check.main, "--manifest", tmp_path / "m.jsonl", "--out", tmp_path / "out", "--fix")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_bytes_of_a_riff_header_of_nothing(tmp_path):
    header = b"RIFF" + struct.pack("<I", 36) + b"WAVE"
    (tmp_path / "a.wav").write_bytes(header)
    with pytest.raises(AudioDefect):
        audio_duration_s(tmp_path / "a.wav")
