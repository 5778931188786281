"""The task loss passes gradients to the quantiser, never to the recogniser; noise figures are
known."""

import json

import numpy as np
import pytest
import torch
from conftest import run

from commands.errors import InputError
from commands.processes import Processes
from stage1_rvq import embed, evaluate, task_loss, train, train_recognizer
from stage1_rvq.config import RVQConfig
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.model import SpeechRVQ
from stage1_rvq.noise_robustness import add_white_noise, edit_distances
from stage1_rvq.recognizer import load_recognizer
from stage1_rvq.task_loss import TaskLoss

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(corpus, tiny_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    words = ("--manifest", corpus / "train.jsonl", "--gemma", tiny_models / "gemma")
    run(embed.main, *words, "--out", folder / "embeddings")
    words = ("--embeddings", folder / "embeddings", "--num-units", 64, "--width", 32)
    words = (*words, "--batch-size", 8, "--steps", 3, "--warmup-steps", 1, "--device", "cpu")
    run(train_recognizer.main, *words, "--out", folder / "recognizer")
    return folder


@pytest.fixture(scope="module")
def task(world):
    embeddings = EmbeddingFolder(world / "embeddings")
    return TaskLoss(world / "recognizer", embeddings, batch_size=4, seed=0, device=CPU)


def test_the_frozen_recognizer_reads_as_in_evaluation(world, task):
    utterances = task.utterances(0)
    frames = [task.embeddings.read(u) for u in utterances]
    lengths_B = torch.tensor([len(f) for f in frames])
    padded_BTD = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
    expected_BTV = load_recognizer(world / "recognizer", device=CPU)(padded_BTD, lengths_B)
    torch.testing.assert_close(task.recognizer(padded_BTD, lengths_B), expected_BTV)


def test_gradients_reach_the_linear_maps_only(task):
    torch.manual_seed(0)
    rvq = SpeechRVQ(RVQConfig(dim=task.embeddings.dim, num_codebooks=2, codebook_size=8))
    rvq.init_codebooks(task.embeddings.sample(200, seed=0), task.embeddings.metric)
    utterances = task.utterances(0)
    loss = task(utterances, rvq.train()(task.frames(utterances)).decoded_ND)
    loss.backward()
    assert loss > 0
    for projection in (rvq.project_in, rvq.project_out):
        assert projection.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in task.recognizer.parameters())


def test_processes_share_the_batch(task):
    whole = [u.id for u in task.utterances(3)]
    halves = [Processes(rank, 2).own(whole) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == sorted(whole) and len(halves[0]) == 2


def test_one_usable_utterance_is_enough(world, tmp_path, monkeypatch):
    for module in (train_recognizer, task_loss):
        monkeypatch.setattr(module, "find_usable", lambda *_: torch.tensor([3]))
    embeddings = EmbeddingFolder(world / "embeddings")
    task = TaskLoss(world / "recognizer", embeddings, batch_size=4, seed=0, device=CPU)
    assert [u.id for u in task.utterances(5)] == [embeddings.utterances[3].id]
    words = ("--embeddings", world / "embeddings", "--num-units", 64, "--width", 32, "--steps", 2)
    words = (*words, "--warmup-steps", 1, "--device", "cpu", "--out", tmp_path / "recognizer")
    run(train_recognizer.main, *words)
    assert (tmp_path / "recognizer" / "done").exists()


def test_train_command_logs_it(world, corpus, tiny_models, tmp_path):
    words = (
        "--embeddings",
        world / "embeddings",
        "--recognizer",
        world / "recognizer",
        "--device",
        "cpu",
    )
    words = (*words, "--codebook-size", 8, "--num-codebooks", 2, "--batch-frames", 64)
    run(train.main, *words, "--task-utterances", 2, "--steps", 2, "--out", tmp_path / "rvq")
    entries = [json.loads(line) for line in (tmp_path / "rvq" / "metrics.jsonl").open()]
    assert all(entry["task"] > 0 for entry in entries if entry["split"] == "train")
    words = ("--rvq", tmp_path / "rvq", "--embeddings", world / "embeddings")
    words = (*words, "--manifest", corpus / "dev.jsonl", "--gemma", tiny_models / "gemma")
    run(evaluate.main, *words, "--out", tmp_path / "metrics")
    distances = json.loads((tmp_path / "metrics" / "metrics.json").read_text())[
        "unit_edit_distance"
    ]
    assert set(distances) == {"20", "30"} and len(distances["20"]) == 2
    assert sum(distances["30"]) < sum(distances["20"]) <= 2
    with pytest.raises(InputError, match="--manifest and --gemma go together"):
        run(evaluate.main, *words[:4], "--gemma", "x", "--out", tmp_path / "other")


def test_edit_distance_of_known_codes():
    a, b = torch.tensor([[1, 1], [2, 1], [3, 1]]), torch.tensor([[2, 1], [3, 1]])
    assert edit_distances(a, b).tolist() == [1.0, 1.0]
    assert edit_distances(a, a).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("decibels", [20, 30])
def test_noise_has_the_power_it_says(decibels):
    samples = np.sin(np.arange(200_000) / 7).astype(np.float32)
    noisy = add_white_noise(samples, decibels, np.random.default_rng(0))
    ratio = np.mean(samples**2) / np.mean((noisy - samples) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(decibels, abs=0.1)
    assert noisy.dtype == np.float32
