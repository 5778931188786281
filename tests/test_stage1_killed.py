"""`kill -9` while a corpus is encoded, or a model trained, then `--resume`: the bytes of a run that
was left alone."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, run

from data_manifests.manifest import Utterance, read_manifest, write_manifest
from stage1_rvq import corpus_encoder, embed, tokenize_corpus, train, train_reader
from stage1_rvq.model import RVQConfig, SpeechRVQ

SHARD = 4
CHILD = f"""
import sys
import importlib
from stage1_rvq import corpus_encoder
corpus_encoder.UTTERANCES_PER_SHARD = {SHARD}
importlib.import_module(f"stage1_rvq.{{sys.argv[1]}}").main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def manifest(corpus, tmp_path_factory):
    """Twelve shards and a bit: the demo's recordings, over and over."""
    rows = list(read_manifest(corpus / "train.jsonl"))
    many = [
        Utterance(**{**vars(rows[i % len(rows)]), "id": f"u{i}", "origin": ""})
        for i in range(12 * SHARD + 1)
    ]
    path = tmp_path_factory.mktemp("many") / "many.jsonl"
    write_manifest(path, many)
    return path


@pytest.fixture(scope="module")
def rvq(tiny_models, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("rvq") / "rvq"
    SpeechRVQ(RVQConfig(dim=64, num_codebooks=2, codebook_size=16)).save_pretrained(folder)
    return folder


def start_and_kill(command, words, out, pattern):
    """Kill a command of its own process at the second file that matches."""
    name = command.__name__.rsplit(".", 1)[1]
    line = [sys.executable, "-c", CHILD, name, *map(str, words), "--out", str(out)]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL)
    while len(list(out.glob(pattern))) < 2:
        assert process.poll() is None, f"ended before its second {pattern}"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL and not (out / "done").exists()


@pytest.mark.parametrize(
    ("command", "pattern"),
    [(embed, "shard_*.safetensors"), (tokenize_corpus, "codes_*.parquet")],
)
def test_killed_and_resumed_equals_straight(
    command, pattern, manifest, tiny_models, rvq, tmp_path, monkeypatch
):
    monkeypatch.setattr(corpus_encoder, "UTTERANCES_PER_SHARD", SHARD)
    words = ["--manifest", manifest, "--gemma", tiny_models / "gemma", "--device", "cpu"]
    words += ["--rvq", rvq] if command is tokenize_corpus else []
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run(command.main, *words, "--out", straight)

    start_and_kill(command, words, killed, pattern)
    first = min(killed.glob(pattern))
    written_ns = first.stat().st_mtime_ns
    run(command.main, *words, "--out", killed, "--resume")
    assert first.stat().st_mtime_ns == written_ns  # kept, not made again
    files = {path.name: path.read_bytes() for path in straight.glob(pattern)}
    assert len(files) == 13
    assert {path.name: path.read_bytes() for path in killed.glob(pattern)} == files


@pytest.fixture(scope="module")
def embeddings(corpus, tiny_models, tmp_path_factory):
    out = tmp_path_factory.mktemp("embeddings") / "train"
    words = ("--manifest", corpus / "train.jsonl", "--gemma", tiny_models / "gemma")
    run(embed.main, *words, "--device", "cpu", "--out", out)
    return out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (train, ("--codebook-size", 16, "--num-codebooks", 2, "--batch-frames", 256)),
        (train_reader, ("--num-units", 64, "--width", 32, "--batch-size", 4)),
    ],
)
def test_training_killed_and_resumed_equals_straight(command, words, embeddings, tmp_path):
    words = (*words, "--embeddings", embeddings, "--dev-embeddings", embeddings)
    words += ("--steps", 60, "--save-every", 5, "--device", "cpu")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run(command.main, *words, "--out", straight)
    start_and_kill(command, words, killed, "checkpoints/step_*/step.json")
    run(command.main, *words, "--out", killed, "--resume")
    files = sorted(straight.glob("model/*.safetensors")) + sorted(
        straight.glob("checkpoints/*/model.safetensors")
    )
    assert len(files) >= 2
    for path in files:
        assert (killed / path.relative_to(straight)).read_bytes() == path.read_bytes(), path
