"""Mimi: streaming equals offline, a batch equals one by one, and mistakes are named."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MimiModel

from commands.errors import InputError
from speech_head.mimi import Mimi, load_mimi, random_mimi, reset_codebook_caches, tiny_mimi
from speech_head.mimi_stream import MimiStreamDecoder, decode_together

FRAME_SIZE = 1920
TOLERANCE = 1e-4  # on samples whose peak is about 60, so about 2e-6 of it


@pytest.fixture(scope="module")
def mimi():
    return Mimi(tiny_mimi())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mimi")
    tiny_mimi().save_pretrained(path)
    return path


def noise(num_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loudness_N = torch.linspace(0.0, 0.5, num_samples)
    return loudness_N * torch.randn(num_samples, generator=generator)


def random_codes(*shape, seed=0):
    return torch.randint(0, 64, shape, generator=torch.Generator().manual_seed(seed))


# Streaming: 24 frames are 48 positions for an attention window of 8.


@pytest.mark.parametrize("chunks", [[1] * 24, [3] * 8, [1, 12, 2, 7, 1, 1], [24]])
def test_streaming_equals_offline_at_any_chunking(mimi, chunks):
    codes_FK = random_codes(24, 8)
    stream = MimiStreamDecoder(mimi)
    pieces = [stream.decode(chunk_FK) for chunk_FK in codes_FK.split(chunks)]
    assert [len(piece_N) for piece_N in pieces] == [n * FRAME_SIZE for n in chunks]
    torch.testing.assert_close(torch.cat(pieces), mimi.decode(codes_FK), atol=TOLERANCE, rtol=0)


def test_utterances_decoded_together_are_as_alone(mimi):
    """The second begins five frames after the first; the third leaves every other step out."""
    codes = [random_codes(24, 8, seed=seed) for seed in range(3)]
    streams = [MimiStreamDecoder(mimi) for _ in codes]
    pieces, steps = [[], [], []], [0, 0, 0]
    for number in range(48):
        able = [
            b for b in range(3)
            if steps[b] < 24 and (b != 1 or number >= 5) and (b != 2 or number % 2)
        ]  # fmt: skip
        if not able:
            continue
        frames_BFK = torch.stack([codes[b][steps[b] : steps[b] + 1] for b in able])
        decoded_BN = decode_together([streams[b] for b in able], frames_BFK)
        for b, x_N in zip(able, decoded_BN, strict=True):
            pieces[b].append(x_N)
            steps[b] += 1
    assert steps == [24, 24, 24]
    for codes_FK, parts in zip(codes, pieces, strict=True):
        expected_N = mimi.decode(codes_FK)
        torch.testing.assert_close(torch.cat(parts), expected_N, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("groups", [1, 8])
def test_streaming_equals_offline_however_channels_are_grouped(groups):
    """The released Mimi, like the tiny one, upsamples every channel by itself."""
    config = tiny_mimi().config
    config.upsample_groups = groups
    grouped = Mimi(random_mimi(config))
    codes_FK = torch.randint(64, (6, 8), generator=torch.Generator().manual_seed(0))
    stream = MimiStreamDecoder(grouped)
    streamed_N = torch.cat([stream.decode(codes_K[None]) for codes_K in codes_FK])
    torch.testing.assert_close(streamed_N, grouped.decode(codes_FK), atol=1e-4, rtol=1e-4)


def test_streams_that_share_a_mimi_do_not_disturb_each_other(mimi):
    codes_BFK = random_codes(2, 6, 8)
    streams = [MimiStreamDecoder(mimi), MimiStreamDecoder(mimi)]
    pieces = [
        [stream.decode(codes_BFK[b, f : f + 1]) for b, stream in enumerate(streams)]
        for f in range(6)
    ]
    for b, codes_FK in enumerate(codes_BFK):
        online_N = torch.cat([piece[b] for piece in pieces])
        torch.testing.assert_close(online_N, mimi.decode(codes_FK), atol=TOLERANCE, rtol=0)


def test_transformers_still_cannot_stream(mimi):
    """Fails once `MimiModel.decode` streams by itself: then delete `MimiStreamDecoder`."""
    codes_BKF = random_codes(1, 8, 8).transpose(1, 2)
    past_key_values, pieces = None, []
    with torch.no_grad():
        for code_BK1 in codes_BKF.split(1, dim=2):
            output = mimi.model.decode(
                code_BK1, decoder_past_key_values=past_key_values, use_cache=True
            )
            past_key_values = output.decoder_past_key_values
            pieces.append(output.audio_values[0, 0])
    offline_N = mimi.decode(codes_BKF[0].T)
    assert (torch.cat(pieces) - offline_N).abs().max() > 0.1 * offline_N.abs().max()


# Batches and padding.


def test_a_batch_encodes_as_one_by_one(mimi):
    clips = [noise(n, seed=n) for n in (20_000, 1, 12 * FRAME_SIZE, 12 * FRAME_SIZE + 1)]
    batch = mimi.encode(clips)
    assert [tuple(codes_FK.shape) for codes_FK in batch] == [(11, 8), (1, 8), (12, 8), (13, 8)]
    for clip_N, codes_FK in zip(clips, batch, strict=True):
        [alone_FK] = mimi.encode([clip_N])
        assert torch.equal(codes_FK, alone_FK)
        num_missing = len(codes_FK) * FRAME_SIZE - len(clip_N)
        [filled_FK] = mimi.encode([torch.nn.functional.pad(clip_N, (0, num_missing))])
        assert torch.equal(codes_FK, filled_FK)


def test_codes_are_those_of_the_library_and_depend_on_the_sound(mimi):
    [codes_FK] = mimi.encode([noise(12 * FRAME_SIZE).numpy()])
    with torch.no_grad():
        library_BKF = mimi.model.encode(noise(12 * FRAME_SIZE)[None, None]).audio_codes
    assert codes_FK.dtype == torch.int64
    assert torch.equal(codes_FK, library_BKF[0].T)
    assert all(len(codes_F.unique()) > 3 for codes_F in codes_FK.T)
    [other_FK] = mimi.encode([noise(12 * FRAME_SIZE, seed=1)])
    assert (codes_FK != other_FK).float().mean() > 0.3


def test_fewer_codebooks_are_the_coarsest_ones(mimi):
    [codes_FK] = mimi.encode([noise(20_000)])
    [coarse_FK] = Mimi(tiny_mimi(), num_codebooks=3).encode([noise(20_000)])
    assert torch.equal(coarse_FK, codes_FK[:, :3])


def test_a_batch_decodes_as_one_by_one_and_trims(mimi):
    codes = [random_codes(5, 8), random_codes(9, 8, seed=1)]
    alone = [mimi.decode(codes_FK) for codes_FK in codes]
    assert [len(x_N) for x_N in alone] == [5 * FRAME_SIZE, 9 * FRAME_SIZE]
    for num_samples in (None, [1, 9000]):
        batch = mimi.decode(codes, num_samples)
        expected = alone if num_samples is None else [alone[0][:1], alone[1][:9000]]
        torch.testing.assert_close(batch, expected, atol=TOLERANCE, rtol=0)
    assert torch.equal(mimi.decode(codes[0], num_samples=700), alone[0][:700])


# Mistakes.


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(0), r"waveforms\[1\] is torch.float32 \[0\], expected .* N >= 1"),
        (torch.zeros(1, 1920), r"waveforms\[1\] is torch.float32 \[1, 1920\], expected"),
        (np.zeros(1920), r"waveforms\[1\] is torch.float64 \[1920\], expected torch.float32"),
        (torch.tensor([0.0, float("nan")]), r"waveforms\[1\] holds NaN"),
        (torch.tensor([float("inf")]), r"waveforms\[1\] holds NaN or infinity"),
    ],
)
def test_encode_refuses(mimi, waveform, message):
    with pytest.raises(InputError, match=message):
        mimi.encode([noise(100), waveform])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((1, 8), 64), "has codes from 64 to 64, expected 0 to 63"),
        (torch.full((1, 8), -1), "has codes from -1 to -1, expected 0 to 63"),
        (torch.zeros(3, 7, dtype=torch.int64), r"torch.int64 \[3, 7\], expected .* K = 8"),
        (torch.zeros(8, dtype=torch.int64), r"torch.int64 \[8\], expected"),
        (torch.zeros(0, 8, dtype=torch.int64), r"torch.int64 \[0, 8\], expected .* F >= 1"),
        (torch.zeros(3, 8), r"torch.float32 \[3, 8\], expected torch.int64"),
    ],
)
def test_decode_refuses(mimi, codes, message):
    with pytest.raises(InputError, match=r"codes\[1\] .*" + message):
        mimi.decode([random_codes(2, 8), codes])
    with pytest.raises(InputError, match=r"codes_BFK .*" + message.replace(r"\[", r"\[1, ")):
        MimiStreamDecoder(mimi).decode(codes)


@pytest.mark.parametrize("num_samples", [0, 2 * FRAME_SIZE + 1])
def test_decode_refuses_to_trim_to_what_is_not_there(mimi, num_samples):
    with pytest.raises(InputError, match=f"num_samples is {num_samples}, expected 1 to 3840"):
        mimi.decode(random_codes(2, 8), num_samples=num_samples)


# Loading.


def test_a_saved_mimi_gives_the_same_codes(mimi, folder):
    loaded = load_mimi(folder)
    assert torch.equal(loaded.encode([noise(20_000)])[0], mimi.encode([noise(20_000)])[0])
    assert torch.equal(loaded.decode(random_codes(3, 8)), mimi.decode(random_codes(3, 8)))
    assert (loaded.num_codebooks, loaded.codebook_size) == (8, 64)
    assert (loaded.frame_size, loaded.frame_rate_hz) == (FRAME_SIZE, 12.5)
    assert loaded.sample_rate_hz == 24_000
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_mimi_saved_in_half_precision_runs_in_float32(tmp_path):
    tiny_mimi().half().save_pretrained(tmp_path)
    loaded = load_mimi(str(tmp_path))
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    assert loaded.decode(random_codes(2, 8)).dtype == torch.float32


def test_load_refuses_what_is_not_a_usable_mimi(folder, tmp_path):
    with pytest.raises(InputError, match=r"nowhere: cannot be loaded"):
        load_mimi(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "encodec"}))
    with pytest.raises(InputError, match=r"is of kind .encodec., expected mimi"):
        load_mimi(tmp_path)
    with pytest.raises(InputError, match="num_codebooks is 9, Mimi has 8"):
        load_mimi(folder, num_codebooks=9)
    with pytest.raises(InputError, match="num_codebooks is 0, Mimi has 8"):
        load_mimi(folder, num_codebooks=0)


def test_load_refuses_missing_weights(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    del weights["upsample.conv.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"1 tensor.s. missing, e.g. .*upsample"):
        load_mimi(tmp_path)


# Precision and state.


def test_precision_chosen_by_the_caller_changes_nothing(mimi):
    [codes_FK] = mimi.encode([noise(20_000)])
    conv, seen = torch.backends.cudnn.conv, []
    conv.fp32_precision = "tf32"  # torch's default
    hook = mimi.model.encoder.register_forward_pre_hook(lambda *_: seen.append(conv.fp32_precision))
    with torch.autocast("cpu", torch.bfloat16):
        [autocast_FK] = mimi.encode([noise(20_000)])
    hook.remove()
    assert torch.equal(autocast_FK, codes_FK)
    assert seen == ["ieee"]
    assert conv.fp32_precision == "tf32"


def test_codebooks_changed_after_use_are_read_anew():
    model, other = tiny_mimi(seed=0), tiny_mimi(seed=1)
    codes_FK = random_codes(2, 8)
    expected_N = Mimi(other).decode(codes_FK)

    Mimi(model).decode(codes_FK)
    model.load_state_dict(other.state_dict())
    stale_N = model.decode(codes_FK.T[None]).audio_values[0, 0]
    assert (stale_N - expected_N).abs().max() > 0.1  # else the library mends itself: drop the reset
    assert torch.equal(Mimi(model).decode(codes_FK), expected_N)

    model.load_state_dict(tiny_mimi(seed=0).state_dict())
    reset_codebook_caches(model)
    fresh_N = Mimi(tiny_mimi(seed=0)).decode(codes_FK)
    assert torch.equal(model.decode(codes_FK.T[None]).audio_values[0, 0], fresh_N)


def test_the_tiny_mimi_is_tiny_seeded_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (tiny_mimi(seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert sum(weight.numel() for weight in tiny_mimi().parameters()) < 200_000
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "quantizer.acoustic_residual_vector_quantizer.layers.6.codebook.embed_sum"
    assert not torch.equal(first[name], other[name])


def test_a_saved_mimi_is_named_as_the_hubs(tiny_models):
    """kyutai/mimi has flat names; transformers 5.23 nests its modules, and maps both ways."""
    names = set(load_file(tiny_models / "mimi" / "model.safetensors"))
    assert {name.split(".")[0] for name in names} == {
        "encoder", "encoder_transformer", "downsample", "quantizer", "upsample",
        "decoder_transformer", "decoder",
    }  # fmt: skip
    assert "encoder.layers.0.conv.weight" in names and "downsample.conv.weight" in names
    nested = MimiModel.from_pretrained(tiny_models / "mimi").state_dict()
    assert len(nested) == len(names) and "encoder.encoder_seanet.layers.0.conv.weight" in nested
