"""The space in which frames are compared: what its map does, and what is lost by fitting there."""

import pytest
import torch
from embedding_folder import write_embeddings

from benchmarks import frame_metric as benchmark
from stage1_rvq.codebook_metrics import compare_frames, measure_reconstruction
from stage1_rvq.config import RVQConfig
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ

DIM, PROJECTED = 24, 40


@pytest.fixture(scope="module")
def weights():
    """A norm weight and a projection as uneven as the published ones."""
    generator = torch.Generator().manual_seed(1)
    scale_D = 3.6 + 5.6 * torch.randn(DIM, generator=generator)
    proj_PD = torch.randn(PROJECTED, DIM, generator=generator)
    left, _, right = torch.linalg.svd(proj_PD, full_matrices=False)
    return scale_D, left * torch.linspace(2.2, 0.2, DIM) @ right


@pytest.fixture(scope="module")
def frames_ND(weights):
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(40, DIM, generator=generator)
    picks = torch.randint(40, (900,), generator=generator)
    return (centres[picks] + 0.3 * torch.randn(900, DIM, generator=generator)) * weights[0]


def test_distances_are_those_after_the_projection(weights, frames_ND):
    scale_D, proj_PD = weights
    mapped = frames_ND.double() @ FrameMetric(scale_D, proj_PD, exponent=1.0).map_DD
    ratio = torch.pdist(mapped[:50]) / torch.pdist(frames_ND[:50].double() @ proj_PD.double().T)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    raw = frames_ND.double() @ FrameMetric(scale_D, proj_PD, exponent=0.0).map_DD
    ratio = torch.pdist(raw[:50]) / torch.pdist(frames_ND[:50].double())
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    normalized = FrameMetric(scale_D).map_DD
    torch.testing.assert_close(frames_ND.double() @ normalized, (frames_ND / scale_D).double())


def test_frames_have_about_unit_rms_in_every_space(weights):
    scale_D, proj_PD = weights
    frames_ND = torch.randn(5000, DIM) * scale_D
    for exponent in (0.0, 0.5, 1.0):
        mapped = frames_ND.double() @ FrameMetric(scale_D, proj_PD, exponent).map_DD
        assert mapped.square().mean().sqrt().item() == pytest.approx(1, abs=0.05)


def test_a_muted_direction_can_still_be_inverted(weights):
    scale_D, proj_PD = weights
    mute = proj_PD @ torch.diag(torch.arange(DIM) > 0).float()
    map_DD = FrameMetric(scale_D, mute).map_DD
    torch.testing.assert_close(map_DD @ torch.linalg.inv(map_DD), torch.eye(DIM).double())


def fitted(frames_ND, metric):
    rvq = SpeechRVQ(RVQConfig(dim=DIM, num_codebooks=3, codebook_size=16))
    rvq.init_codebooks(frames_ND[:600], metric)
    return rvq.eval()


def test_fitting_where_it_counts_loses_less_there(weights, frames_ND):
    scale_D, proj_PD = weights
    metric = FrameMetric(scale_D, proj_PD)
    held_out_ND = frames_ND[600:]
    errors = [
        measure_reconstruction(held_out_ND, rvq.decode(rvq.encode(held_out_ND)), metric)
        for rvq in (fitted(frames_ND, metric), fitted(frames_ND, FrameMetric(scale_D)))
    ]
    assert errors[0]["projected"].relative_error < 0.9 * errors[1]["projected"].relative_error
    assert errors[0]["normalized"].relative_error > errors[1]["normalized"].relative_error


def test_spaces_are_measured_as_defined(weights, frames_ND):
    scale_D, proj_PD = weights
    decoded_ND = frames_ND + torch.randn(frames_ND.shape)
    parts = measure_reconstruction(frames_ND, decoded_ND, FrameMetric(scale_D, proj_PD))
    assert parts == {
        "projected": compare_frames(frames_ND @ proj_PD.T, decoded_ND @ proj_PD.T),
        "raw": compare_frames(frames_ND, decoded_ND),
        "normalized": compare_frames(frames_ND / scale_D, decoded_ND / scale_D),
    }


def test_training_compares_frames_in_the_metrics_space(weights, frames_ND):
    scale_D, proj_PD = weights
    metric = FrameMetric(scale_D, proj_PD)
    rvq = fitted(frames_ND, metric)
    loss = rvq(frames_ND)
    difference = (loss.decoded_ND - frames_ND).double() @ metric.map_DD
    assert loss.mse.item() == pytest.approx(difference.square().mean().item(), rel=1e-4)
    assert "metric_DD" not in rvq.state_dict()


def test_embeddings_of_earlier_versions_are_compared_as_they_were(weights, frames_ND, tmp_path):
    folder = write_embeddings(tmp_path, frames_ND, {"frame_scale": weights[0]})
    metric = EmbeddingFolder(folder).metric
    assert metric.output_proj_PD is None and metric.spaces == ["normalized", "raw"]


def test_the_benchmark_has_a_row_for_each_space(weights, frames_ND, tmp_path, capsys):
    tensors = {"frame_scale": weights[0], "output_proj": weights[1]}
    folder = str(write_embeddings(tmp_path, frames_ND, tensors))
    benchmark.main(
        ["--embeddings", folder, "--held-out", folder, "--codebook-size", "4", "--device", "cpu"]
    )
    rows = capsys.readouterr().out.splitlines()
    assert [row[:12].strip() for row in rows[-4:]] == ["x / w", "gain^0", "gain^0.5", "gain^1"]
