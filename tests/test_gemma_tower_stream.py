"""The streaming ear: speech in pieces of any size gives the embeddings of the whole recording."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma4.feature_extractors import SAMPLES_PER_FRAME
from gemma4.gemma import PIECE_FRAMES, load_audio_encoder
from gemma4.tower_stream import StreamingTower, encode_together

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tiny_models):
    return load_audio_encoder(str(tiny_models / "gemma"), device=CPU, dtype=torch.float32)


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def hear(encoder, waveform, sizes):
    """Push pieces of these sizes, again and again, and finish."""
    stream, found, start = StreamingTower(encoder).start(), [], 0
    while start < len(waveform):
        for size in sizes:
            found.append(stream.push(waveform[start : start + size]))
            start += size
    return torch.cat([*found, stream.finish()])


@settings(max_examples=20, deadline=None)
@given(
    num_samples=st.integers(161, 60_000),
    sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=5).filter(any),
)
def test_any_cutting_equals_the_whole(encoder, num_samples, sizes):
    waveform = noise(num_samples)
    [expected_TD] = encoder.encode([waveform])
    if min(s for s in sizes if s) < 100 < num_samples / 100:
        sizes = [*sizes, 5_000]  # or it takes thousands of steps
    found_TD = hear(encoder, waveform, sizes)
    torch.testing.assert_close(found_TD, expected_TD, atol=1e-5, rtol=0)


def test_a_frame_comes_as_soon_as_its_speech_is_complete(encoder):
    waveform, stream, counts = noise(20 * SAMPLES_PER_FRAME), StreamingTower(encoder).start(), []
    for i in range(0, len(waveform), 160):
        stream.push(waveform[i : i + 160])
        counts.append(stream.num_frames)
    # One sample more than it covers, so one hop of 160 later.
    assert counts == [max(0, n - 1) // 4 for n in range(1, len(counts) + 1)]


def test_a_recording_longer_than_what_goes_through_at_once(encoder):
    waveform = noise((2 * PIECE_FRAMES + 100) * SAMPLES_PER_FRAME + 333)
    [expected_TD] = encoder.encode_at_once([waveform])
    for sizes in ([len(waveform)], [100_000, 7]):
        torch.testing.assert_close(hear(encoder, waveform, sizes), expected_TD, atol=1e-5, rtol=0)


def test_nothing_is_heard_in_less_than_a_frame(encoder):
    for num_samples in (0, 1, 160):
        stream = StreamingTower(encoder).start()
        assert stream.push(noise(num_samples)).shape == (0, encoder.dim)
        assert stream.finish().shape == (0, encoder.dim)


def test_what_is_kept_does_not_grow(encoder):
    stream = StreamingTower(encoder).start()
    sizes = set()
    for i in range(200):
        stream.push(noise(1_600, seed=i))
        tensors = [x for cache in stream._caches for x in vars(cache).values()]
        sizes.add(sum(x.untyped_storage().nbytes() for x in tensors))
        assert len(stream._samples_N) < 3 * 160 + 321 and len(stream._mels_MF) < 8
    assert len(sizes) == 1


def test_streams_encoded_together_are_as_alone(encoder):
    """The second begins later; the third leaves every other step out; each ends on its own."""
    waveforms = [noise(n, seed=n) for n in (30_000, 22_000, 41_234)]
    tower = StreamingTower(encoder)
    streams, found = [tower.start() for _ in waveforms], [[], [], []]
    for i, (stream, waveform) in enumerate(zip(streams, waveforms, strict=True)):
        stream.add(waveform[: 9_000 * (i + 1)])
    for step in range(40):
        able = [
            i for i, stream in enumerate(streams)
            if stream.num_waiting >= 2 and (i != 1 or step > 4) and (i != 2 or step % 2)
        ]  # fmt: skip
        if able:
            encoded = encode_together([streams[i] for i in able], 2)
            for i, frames_TD in zip(able, encoded, strict=True):
                found[i].append(frames_TD)
    for i, (stream, waveform) in enumerate(zip(streams, waveforms, strict=True)):
        found[i] += [stream.push(waveform[9_000 * (i + 1) :]), stream.finish()]
        [expected_TD] = encoder.encode([waveform])
        torch.testing.assert_close(torch.cat(found[i]), expected_TD, atol=1e-5, rtol=0)
