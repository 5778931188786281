"""The audio tower: as many embeddings as Gemma expects, the same alone, in a batch, and in
pieces."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from data_manifests.config import InputError
from stage1_rvq.device import pick_device, pick_dtype
from stage1_rvq.gemma import (
    LEFT_CONTEXT_FRAMES,
    PIECE_FRAMES,
    SAMPLES_PER_FRAME,
    count_audio_tokens,
    load_audio_encoder,
    load_gemma,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tiny_models):
    return load_audio_encoder(str(tiny_models / "gemma"), device=CPU, dtype=torch.float32)


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def test_number_of_embeddings(encoder):
    for num_samples in (161, 640, 641, 16_000, 16_160, 20_000, 31_234, 48_017):
        [frames_TD] = encoder.encode([noise(num_samples)])
        assert frames_TD.shape == (count_audio_tokens(num_samples), encoder.dim)
    # From the published processor: one second, and the 30 s that Gemma is given at most.
    assert count_audio_tokens(16_000) == 25 and count_audio_tokens(480_000) == 750
    assert count_audio_tokens(160) == 0
    with pytest.raises(InputError, match="too short for one frame: 100 samples"):
        encoder.encode([noise(100)])


def test_batch_equals_single_and_padding_changes_nothing(encoder):
    waveforms = [noise(n, seed=n) for n in (5_600, 16_000, 16_208, 40_000, 72_111)]
    together = encoder.encode(waveforms)
    for waveform, frames_TD in zip(waveforms, together, strict=True):
        [alone_TD] = encoder.encode([waveform])
        torch.testing.assert_close(frames_TD, alone_TD, atol=1e-5, rtol=0)


def test_frames_have_unit_rms_after_scaling(encoder):
    [frames_TD] = encoder.encode([noise(16_000)])
    rms_T = (frames_TD / encoder.frame_scale_D).square().mean(dim=-1).sqrt()
    torch.testing.assert_close(rms_T, torch.ones_like(rms_T), atol=1e-4, rtol=0)


def test_long_audio_in_pieces_equals_one_shot(encoder):
    waveform = noise((2 * PIECE_FRAMES + 61) * SAMPLES_PER_FRAME + 123)
    assert LEFT_CONTEXT_FRAMES < PIECE_FRAMES
    [in_pieces_TD] = encoder.encode([waveform])
    [at_once_TD] = encoder._encode_batch([waveform])
    assert len(in_pieces_TD) == count_audio_tokens(len(waveform))
    torch.testing.assert_close(in_pieces_TD, at_once_TD, atol=1e-5, rtol=0)


def test_tower_loads_from_an_extracted_encoder(encoder, tmp_path):
    encoder.tower.save_pretrained(tmp_path)
    encoder.extractor.save_pretrained(tmp_path)
    extracted = load_audio_encoder(str(tmp_path), device=CPU, dtype=torch.float32)
    waveform = noise(16_000)
    assert torch.equal(extracted.encode([waveform])[0], encoder.encode([waveform])[0])


def test_missing_tensors_are_refused(tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models / "gemma", tmp_path / "gemma")
    weights = load_file(folder / "model.safetensors")
    del weights["model.audio_tower.output_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 tensor\(s\) missing, e.g. .*output_proj.weight"):
        load_audio_encoder(str(folder), device=CPU, dtype=torch.float32)
    with pytest.raises(InputError, match=r"1 tensor\(s\) missing"):
        load_gemma(str(folder), device=CPU, dtype=torch.float32)


def test_what_is_no_gemma_is_refused_in_one_line(tmp_path):
    for name in (str(tmp_path), "nobody/no-such-model"):
        with pytest.raises(InputError, match=r"--gemma .* cannot be loaded") as caught:
            load_audio_encoder(name, device=CPU, dtype=torch.float32)
        assert "\n" not in str(caught.value)


def test_devices_and_dtypes():
    assert pick_dtype("auto", CPU) is torch.float32
    assert pick_dtype("auto", torch.device("cuda")) is torch.bfloat16
    with pytest.raises(InputError, match="--device warp: not available"):
        pick_device("warp")
