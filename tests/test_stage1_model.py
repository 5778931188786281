"""The quantiser: deterministic, frame by frame, every prefix decodes, and metrics that cannot
lie."""

import math

import pytest
import torch

from data_manifests.config import InputError
from stage1_rvq.codebook_metrics import measure_reconstruction, measure_usage
from stage1_rvq.model import RVQConfig, SpeechRVQ, load_rvq

CONFIG = RVQConfig(dim=24, num_codebooks=4, codebook_size=16)


@pytest.fixture(scope="module")
def frames_ND():
    """Clustered frames, as speech is: 1,000 around 40 centres."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(40, CONFIG.dim, generator=generator)
    picks = torch.randint(40, (1000,), generator=generator)
    return centres[picks] + 0.3 * torch.randn(1000, CONFIG.dim, generator=generator)


@pytest.fixture(scope="module")
def rvq(frames_ND):
    torch.manual_seed(0)
    rvq = SpeechRVQ(CONFIG)
    rvq.init_codebooks(frames_ND, torch.linspace(0.5, 2.0, CONFIG.dim))
    return rvq.eval()


def test_encoding_is_frame_by_frame(rvq, frames_ND):
    codes_NK = rvq.encode(frames_ND)
    assert codes_NK.shape == (1000, 4) and codes_NK.dtype == torch.int64
    assert torch.equal(codes_NK[10:20], rvq.encode(frames_ND[10:20]))
    assert torch.equal(codes_NK.view(10, 100, 4), rvq.encode(frames_ND.view(10, 100, -1)))


def test_encoding_and_decoding_do_not_change_the_codebooks(rvq, frames_ND):
    before = {name: value.clone() for name, value in rvq.state_dict().items()}
    rvq.decode(rvq.encode(frames_ND))
    assert all(torch.equal(before[name], value) for name, value in rvq.state_dict().items())


def test_more_codebooks_lose_less(rvq, frames_ND):
    codes_NK = rvq.encode(frames_ND)
    errors = [
        measure_reconstruction(frames_ND, rvq.decode(codes_NK[:, :k]), rvq.frame_scale_D)
        for k in range(1, 5)
    ]
    relative = [e.relative_error for e in errors]
    assert relative == sorted(relative, reverse=True) and relative[-1] < 0.1
    assert errors[-1].cosine > 0.95


def test_beam_search_loses_no_more(rvq, frames_ND):
    greedy, beam = (
        measure_reconstruction(
            frames_ND, rvq.decode(rvq.encode(frames_ND, beam_size=size)), rvq.frame_scale_D
        ).relative_error
        for size in (1, 4)
    )
    assert beam <= greedy


def test_training_lowers_the_loss_and_moves_everything(frames_ND):
    torch.manual_seed(0)
    rvq = SpeechRVQ(CONFIG)
    rvq.init_codebooks(frames_ND[:400], torch.ones(CONFIG.dim))
    before = {name: value.clone() for name, value in rvq.state_dict().items()}
    optimizer = torch.optim.AdamW(rvq.parameters(), lr=1e-3)
    losses = []
    for step in range(60):
        torch.manual_seed(step)
        loss = rvq.train()(frames_ND)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.total.item())
    assert sum(losses[-10:]) < sum(losses[:10])
    moved = {n for n, v in rvq.state_dict().items() if not torch.equal(before[n], v)}
    assert {name for name, _ in rvq.named_parameters()} <= moved
    assert {f"quantizer.layers.{k}._codebook.embed" for k in range(4)} <= moved
    assert "frame_scale_D" not in moved


def test_mistakes(rvq, frames_ND):
    with pytest.raises(InputError, match="32 wide, this RVQ takes 24"):
        rvq.encode(torch.zeros(5, 32))
    with pytest.raises(InputError, match="codes have 5 codebooks, this RVQ has 4"):
        rvq.decode(torch.zeros(3, 5, dtype=torch.long))
    with pytest.raises(InputError, match="codes run from 0 to 16, this RVQ has codes 0 to 15"):
        rvq.decode(torch.tensor([[0, 16, 1, 1]]))
    with pytest.raises(InputError, match="k-means needs 320 frames for 16 codes"):
        SpeechRVQ(CONFIG).init_codebooks(frames_ND[:319], torch.ones(24))
    with pytest.raises(AssertionError, match="eval"):
        SpeechRVQ(CONFIG).encode(frames_ND)


def test_save_and_load(rvq, frames_ND, tmp_path):
    rvq.save_pretrained(tmp_path / "rvq")
    loaded = load_rvq(str(tmp_path / "rvq"), device=torch.device("cpu"))
    assert loaded.config == CONFIG
    assert torch.equal(loaded.encode(frames_ND), rvq.encode(frames_ND))
    SpeechRVQ(RVQConfig(dim=24, num_codebooks=3, codebook_size=16)).save_pretrained(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "rvq" / "model.safetensors")
    with pytest.raises(InputError, match="does not fit this model: missing quantizer"):
        load_rvq(str(tmp_path / "rvq"), device=torch.device("cpu"))
    with pytest.raises(InputError, match="no such folder, and not on the hub"):
        load_rvq("nobody/no-such-rvq", device=torch.device("cpu"))


def test_usage_of_known_codes():
    codes_NK = torch.tensor([[0, 3], [1, 3], [0, 3], [1, 3]])
    usage = measure_usage(codes_NK, codebook_size=4)
    assert usage.used_fraction == [0.5, 0.25]
    assert usage.perplexity == pytest.approx([2.0, 1.0])
    assert usage.normalized_entropy == pytest.approx([math.log(2) / math.log(4), 0.0])


def test_reconstruction_of_known_frames():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    perfect = measure_reconstruction(x, x, torch.ones(2))
    assert (perfect.relative_error, perfect.cosine, perfect.mse) == (0.0, 1.0, 0.0)
    mean_only = measure_reconstruction(x, torch.zeros(2, 2), torch.ones(2))
    assert mean_only.relative_error == 1.0 and mean_only.mse == 0.5
