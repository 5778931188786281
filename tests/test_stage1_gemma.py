"""The audio tower: as many embeddings as Gemma expects, the same alone, in a batch, in pieces, and
as the stock forward gives them."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from commands.device import pick_device, pick_dtype
from commands.errors import InputError
from gemma4.audio_tower import fast_cpu_forward, stock_forward
from gemma4.feature_extractors import SAMPLES_PER_FRAME
from gemma4.gemma import (
    LEFT_CONTEXT_FRAMES,
    PIECE_FRAMES,
    count_audio_tokens,
    load_audio_encoder,
    load_gemma,
)
from gemma4.linear import linear
from stage1_rvq.config import RVQConfig
from stage1_rvq.model import SpeechRVQ

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[False, True], ids=["stock", "fast_cpu"])
def encoder(tiny_models, request):
    return load_audio_encoder(
        str(tiny_models / "gemma"), device=CPU, dtype=torch.float32, fast_cpu=request.param
    )


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


def test_the_tower_computes_in_full_float32(encoder, monkeypatch):
    """On a GPU torch would take TF32 for convolutions, and give other codes than a CPU."""
    convolutions, seen = torch.backends.cudnn.conv, []
    before = convolutions.fp32_precision
    for forward in (stock_forward, fast_cpu_forward):

        def note_and_run(*arguments, forward=forward):
            seen.append(convolutions.fp32_precision)
            return forward(*arguments)

        monkeypatch.setattr(f"gemma4.gemma.{forward.__name__}", note_and_run)
    encoder.encode([noise(16_000)])
    assert seen == ["ieee"] and convolutions.fp32_precision == before


def test_batch_and_single_give_the_same_codes(encoder):
    torch.manual_seed(0)
    rvq = SpeechRVQ(RVQConfig(dim=encoder.dim, num_codebooks=8, codebook_size=256)).eval()
    waveforms = [noise(n, seed=n) for n in range(30_000, 60_000, 1_111)]
    together = torch.cat([rvq.encode(frames_TD) for frames_TD in encoder.encode(waveforms)])
    alone = torch.cat([rvq.encode(encoder.encode([waveform])[0]) for waveform in waveforms])
    assert together.numel() > 10_000
    assert (together == alone).float().mean() >= 0.9999  # the rest are ties


@pytest.mark.parametrize("clip_bound", [float("inf"), 1.5])
@pytest.mark.parametrize("num_mel_frames", [3, 48, 161, 400])
def test_our_forward_is_thestock_forward(tiny_models, clip_bound, num_mel_frames):
    tower = load_audio_encoder(str(tiny_models / "gemma"), device=CPU, dtype=torch.float32).tower
    for name, buffer in tower.named_buffers():
        if name.endswith(("_min", "_max")):
            buffer.fill_(clip_bound if name.endswith("_max") else -clip_bound)
    features_BMF = torch.randn(3, num_mel_frames, 128, generator=torch.Generator().manual_seed(0))
    lengths_B = torch.tensor([num_mel_frames, num_mel_frames * 2 // 3, 1])
    mask_BM = torch.arange(num_mel_frames) < lengths_B[:, None]
    ours_BTD, ours_BT = fast_cpu_forward(tower, features_BMF, mask_BM)
    stock_BTD, stock_BT = stock_forward(tower, features_BMF, mask_BM)
    assert torch.equal(ours_BT, stock_BT)
    torch.testing.assert_close(ours_BTD[ours_BT], stock_BTD[stock_BT], atol=1e-5, rtol=0)
    # In bfloat16 both round, not at the same places: ours is no further from float32 than stock.
    tower.to(torch.bfloat16)
    rounded = features_BMF.bfloat16()
    errors = [
        (forward(tower, rounded, mask_BM)[0].float() - stock_BTD)[stock_BT].square().mean().sqrt()
        for forward in (fast_cpu_forward, stock_forward)
    ]
    assert errors[0] < 1.1 * errors[1] < 0.1


def test_linear_is_a_matrix_product():
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 64, generator=generator) for n in (7, 48))
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
    torch.testing.assert_close(linear(x, weight, clip=(-1, 2)), (x @ weight.T).clamp(-1, 2))
    torch.testing.assert_close(
        linear(x.bfloat16(), weight.bfloat16(), clip=(-1, 2)).float(),
        (x.bfloat16().float() @ weight.bfloat16().float().T).clamp(-1, 2),
        atol=0.02,
        rtol=0.02,
    )


def test_frames_have_unit_rms_after_scaling(encoder):
    [frames_TD] = encoder.encode([noise(16_000)])
    rms_T = (frames_TD / encoder.frame_scale_D).square().mean(dim=-1).sqrt()
    torch.testing.assert_close(rms_T, torch.ones_like(rms_T), atol=1e-4, rtol=0)


def test_long_audio_in_pieces_equals_one_shot(encoder):
    waveform = noise((2 * PIECE_FRAMES + 61) * SAMPLES_PER_FRAME + 123)
    assert LEFT_CONTEXT_FRAMES < PIECE_FRAMES
    [in_pieces_TD] = encoder.encode([waveform])
    [at_once_TD] = encoder.encode_at_once([waveform])
    assert len(in_pieces_TD) == count_audio_tokens(len(waveform))
    torch.testing.assert_close(in_pieces_TD, at_once_TD, atol=1e-5, rtol=0)


def test_tower_loads_from_an_extracted_encoder(encoder, tmp_path):
    encoder.tower.save_pretrained(tmp_path)
    encoder.extractor.save_pretrained(tmp_path)
    extracted = load_audio_encoder(
        str(tmp_path), device=CPU, dtype=torch.float32, fast_cpu=encoder.fast_cpu
    )
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
