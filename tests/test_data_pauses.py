"""Long recordings are cut where nobody speaks, as they come, and nothing that is loud is lost."""

import itertools
import tracemalloc

import numpy as np
import pytest

from data_manifests.pauses import cut_at_pauses, cut_evenly

RATE_HZ = 1000


def noise(seconds, level=0.1, seed=0):
    size = round(seconds * RATE_HZ)
    return (level * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def join(*parts):
    return np.concatenate(parts)


def times(*parts, **settings):
    pieces = cut_at_pauses([join(*parts)], RATE_HZ, **settings)
    return [(round(piece.start_s, 1), round(piece.end_s, 1)) for piece in pieces]


def test_every_pause_ends_a_piece_and_its_times_are_those_of_the_speech():
    found = times(noise(3), silence(1), noise(2), silence(5), noise(4))
    assert found == [(0, 3.1), (3.9, 6.1), (10.9, 15)]


@pytest.mark.parametrize("background", [0.0001, 0.003, 0.03])
def test_steady_background_does_not_hide_pauses(background):
    speech = join(noise(2), silence(1), noise(2), silence(0.3), noise(1))
    found = times(speech + noise(len(speech) / RATE_HZ, background, seed=1))
    assert found == [(0, 2.1), (2.9, 6.3)]


def test_a_recording_without_a_pause_is_one_piece_sample_by_sample():
    whole_N = join(silence(2), noise(5), silence(0.4), noise(5), silence(3))
    [piece] = cut_at_pauses([whole_N], RATE_HZ)
    assert np.array_equal(piece.samples_N, whole_N)
    assert (round(piece.start_s, 1), round(piece.end_s, 1)) == (1.9, 12.5)


def test_pieces_do_not_depend_on_blocks():
    generator = np.random.default_rng(5)
    parts = [
        part
        for seconds in generator.uniform(0.2, 30, 12)
        for part in (noise(seconds, seed=int(seconds)), silence(seconds / 10))
    ]
    whole_N = join(*parts)
    at_once = list(cut_at_pauses([whole_N], RATE_HZ))
    for size in (1, 777, 60_000):
        blocks = (whole_N[i : i + size] for i in range(0, len(whole_N), size))
        one_by_one = list(cut_at_pauses(blocks, RATE_HZ))
        assert [(p.start_s, p.end_s) for p in one_by_one] == [(p.start_s, p.end_s) for p in at_once]
        assert all(
            np.array_equal(a.samples_N, b.samples_N)
            for a, b in zip(one_by_one, at_once, strict=True)
        )
    assert max(len(piece.samples_N) for piece in at_once) <= 20 * RATE_HZ
    spoken_s = sum(float(np.count_nonzero(piece.samples_N)) for piece in at_once) / RATE_HZ
    assert spoken_s == np.count_nonzero(whole_N) / RATE_HZ  # nothing is lost, nothing is twice


def test_speech_without_a_pause_is_cut_in_its_stops():
    stops = itertools.chain.from_iterable((noise(7, seed=i), silence(0.2)) for i in range(9))
    pieces = list(cut_at_pauses([join(*stops)], RATE_HZ))
    assert len(pieces) > 3
    assert all(abs(piece.samples_N[[0, -1]]).max() == 0 for piece in pieces[1:-1])


def test_silence_and_clicks_are_no_pieces():
    assert times(silence(70)) == []
    click = noise(0.04)
    assert times(silence(30), click, silence(30), noise(1), silence(30)) == [(59.9, 61.1)]


def test_memory_does_not_grow_with_the_recording():
    """The peak of ten minutes is that of one."""
    minute_N = join(*(noise(5, seed=1), silence(1)) * 10)
    peaks = []
    for num_minutes in (1, 10):
        tracemalloc.start()
        pieces = cut_at_pauses((minute_N for _ in range(num_minutes)), RATE_HZ)
        assert sum(1 for _ in pieces) == 10 * num_minutes
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_a_quiet_speaker_beside_a_loud_one_is_kept():
    assert len(times(noise(3, 0.3), silence(1), noise(3, 0.008), silence(1), noise(3, 0.3))) == 3


@pytest.mark.parametrize("seconds", [1, 30, 30.1, 75, 400])
def test_pieces_are_the_whole_and_none_is_too_long(seconds):
    waveform_N = noise(seconds)
    pieces = cut_evenly(waveform_N, 30_000, RATE_HZ)
    assert (np.concatenate(pieces) == waveform_N).all()
    assert max(map(len, pieces)) <= 30_000 and min(map(len, pieces)) >= min(1000 * seconds, 12_000)
