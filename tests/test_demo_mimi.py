"""The demo's Mimi: a few steps through all phases, at full size on little speech."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import MimiModel

pytest.importorskip("espeakng_loader", reason="the demo speaks through espeak-ng")
pytest.importorskip("pystoi", reason="the codec is judged by STOI")

from conftest import run

from commands.errors import InputError
from demo.mimi import evaluate as evaluate_mimi
from demo.mimi import speech as mimi_speech
from demo.mimi import train as train_mimi
from demo.mimi.losses import LatentProbes, SpectralLoss
from demo.mimi.model import build_mimi, copy_mimi, save_mimi
from demo.mimi.quantizer import CodebookTrainer
from demo.mimi.train import TrainMimiConfig
from speech_head.mimi import Mimi, load_mimi

# N samples (24,000 per second), D latent width, F Mimi frames, K codebooks, V vectors

SHIPPED = Path(__file__).resolve().parents[1] / "demo" / "weights" / "mimi"
SMALL = (
    "--steps", 6, "--num-sentences", 24, "--batch-size", 2, "--segment-frames", 4,
    "--kmeans-latents", 600, "--num-dev", 2, "--eval-every", 100, "--save-every", 4,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def same_speech() -> None:
    """One recording of every text for the whole module: what espeak-ng says depends a little on
    what it said before, so that only a fresh process repeats it exactly."""
    speak_texts = functools.cache(lambda texts, seed: mimi_speech.speak_texts(texts, seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            train_mimi, "speak_texts", lambda texts, seed: speak_texts(tuple(texts), seed)
        )
        yield


@pytest.fixture(scope="module")
def straight_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mimi") / "run"
    run(train_mimi.main, "--out", out, *SMALL)
    return out


def newest_checkpoint(folder: Path) -> dict[str, Tensor]:
    return load_file(sorted((folder / "checkpoints").iterdir())[-1] / "model.safetensors")


def test_saved_model_is_a_stock_mimi_in_float16(straight_run: Path) -> None:
    file = straight_run / "model" / "model.safetensors"
    saved = load_file(file)
    assert {t.dtype for t in saved.values() if t.is_floating_point()} == {torch.float16}
    assert file.stat().st_size < 6e6
    model, report = MimiModel.from_pretrained(
        straight_run / "model", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.num_quantizers == 8 and model.config.frame_rate == 12.5
    usages = [value for name, value in saved.items() if name.endswith("cluster_usage")]
    assert len(usages) == 8 and all((usage == 1).all() for usage in usages)


def test_resumed_run_equals_a_straight_one(straight_run: Path, tmp_path: Path) -> None:
    """As if it had been killed after step 4, the first with the decoder alone."""
    out = shutil.copytree(straight_run, tmp_path / "run")
    (out / "done").unlink()
    shutil.rmtree(out / "model")
    last = sorted((out / "checkpoints").iterdir())[-1]
    assert last.name == "step_000006"
    shutil.rmtree(last)
    run(train_mimi.main, "--out", out, *SMALL, "--resume")
    resumed, straight = newest_checkpoint(out), newest_checkpoint(straight_run)
    assert resumed.keys() == straight.keys()
    assert [name for name in straight if not torch.equal(resumed[name], straight[name])] == []


def test_resume_refuses_other_speech(straight_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainMimiConfig(out=straight_run)
    clips = mimi_speech.speak_texts(["Me din de Kofi."], seed=0)
    with pytest.raises(InputError, match="it began with other speech"):
        train_mimi.refuse_other_speech(config, mimi_speech.SpeechSegments(clips))


def test_each_phase_moves_what_it_should(tmp_path: Path) -> None:
    config = TrainMimiConfig(out=tmp_path, steps=3, batch_size=2, segment_frames=4)
    torch.manual_seed(0)
    training = train_mimi.MimiTraining(config, num_phonemes=5)
    training.codebooks.begin(torch.randn(600, 128), vectors_per_step=8)
    optimizer = torch.optim.AdamW(training.parameters(), 1e-3)
    x_BN, labels_BT = 0.1 * torch.randn(2, 4 * 1920), torch.randint(5, (2, 16))
    spectral_loss = SpectralLoss()
    for step in range(3):
        before = {name: value.clone() for name, value in training.state_dict().items()}
        training.begin_phase(step, config)
        loss, _ = train_mimi.compute_loss(training, spectral_loss, x_BN, labels_BT, step, config)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after = training.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        learned = {name for name, _ in training.named_parameters()}
        averaged = {name for name in before if name.endswith(("embed_sum", "cluster_usage"))}
        if step == 0:
            assert moved == learned
        elif step == 1:
            assert moved == learned | averaged | {"codebooks.recent_KVC"}
        else:
            assert moved == {name for name in learned if name.startswith("mimi.decoder.")}


def test_training_and_stock_quantiser_agree() -> None:
    torch.manual_seed(0)
    model = build_mimi()
    codebooks = CodebookTrainer(model.quantizer, decay=0.99, dead_share=0.03)
    shares_left = codebooks.begin(torch.randn(2000, 128), vectors_per_step=64)
    assert shares_left[0] < 1 and sorted(shares_left[1:], reverse=True) == shares_left[1:]
    latents_BDF = torch.randn(2, 128, 7)
    ours = codebooks.quantize(latents_BDF, learn=False, dropout=0).latents_BDF
    codes_KBF = model.quantizer.encode(latents_BDF)
    stock = model.quantizer.decode(codes_KBF.transpose(0, 1))
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-4)


def test_codebooks_follow_the_latents_and_dead_codes_begin_again() -> None:
    torch.manual_seed(0)
    model = build_mimi()
    codebooks = CodebookTrainer(model.quantizer, decay=0.9, dead_share=0.03)
    codebooks.begin(torch.randn(600, 128), vectors_per_step=64)
    moved_BDF = torch.randn(8, 128, 8) + 3
    distances = [
        codebooks.quantize(moved_BDF, learn=True, dropout=0).commitment.item() for _ in range(60)
    ]
    assert distances[-1] < distances[0] / 3
    assert codebooks.num_replaced > 0


def test_saving_keeps_the_codes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_mimi()
    CodebookTrainer(model.quantizer, decay=0.99, dead_share=0.03).begin(
        3 * torch.randn(2000, 128), vectors_per_step=64
    )
    x_N = 0.1 * torch.randn(20 * 1920)
    save_mimi(model, tmp_path / "mimi")
    before_FK = Mimi(copy_mimi(model)).encode([x_N])[0]
    after_FK = load_mimi(tmp_path / "mimi").encode([x_N])[0]
    assert (before_FK[:, 0] == after_FK[:, 0]).float().mean() > 0.9


def test_spectral_loss_is_zero_for_the_same_and_less_for_the_nearer() -> None:
    torch.manual_seed(0)
    loss = SpectralLoss()
    x_BN = 0.1 * torch.randn(1, 9600)
    assert loss(x_BN, x_BN)[0] == 0
    assert loss(0.9 * x_BN, x_BN)[0] < loss(0.5 * x_BN, x_BN)[0]
    silent_BN = torch.zeros(1, 9600, requires_grad=True)
    loss(silent_BN, x_BN)[0].backward()
    assert silent_BN.grad is not None and silent_BN.grad.isfinite().all()


def test_probes_take_four_labels_a_frame() -> None:
    torch.manual_seed(0)
    probes = LatentProbes(latent_dim=128, semantic_dim=64, num_phonemes=5)
    with torch.no_grad():
        probes.phonemes.weight.zero_()
        probes.phonemes.bias.zero_()
        probes.phonemes.bias[:5] = torch.tensor([0.0, 0, 50, 0, 0])  # the first label is a 2
    labels_BT = torch.tensor([[2, 0, 0, 0, 2, 0, 0, 0]])
    loss = probes.phoneme_loss(torch.randn(1, 64, 2), labels_BT)
    assert loss.item() == pytest.approx(0.75 * torch.tensor(5.0).log().item())
    assert probes.band_loss(torch.randn(1, 128, 2), torch.randn(1, 3840)).isfinite()


def test_labels_lie_where_the_phonemes_are() -> None:
    clip = mimi_speech.speak_texts(["Papa, papa."], seed=0)[0]
    assert len(clip.samples_N) == 480 * len(clip.labels_T)
    assert clip.labels_T[0] == clip.labels_T[-1] == mimi_speech.PAUSE
    loudness = {"a": [], mimi_speech.PAUSE: []}
    for t, label in enumerate(clip.labels_T):
        if label in loudness:
            samples_N = clip.samples_N[t * 480 : (t + 1) * 480].astype(float)
            loudness[label].append((samples_N**2).mean() ** 0.5)
    assert min(map(len, loudness.values())) >= 4
    median_vowel, median_pause = (sorted(x)[len(x) // 2] for x in loudness.values())
    assert median_vowel > 10 * median_pause


def test_held_out_texts_are_not_trained_on() -> None:
    trained = set(mimi_speech.training_texts(4000, seed=0))
    test, dev = (mimi_speech.held_out_texts(split, 1000) for split in ("test", "dev"))
    assert 1000 > len(test) == len(set(test)) >= 100
    assert not trained & {*test, *dev} and not set(test) & set(dev)


def test_evaluation_measures_both_voices(straight_run: Path, tmp_path: Path) -> None:
    table = run(
        evaluate_mimi.main, "--mimi", straight_run / "model", "--num-utterances", 4,
        "--num-streamed", 2, "--out", tmp_path / "figures.json",
    )  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["max_stream_difference"] < 1e-4
    assert figures["num_utterances"] == 4 and len(figures["used_K"]) == 8
    assert figures["periodicity_original"] > 0.85  # monotone: 100 Hz and 200 Hz exactly
    assert figures["stoi_min"] <= figures["stoi"] < 0.8  # 6 steps are no training
    assert "STOI" in table and "perplexity" in table


def test_shipped_mimi_keeps_speech_intelligible() -> None:
    """It is measured in demo/weights/mimi/training; this leaves room for other espeak-ngs."""
    mimi = load_mimi(SHIPPED)
    clips = mimi_speech.speak_texts(mimi_speech.held_out_texts("test", 6), seed=1)
    figures = evaluate_mimi.measure_codec(mimi, clips)
    assert figures.stoi > 0.9 and figures.log_mel_l1 < 0.25
    assert figures.periodicity > figures.periodicity_original - 0.05
    assert evaluate_mimi.streaming_difference(mimi, clips[:2]) < 1e-4


def test_original_codec_figures_are_perfect() -> None:
    """The measures themselves: speech compared with itself."""
    clips = mimi_speech.speak_texts(["Me din de Kofi.", "Ɛte sɛn?"], seed=0)
    figures = evaluate_mimi.measure_codec(Unchanged(), clips)
    assert figures.stoi == pytest.approx(1) and figures.log_mel_l1 == 0
    assert figures.periodicity == figures.periodicity_original


class Unchanged:
    """A codec that loses nothing: it remembers what it encoded."""

    codebook_size = 2

    def encode(self, waveforms: list[Tensor]) -> list[Tensor]:
        (self.x_N,) = waveforms
        return [torch.zeros(len(self.x_N) // 1920 + 1, 8, dtype=torch.int64)]

    def decode(self, codes_FK: Tensor, num_samples: int) -> Tensor:
        return self.x_N[:num_samples]
