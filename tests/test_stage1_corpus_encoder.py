"""Recordings are decoded, and their features computed, by threads, ahead of the audio tower; what
comes out does not depend on them."""

import threading

import numpy as np
import pytest
import torch

from commands.errors import InputError
from data_manifests.audio import write_wav
from data_manifests.manifest import Utterance
from gemma4.feature_extractors import SAMPLES_PER_FRAME
from gemma4.gemma import PIECE_FRAMES, load_audio_encoder
from stage1_rvq import corpus_encoder
from stage1_rvq.corpus_encoder import encode_utterances

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def encoder(tiny_models):
    return load_audio_encoder(
        str(tiny_models / "gemma"), device=torch.device("cpu"), dtype=torch.float32
    )


def noise(num_samples, seed):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    """Of several lengths, one longer than the tower takes at once, one that is not there."""
    folder = tmp_path_factory.mktemp("clips")
    lengths = [5_600 + 997 * (7 * i % 23) for i in range(23)]
    lengths[13] = PIECE_FRAMES * SAMPLES_PER_FRAME + 5_000
    rows = []
    for i, num_samples in enumerate(lengths):
        if i != 5:
            write_wav(folder / f"{i}.wav", noise(num_samples, i), RATE_HZ)
        rows.append(
            Utterance(
                id=str(i), audio=str(folder / f"{i}.wav"), text="Me", speaker="s",
                duration_s=num_samples / RATE_HZ, dialect="asante", corpus="c", split="train",
                license="CC0-1.0", origin=f"m.jsonl:{i + 1}",
            )
        )  # fmt: skip
    return rows


def encode_all(utterances, encoder, num_workers):
    return list(encode_utterances(utterances, encoder, batch_size=3, num_workers=num_workers))


def test_the_number_of_threads_changes_nothing(utterances, encoder, monkeypatch):
    monkeypatch.setattr(corpus_encoder, "WINDOW_BATCHES", 2)
    log_mel, threads = encoder.log_mel, set()

    def noted(waveforms):
        threads.add(threading.current_thread())
        return log_mel(waveforms)

    monkeypatch.setattr(encoder, "log_mel", noted)
    expected = encode_all(utterances, encoder, 1)
    assert [utterance for utterance, _ in expected] == utterances
    for num_workers in (0, 4):
        for (_, one), (_, other) in zip(
            expected, encode_all(utterances, encoder, num_workers), strict=True
        ):
            assert (
                str(one) == str(other) if isinstance(one, InputError) else torch.equal(one, other)
            )
    assert threading.main_thread() not in threads
    [unusable] = [result for _, result in expected if isinstance(result, InputError)]
    assert str(unusable).startswith("m.jsonl:6: ")
    for (utterance, frames_TD), i in zip(expected, range(3), strict=False):
        [alone_TD] = encoder.encode([noise(round(utterance.duration_s * RATE_HZ), i)])
        torch.testing.assert_close(frames_TD, alone_TD, atol=2e-3, rtol=0)


def test_what_is_prepared_is_encoded_as_at_once(encoder):
    short = [noise(n, n) for n in (5_600, 16_000, 40_000)]
    long = [noise(PIECE_FRAMES * SAMPLES_PER_FRAME + 5_000, 1), noise(16_000, 2)]
    for waveforms in (short, long):
        prepared = encoder.prepare(waveforms)
        assert bool(prepared.kept) == (waveforms is long)
        for one, other in zip(
            encoder.encode_prepared(prepared), encoder.encode(waveforms), strict=True
        ):
            assert torch.equal(one, other)
    with pytest.raises(InputError, match="too short for one frame"):
        encoder.prepare([noise(100, 0)])
