"""The published layout is read and written without loss, and broken files are refused in one
line."""

import os
from dataclasses import dataclass

import pytest
import torch

from commands import checkpoint
from commands.atomic_write import write_json
from commands.checkpoint import state_to_save
from commands.errors import InputError
from stage1_rvq.config import RVQConfig
from stage1_rvq.frame_metric import FrameMetric
from stage1_rvq.model import SpeechRVQ, load_rvq
from stage1_rvq.published import (
    AVERAGED_FILE,
    BEST_FILE,
    FINAL_FILE,
    find_published,
    read_sizes,
    write_published,
)

CONFIG = RVQConfig(dim=24, num_codebooks=3, codebook_size=16)
CPU = torch.device("cpu")


def draw_frames(num_frames=800, dim=CONFIG.dim):
    """Clustered frames, as speech is."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(40, dim, generator=generator)
    picks = torch.randint(40, (num_frames,), generator=generator)
    return centres[picks] + 0.3 * torch.randn(num_frames, dim, generator=generator)


def make_rvq(frames_ND):
    """A quantiser in which no map is the identity, no bias zero, no scale one."""
    torch.manual_seed(0)
    rvq = SpeechRVQ(RVQConfig(frames_ND.shape[1], CONFIG.num_codebooks, CONFIG.codebook_size))
    for projection in (rvq.project_in, rvq.project_out):
        torch.nn.init.normal_(projection.bias, std=0.1)
        projection.weight.data += 0.1 * torch.randn_like(projection.weight)
    rvq.init_codebooks(frames_ND, FrameMetric(torch.linspace(0.3, 3.0, frames_ND.shape[1])))
    return rvq.eval()


@pytest.fixture(scope="module")
def frames_ND():
    return draw_frames()


@pytest.fixture(scope="module")
def rvq(frames_ND):
    return make_rvq(frames_ND)


@pytest.fixture
def published(rvq, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    state = state_to_save(rvq)
    write_published(folder, rvq.config, {BEST_FILE: state, FINAL_FILE: state})
    return folder


def foreign_state(rvq, *, maps):
    """Its codebooks under other names, as another wrapper would hold them."""
    state = {"wrapper.ema_counts": torch.zeros(3, 16)}
    for k, layer in enumerate(rvq.quantizer.layers):
        for name, value in layer._codebook.state_dict().items():
            state[f"wrapper.rvq.vq.layers.{k}._codebook.{name}"] = value.reshape(
                (1,) if name == "initted" else value.shape
            )
    for name, tensor in maps.items():
        state[f"wrapper.{name}"] = tensor
    return state


def save(folder, state, **config):
    sizes = {"rvq_dim": 24, "rvq_num_quantizers": 3, "rvq_codebook_size": 16, "lr": 1e-4, **config}
    folder.mkdir(exist_ok=True)
    write_json(folder / "config_stage1.json", sizes)
    torch.save({"rvq": state, "epoch": 3}, folder / "rvq_best.pt")
    return folder


def test_written_and_read_back_the_codes_are_the_same(rvq, published, frames_ND):
    assert sorted(path.name for path in published.iterdir()) == [
        "config_stage1.json", "rvq_best.pt", "rvq_final.pt",
    ]  # fmt: skip
    loaded = load_rvq(str(published), device=CPU)
    assert loaded.config == CONFIG and torch.equal(loaded.frame_scale_D, torch.ones(24))
    codes_NK = rvq.encode(frames_ND)
    assert torch.equal(loaded.encode(frames_ND), codes_NK)
    for k in (1, 3):
        torch.testing.assert_close(
            loaded.decode(codes_NK[:, :k]), rvq.decode(codes_NK[:, :k]), rtol=1e-5, atol=1e-5
        )
    with pytest.raises(InputError, match="embeddings are 32 wide, this RVQ takes 24"):
        loaded.encode(torch.zeros(5, 32))


def test_other_prefixes_and_no_maps(rvq, frames_ND, tmp_path, capsys):
    folder = save(tmp_path / "foreign", foreign_state(rvq, maps={}))
    loaded = load_rvq(str(folder), device=CPU)
    codes_NK = loaded.encode(frames_ND)
    codebooks_KCD = torch.stack([layer._codebook.embed[0] for layer in rvq.quantizer.layers])
    nearest_N = torch.cdist(frames_ND, codebooks_KCD[0]).argmin(dim=1)
    assert torch.equal(codes_NK[:, 0], nearest_N)
    expected_ND = sum(codebooks_KCD[k][codes_NK[:, k]] for k in range(3))
    torch.testing.assert_close(loaded.decode(codes_NK), expected_ND)
    printed = capsys.readouterr().err
    assert "rvq_best.pt: 12 of 13 tensors used" in printed
    assert "not used: wrapper.ema_counts [3, 16]" in printed
    assert "absent: project_in.weight (identity)" in printed
    assert "absent: project_out.bias (zero)" in printed
    assert "cluster_size" not in printed


@pytest.mark.parametrize(
    ("into", "out_of"),
    [("proj_in", "proj_out"), ("input_proj", "output_proj"), ("in_linear.0", "linear.out")],
)
def test_maps_are_told_apart_by_name(rvq, frames_ND, tmp_path, into, out_of):
    w_in, w_out = rvq.project_in.weight.data, rvq.project_out.weight.data
    maps = {f"{into}.weight": w_in, f"{out_of}.weight": w_out, f"{out_of}.bias": torch.ones(24)}
    folder = save(tmp_path / "foreign", foreign_state(rvq, maps=maps))
    loaded = load_rvq(str(folder), device=CPU)
    assert torch.equal(loaded.project_in.weight, w_in)
    assert torch.equal(loaded.project_out.weight, w_out)
    assert torch.equal(loaded.project_in.bias, torch.zeros(24))
    assert torch.equal(loaded.project_out.bias, torch.ones(24))


def test_which_file(rvq, published, frames_ND):
    """The averaged one, which the published card recommends; else the best, else the final one; any
    of them where it is named."""
    other = SpeechRVQ(CONFIG)
    states = {AVERAGED_FILE: rvq, BEST_FILE: other, FINAL_FILE: rvq}
    write_published(published, CONFIG, {name: state_to_save(of) for name, of in states.items()})
    codes_NK = rvq.encode(frames_ND)

    def is_rvq(name):
        return torch.equal(load_rvq(str(name), device=CPU).encode(frames_ND), codes_NK)

    assert [is_rvq(published / name) for name in states] == [True, False, True]
    for name, of in states.items():
        assert is_rvq(published) == (of is rvq)
        (published / name).unlink()
    with pytest.raises(InputError, match=r"no rvq_averaged\.pt or .* there"):
        find_published(published)


def test_a_hub_name_is_downloaded_and_read(rvq, published, frames_ND, monkeypatch):
    monkeypatch.setattr(checkpoint, "snapshot_download", lambda name: str(published))
    loaded = load_rvq("ik/speechless-twi-stage1-rvq-gemma4", device=CPU)
    assert torch.equal(loaded.encode(frames_ND), rvq.encode(frames_ND))


@dataclass
class RunsCode:
    """A pickle of this runs a shell command when it is loaded the usual way."""

    command: str

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_wants_to_run_code(published, tmp_path):
    torch.save({"rvq": RunsCode(f"touch {tmp_path}/ran")}, published / "rvq_best.pt")
    with pytest.raises(InputError, match=r"refused: its pickle wants to run \w+\.system") as caught:
        load_rvq(str(published), device=CPU)
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()


def test_files_that_are_no_checkpoint(published):
    path = published / "rvq_best.pt"
    whole = path.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "cut short"),
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a checkpoint of tensors"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            load_rvq(str(published), device=CPU)
        assert "\n" not in str(caught.value)
    for checkpoint_, message in (
        ({"model": {}}, "no state dict under 'rvq'"),
        ({"rvq": {"lr": 1.0}}, "no state dict under 'rvq'"),
        ([torch.zeros(2)], "expected a dict, got list"),
    ):
        torch.save(checkpoint_, path)
        with pytest.raises(InputError, match=message):
            load_rvq(str(published), device=CPU)


def test_checkpoints_that_do_not_fit(rvq, tmp_path, capsys):
    state = foreign_state(rvq, maps={})
    second = "wrapper.rvq.vq.layers.1._codebook"
    without = {name: tensor for name, tensor in state.items() if name != f"{second}.embed"}
    square = torch.eye(24)
    for number, (tensors, config, message) in enumerate(
        (
            (without, {}, "codebook 1 of 3 is missing"),
            (state, {"rvq_num_quantizers": 4}, "codebook 3 of 4 is missing"),
            (state, {"rvq_dim": 32}, r"embed\S* is \[1, 16, 24\], .* says \[1, 16, 32\]"),
            (state, {"rvq_codebook_size": 8}, r"cluster_size is \[1, 16\], .* says \[1, 8\]"),
            (state, {"rvq_dim": "24"}, "'rvq_dim' must be a valid integer, got '24'"),
            ({**state, "mix.weight": square}, {}, r"mix\.weight \[24, 24\] would change codes"),
            ({**state, "norm.bias": square[0]}, {}, r"norm\.bias \[24\] would change codes"),
            ({**state, "a.in.weight": square, "b.in.weight": square}, {}, "both a.in.weight and"),
            ({**state, f"{second}.initted": torch.tensor([False])}, {}, "before it was trained"),
        )
    ):
        folder = save(tmp_path / str(number), tensors, **config)
        with pytest.raises(InputError, match=message):
            load_rvq(str(folder), device=CPU)
    assert "not used: mix.weight [24, 24]" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"config_stage1\.json: No such file"):
        read_sizes(tmp_path)
