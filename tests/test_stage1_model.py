"""The quantiser: deterministic, frame by frame, every prefix decodes, and metrics that cannot
lie."""

import math

import pytest
import torch

from commands.errors import InputError
from stage1_rvq.codebook_metrics import compare_frames, measure_usage
from stage1_rvq.codebooks import fit_codebooks, search_codes
from stage1_rvq.config import RVQConfig
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ, load_rvq

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
    rvq.init_codebooks(frames_ND, FrameMetric(torch.linspace(0.5, 2.0, CONFIG.dim)))
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
    errors = [compare_frames(frames_ND, rvq.decode(codes_NK[:, :k])) for k in range(1, 5)]
    relative = [e.relative_error for e in errors]
    assert relative == sorted(relative, reverse=True) and relative[-1] < 0.1
    assert errors[-1].cosine > 0.95


def test_beam_search_loses_no_more(rvq, frames_ND):
    greedy, beam = (
        compare_frames(frames_ND, rvq.decode(rvq.encode(frames_ND, beam_size=size))).relative_error
        for size in (1, 4)
    )
    assert beam <= greedy


def test_decoding_is_the_librarys(rvq, frames_ND):
    codes_NK = rvq.encode(frames_ND)
    for num_codebooks in (1, 3, 4):
        codes_Nk = codes_NK[:, :num_codebooks]
        theirs_ND = rvq.quantizer.get_output_from_indices(codes_Nk[None])[0]
        expected_ND = rvq.project_out(theirs_ND) * rvq.frame_scale_D
        torch.testing.assert_close(rvq.decode(codes_Nk), expected_ND, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["clustered", "random"])
def test_codes_are_the_librarys_up_to_ties(rvq, frames_ND, kind):
    if kind == "random":
        frames_ND = torch.randn(frames_ND.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        projected_ND = rvq.project_in(frames_ND / rvq.frame_scale_D)
        theirs_NK = rvq.quantizer(projected_ND[None])[1][0]
    ours_NK = rvq.encode(frames_ND)
    codebooks = [layer._codebook.embed[0].double() for layer in rvq.quantizer.layers]
    for n in (ours_NK != theirs_NK).any(dim=1).nonzero()[:, 0]:
        first = int((ours_NK[n] != theirs_NK[n]).nonzero()[0])
        residual_D = projected_ND[n].double() - sum(
            codebooks[k][ours_NK[n, k]] for k in range(first)
        )
        ours, theirs = (
            float((residual_D - codebooks[first][codes[n, first]]).square().sum())
            for codes in (ours_NK, theirs_NK)
        )
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert (ours_NK == theirs_NK).all(dim=1).double().mean() > 0.99


def test_beam_search_ranks_by_the_error_that_is_left(rvq, frames_ND):
    """An exhaustive search over two codebooks finds what a beam as wide as the first one finds."""
    codebooks = [layer._codebook.embed[0] for layer in rvq.quantizer.layers[:2]]
    sums_CCD = codebooks[0][:, None] + codebooks[1][None]
    nearest_N = torch.cdist(frames_ND, sums_CCD.flatten(0, 1)).argmin(dim=1)
    codes_N2 = search_codes(frames_ND, codebooks, beam_size=CONFIG.codebook_size)
    exhaustive_N2 = torch.stack([nearest_N // 16, nearest_N % 16], dim=1)
    assert (codes_N2 == exhaustive_N2).all(dim=1).double().mean() > 0.99


def test_fitting_ignores_directions_of_mere_noise():
    """Two directions carry four clusters, thirty carry noise: centroids differ in the two, and the
    error on frames that were not fitted is lower than with plain cluster means."""
    generator = torch.Generator().manual_seed(0)
    frames_ND = torch.randn(400, 32, generator=generator)
    frames_ND[:, :2] += 6 * torch.randint(0, 2, (400, 2), generator=generator)
    fitted_ND, held_out_ND = frames_ND.chunk(2)
    (codebook_CD,) = fit_codebooks(fitted_ND, 1, 8, generator)
    variance_D = codebook_CD.var(dim=0)
    assert variance_D[:2].min() > 20 * variance_D[2:].max()
    codes_N = search_codes(fitted_ND, [codebook_CD])[:, 0]
    means_CD = torch.stack([fitted_ND[codes_N == c].mean(dim=0) for c in codes_N.unique()])

    def held_out_error(codebook_CD):
        codes_N = search_codes(held_out_ND, [codebook_CD])[:, 0]
        return (held_out_ND - codebook_CD[codes_N]).square().sum()

    assert held_out_error(codebook_CD) < held_out_error(means_CD)


def test_fitting_fewer_distinct_frames_than_codes():
    frames_ND = torch.eye(4, 6).repeat(40, 1)
    codebooks = fit_codebooks(frames_ND, 2, 8, torch.Generator().manual_seed(0))
    assert all(codebook_CD.isfinite().all() for codebook_CD in codebooks)
    codes_NK = search_codes(frames_ND, codebooks)
    decoded_ND = codebooks[0][codes_NK[:, 0]] + codebooks[1][codes_NK[:, 1]]
    assert (frames_ND - decoded_ND).abs().max() < 0.05


def test_training_lowers_the_loss_and_moves_everything(frames_ND):
    torch.manual_seed(0)
    rvq = SpeechRVQ(CONFIG)
    rvq.init_codebooks(frames_ND[:400], FrameMetric(torch.ones(CONFIG.dim)))
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
        SpeechRVQ(CONFIG).init_codebooks(frames_ND[:319], FrameMetric(torch.ones(24)))
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
    perfect = compare_frames(x, x)
    assert (perfect.relative_error, perfect.cosine, perfect.mse) == (0.0, 1.0, 0.0)
    mean_only = compare_frames(x, torch.zeros(2, 2))
    assert mean_only.relative_error == 1.0 and mean_only.mse == 0.5
