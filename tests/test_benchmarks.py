"""Benchmarks run, and compare what they say they compare; how fast is for a quiet machine."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from allocation import allocate
from conftest import run
from torch import Tensor, nn

from benchmarks import (
    finetune,
    large_corpus,
    rvq,
    shared_cores,
    speechless,
    stage1,
    synthetic_frames,
    timing,
)
from benchmarks.codebook_quality import measure_quality
from benchmarks.equal_size import (
    SHAPES,
    build_model,
    count_parameters,
    count_work,
    generate_codes,
    prefix_tokens,
)
from benchmarks.peak_memory import measure_peak
from benchmarks.simulated_codes import simulate_codes
from benchmarks.speechless import MODELS, SYSTEMS
from benchmarks.synthetic_frames import make_frames
from benchmarks.training_step import TrainingStep, flatten_utterances, make_utterances
from commands.errors import InputError
from data_manifests.manifest import SPLITS, read_manifest, write_manifest

SMALL = SHAPES["small"]()


def test_models_are_of_equal_size() -> None:
    for shape in (make() for make in SHAPES.values()):
        with torch.device("meta"):
            counts = [count_parameters(build_model(name, shape)) for name in MODELS]
        assert counts == pytest.approx([counts[0]] * len(MODELS), rel=0.03)


@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_generates_the_asked_number_of_frames(system: speechless.System) -> None:
    model = build_model(system.model, SMALL)
    for num_frames in (1, 5):
        codes_BTK = generate_codes(
            model, SMALL, 2, num_frames, static_cache=bool(system.static_cache)
        )
        assert codes_BTK.shape == (2, num_frames, SMALL.num_codebooks)
        if system.model != "flattened":
            assert codes_BTK.min() >= 0
            assert codes_BTK.max() < SMALL.codebook_size


def test_csm_goes_on_after_a_frame_of_zeros() -> None:
    """As published it ends there, which would shorten its run."""

    def only_zero(head: nn.Module, inputs: object, logits: Tensor) -> Tensor:
        return torch.full_like(logits, -1e4).index_fill(-1, torch.tensor([0]), 0.0)

    model = build_model("CSM", SMALL)
    for head in (model.lm_head, model.depth_decoder.codebooks_head):
        head.register_forward_hook(only_zero)
    assert torch.equal(generate_codes(model, SMALL, 2, 5), torch.zeros(2, 5, 4, dtype=torch.long))
    model.config.codebook_eos_token_id = 0
    assert generate_codes(model, SMALL, 2, 5).shape[1] == 1


def test_work_counts_the_parameters_that_multiply() -> None:
    """Of one frame of one utterance, each counted as often as a matrix product uses it."""
    for name in MODELS:
        model = build_model(name, SMALL)
        used = 0

        def count(module: nn.Linear, *_: object) -> None:
            nonlocal used
            used += module.weight.numel()

        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(count)
        of_frames = []
        for num_frames in (1, 2):
            used = 0
            generate_codes(model, SMALL, 1, num_frames)
            of_frames.append(used)
        heads = 0 if name == "flattened" else 3 * SMALL.depth_width * SMALL.codebook_size
        wanted = count_work(model, SMALL).parameters_per_frame
        # Norms and the bias of a projection are not the weight of a linear layer.
        assert of_frames[1] - of_frames[0] + heads == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("name", ["Speechless", "flattened"])
def test_training_step_learns(name: str) -> None:
    step = TrainingStep(build_model(name, SMALL), SMALL, make_utterances(SMALL, 2, 4))
    losses = [step() for _ in range(5)]
    assert losses[-1] < losses[0]


def test_flattened_utterances_hold_every_code_in_order() -> None:
    (utterance,) = make_utterances(SMALL, 1, 3)
    batch = flatten_utterances(SMALL, [utterance])
    tokens_L, labels_L = batch["input_ids"][0], batch["labels"][0]
    prefix = prefix_tokens()
    assert tokens_L[: len(prefix)].tolist() == prefix
    codes_TK = build_model("Speechless", SMALL).frame_tokens(utterance.codes_TK)
    assert tokens_L[len(prefix) : -1].tolist() == codes_TK.flatten().tolist()
    assert (labels_L != -100).sum() == 3 * SMALL.num_codebooks + 1


def test_peak_memory_is_the_function_s_own() -> None:
    here = torch.ones(400_000_000, dtype=torch.uint8)
    peak = measure_peak(allocate, 200_000_000, device=torch.device("cpu"))
    if peak is None:
        pytest.skip("neither CUDA nor Linux")
    assert 200_000_000 <= peak < len(here)


def test_command_prints_a_row_for_each_system(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("MATRIX_SIZE", "MATMUL_SIZE"):
        monkeypatch.setattr(timing, size, 64)  # the machine's best is nobody's concern here
    text = run(
        speechless.main, "--size", "small", "--batch-sizes", 1, 2, "--num-frames", 2,
        "--rounds", 1, "--training-utterances", 2, "--training-frames", 3, "--no-memory",
        "--device", "cpu",
    )  # fmt: skip
    for system in SYSTEMS:
        assert text.count(f"\n{system!s:<26}") == 2
    for way in speechless.TRAINING_WAYS:
        assert f"\n{way}" in text


@pytest.fixture(scope="module")
def finetune_step() -> finetune.FinetuneStep:
    config = finetune.BenchmarkConfig(batch_size=1, seconds=0.5, device="cpu")
    return finetune.FinetuneStep(config, torch.device("cpu"))


def test_finetune_prints_both_recipes(
    finetune_step: finetune.FinetuneStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "FinetuneStep", lambda config, device: finetune_step)
    words = ("--batch-size", 1, "--seconds", 0.5, "--rounds", 1, "--no-memory", "--device", "cpu")
    text = run(finetune.main, *words)
    assert [line.split()[0] for line in text.splitlines()] == [
        "1", "s", "codes", "recordings", "recordings",
    ]  # fmt: skip


def test_a_finetune_step_hears_its_speech_in_both_forms(
    finetune_step: finetune.FinetuneStep,
) -> None:
    step = finetune_step
    num_slots = int((step.labels_BS == finetune.NO_LABEL).sum())
    assert step.from_codes()[0].shape == (1, num_slots, 256)
    assert step.from_recordings()[0].shape[-1] == 128
    losses = [step("codes") for _ in range(4)]
    assert losses[-1] < losses[0] and step("recordings") > 0


def test_steps_are_timed_alone_and_beside_busy_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_cores, "NUM_UTTERANCES", 2)  # of 16, in this process
    seconds = shared_cores.measure_steps(seconds=10.0, max_steps=2)
    assert len(seconds) == 2 and min(seconds) > 0
    assert len(shared_cores.measure_steps(seconds=1e-6, max_steps=2)) == 1

    # One of the six processes is a real one.
    others = iter((0.5, 0.01, 0.02, 0.03, 0.04))
    measure = shared_cores._measure_in_process

    def last_of_six(way: shared_cores.Way, config: shared_cores.BenchmarkConfig) -> float:
        return next(others, 0) or measure(way, config)

    monkeypatch.setattr(shared_cores, "_measure_in_process", last_of_six)
    monkeypatch.setattr(shared_cores, "busy_cores", contextlib.nullcontext)
    rows = run(shared_cores.main, "--seconds", 1e-6, "--max-steps", 1).splitlines()
    ways = ["spinning", "sleeping at once", "spinning for a moment"]
    assert [row[:31].split(",")[0].strip() for row in rows[2:]] == ways
    assert all(row.endswith("x") for row in rows[2:])


def test_quality_is_of_frames_that_were_not_trained_on() -> None:
    """Codebooks that are the training frames themselves fit those exactly, and no others."""
    train_ND, held_out_ND = make_frames(64, seed=1), make_frames(640, seed=3)
    ours = measure_quality(lambda x_ND: [x_ND], train_ND, held_out_ND)
    assert ours.errors[0] > 0.2 and ours.errors == pytest.approx((ours.errors[0],) * 2)
    exact = measure_quality(lambda x_ND: [x_ND], train_ND, train_ND)
    assert exact.errors[0] < 1e-6 and exact.used == 1 and exact.entropy == pytest.approx(1)


def test_quality_of_several_sets_in_one_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_frames, "DIM", 64)  # of 1024, k-means' directions take long
    words = ("--quality", "--codebook-size", 16, "--num-sets", 2, "--steps", 1)
    with pytest.raises(InputError, match="faiss"):  # not installed, or too few frames for it
        rvq.main([str(word) for word in words])
    assert "2 sets of 320 training and 1,600 held-out frames" in capsys.readouterr().out


def test_large_corpora_are_simulated_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The training is a process of its own; opening the corpus need not be one more.
    monkeypatch.setattr(large_corpus, "in_own_process", lambda call, *given: call(*given))
    words = ("--hours", 1, "--steps", 1, "--folder", tmp_path)
    row = run(large_corpus.main, *words).splitlines()[-1].replace(",", "").split()
    assert row[:2] == ["1", "600"]
    start_s, memory_mb, anonymous_mb, steps_a_second = map(float, row[5:])
    assert start_s > 0 and steps_a_second > 0 and memory_mb > anonymous_mb > 50
    written = (tmp_path / "codes-1h" / "done").stat().st_mtime_ns
    assert simulate_codes(tmp_path / "codes-1h", 1) == tmp_path / "codes-1h"
    assert (tmp_path / "codes-1h" / "done").stat().st_mtime_ns == written


def test_stage1_prints_memory_and_time_of_every_command(
    tiny_models: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(function: Callable[..., object], *arguments: object, **_: object) -> int:
        function(*arguments)
        return 123_000_000

    monkeypatch.setattr(stage1, "measure_peak", here)
    for split in SPLITS:
        rows = [
            replace(row, audio=str(corpus / row.audio))
            for row in read_manifest(corpus / f"{split}.jsonl")
        ]
        write_manifest(tmp_path / f"{split}.jsonl", rows[:6])
    text = run(
        stage1.main, "--data", tmp_path, "--gemma", tiny_models / "gemma", "--steps", 1,
        "--dtypes", "float32",
    )  # fmt: skip
    commands = ["embed"] * 3 + ["train_recognizer", "train", "evaluate"] + ["tokenize_corpus"] * 3
    rows = [line.split() for line in text.splitlines() if "stage1_rvq." in line]
    assert [row[0] for row in rows] == [f"stage1_rvq.{command}" for command in commands]
    assert all(row[3:] == ["123", "MB"] for row in rows)
