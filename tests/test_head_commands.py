"""Stage 4 on tiny models: states and training."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from conftest import run
from head_world import QUESTION, SMALL, make_head, make_states, models
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from commands import table_copies
from commands.checkpoint import list_checkpoints
from commands.errors import InputError
from data_manifests.manifest import read_manifest, write_manifest
from speech_head import evaluate, speak, train
from speech_head.answer import answer_states
from speech_head.data import StatesFolder
from speech_head.dev_set import DevSpeech
from speech_head.mimi import load_mimi, tiny_mimi
from speech_head.model import load_head
from speech_head.speech import Speech
from speech_head.state_statistics import measure_states
from speech_head.stream import Sampling
from speech_head.talker import tokenize_within_limit
from stage1_rvq import corpus_encoder
from stage3_finetune.dialogue import Turn


def test_states_hold_text_speech_and_their_alignment(head_world):
    folder = StatesFolder(head_world / "states")
    utterances = list(read_manifest(head_world / "train.jsonl"))
    assert [u.id for u in folder.utterances] == [u.id for u in utterances]
    for cached, utterance in zip(folder.utterances, utterances, strict=True):
        example = folder.read(cached)
        assert len(example.codes_FK) == -(-soundfile.info(utterance.audio).frames // 1920)
        assert len(example.cursor_F) == len(example.codes_FK) + 1
        assert example.cursor_F[-1] == len(example.states_SLD) - 1
        assert example.states_SLD.shape[1:] == (6, 64) and example.embeddings_SD.shape[1] == 64


def test_cached_states_are_those_of_the_same_text(head_world, talker):
    folder = StatesFolder(head_world / "states")
    cached = folder.utterances[-1]
    text = tokenize_within_limit(cached.text, talker.tokenizer)
    [tokens] = answer_states(talker.conversation.model, [text])
    example = folder.read(cached)
    for found, expected in (
        (example.states_SLD, tokens.states_SLD), (example.embeddings_SD, tokens.embeddings_SD),
    ):  # fmt: skip
        torch.testing.assert_close(found, expected.bfloat16().float(), atol=1e-2, rtol=1e-2)


def test_interrupted_states_are_completed_and_bad_rows_listed(head_world, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_encoder, "UTTERANCES_PER_SHARD", 4)
    rows = list(read_manifest(head_world / "train.jsonl"))
    soundfile.write(tmp_path / "short.wav", np.full(2400, 0.1, np.float32), 24_000)
    bad = replace(rows[1], audio=str(tmp_path / "short.wav"), duration_s=0.1)
    write_manifest(tmp_path / "train.jsonl", [rows[0], bad, *rows[2:]])
    words = ("--manifest", tmp_path / "train.jsonl")
    make_states(head_world, tmp_path / "whole", *words)
    [skipped] = (tmp_path / "whole" / "skipped.jsonl").read_text("utf-8").splitlines()
    assert "units need" in json.loads(skipped)["reason"]
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for name in ("done", "shard_00001.jsonl"):
        (tmp_path / "resumed" / name).unlink()
    make_states(head_world, tmp_path / "resumed", *words, "--resume")
    for path in sorted((tmp_path / "whole").glob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes()
    assert len(StatesFolder(tmp_path / "resumed").utterances) == 5


def test_states_are_read_from_a_copy_and_batched_by_frames(head_world, tmp_path, monkeypatch):
    in_memory = StatesFolder(head_world / "states")
    shutil.copytree(head_world / "states", tmp_path / "states")
    monkeypatch.setattr(table_copies, "IN_MEMORY_BYTES", 0)
    mapped = StatesFolder(tmp_path / "states")
    assert len(list(tmp_path.glob("states.*.arrow"))) == 1
    assert list(mapped.utterances) == list(in_memory.utterances)
    assert mapped.num_frames == in_memory.num_frames == sum(in_memory.num_frames_N)
    for utterance in mapped.utterances:
        pair = [vars(folder.read(utterance)) for folder in (mapped, in_memory)]
        assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])
    words = ("--states", tmp_path / "states", "--out", tmp_path / "head", *SMALL)
    run(train.main, *words, "--batch-frames", mapped.num_frames_N.max())
    with pytest.raises(InputError, match="--batch-frames 3: the longest utterance takes"):
        run(train.main, *words[:3], tmp_path / "other", *SMALL, "--batch-frames", 3)


# Training


def test_a_resumed_run_equals_a_straight_one(head_world, tmp_path):
    make_head(head_world, tmp_path / "straight", "--steps", 4)
    make_head(head_world, tmp_path / "resumed", "--steps", 4)
    for path in ("done", "model"):
        target = tmp_path / "resumed" / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    shutil.rmtree(list_checkpoints(tmp_path / "resumed")[-1])
    make_head(head_world, tmp_path / "resumed", "--steps", 4, "--resume")
    for path in sorted((tmp_path / "straight" / "checkpoints").glob("*/model.safetensors")):
        resumed = tmp_path / "resumed" / path.relative_to(tmp_path / "straight")
        assert path.read_bytes() == resumed.read_bytes()
    logs = [(tmp_path / n / "metrics.jsonl").read_text("utf-8") for n in ("straight", "resumed")]
    assert logs[0] == logs[1]


def test_training_lowers_the_loss(head_world):
    dev = [entry["loss"] for entry in dev_entries(head_world / "head")]
    assert dev[-1] < 0.8 * dev[0]


def test_the_log_tells_what_is_read(head_world):
    """How much each layer counts in the mix, and how much of a token is Gemma's states."""
    for entry in dev_entries(head_world / "head"):
        shares = [value for name, value in entry.items() if name.startswith("layer_")]
        assert len(shares) == 6 and sum(shares) == pytest.approx(1)
        assert 0 < entry["gate"] < 1


def test_states_computed_on_the_fly_are_those_of_the_cache(head_world, tmp_path):
    """So a run on either learns the same."""
    asked = '{"messages": [{"role": "user", "content": "Ɛhe?"}]}\n'
    (tmp_path / "dialogues.jsonl").write_text(asked, encoding="utf-8")
    put = ("--dialogues", tmp_path / "dialogues.jsonl", "--layers", "two_thirds")
    make_states(head_world, tmp_path / "cached", *put)
    make_states(head_world, tmp_path / "texts", "--no-states", *put)
    live = ("--on-the-fly",)
    for name, words in (("cached", ()), ("texts", live)):
        folder = tmp_path / name
        states_of = ("--states", folder, "--dev-states", folder)
        make_head(head_world, tmp_path / f"on-{name}", *states_of, *words)
    [cached], [computed] = (dev_entries(tmp_path / f"on-{name}") for name in ("cached", "texts"))
    assert cached.pop("split") == computed.pop("split")
    assert computed == pytest.approx(cached, rel=1e-3)
    with pytest.raises(InputError, match="has states: omit --on-the-fly"):
        make_head(head_world, tmp_path / "x", *live)
    other = ("--states", tmp_path / "texts", "--dev-states", tmp_path / "cached")
    with pytest.raises(InputError, match="cached has states: omit"):
        make_head(head_world, tmp_path / "x", *other, *live)
    assert not (tmp_path / "x").exists()


def test_one_layer_at_two_thirds_of_the_depth(head_world, tmp_path):
    """Cached, trained on and spoken from; a head that reads other layers is not compared with."""
    words = make_states(head_world, tmp_path / "states", "--layers", "two_thirds")
    assert StatesFolder(tmp_path / "states").format.layers == [-4], words
    states_of = ("--states", tmp_path / "states", "--dev-states", tmp_path / "states")
    make_head(head_world, tmp_path / "head", *states_of)
    assert [name for name in dev_entries(tmp_path / "head")[0] if "layer" in name] == ["layer_-4"]
    words = ("--head", tmp_path / "head", *models(head_world)[2:])
    short = ("--max-new-tokens", 3, "--cut-long-answers")
    run(speak.main, *words, "--prompt", QUESTION, *short, "--out", tmp_path / "answer.wav")
    assert (tmp_path / "answer.wav").exists()
    with pytest.raises(InputError, match="--dev-states has layers"):
        make_head(head_world, tmp_path / "x", *states_of[:3], head_world / "states")
    make_head(head_world, tmp_path / "parallel", "--architecture", "parallel")
    other = ("--parallel-head", tmp_path / "parallel", "--manifest", head_world / "train.jsonl")
    with pytest.raises(InputError, match="read different layers"):
        recognizer = ("--recognizer", head_world / "recognizer")
        run(evaluate.main, *words, *other, *recognizer, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_dev_texts_are_spoken_and_read_back_while_training(head_world, tmp_path):
    judge = ("--recognizer", head_world / "recognizer", "--num-dev-sentences", 1)
    judge = (*judge, *models(head_world)[2:])
    make_head(head_world, tmp_path / "judged", "--steps", 4, *judge)
    dev = dev_entries(tmp_path / "judged")
    assert [entry["step"] for entry in dev] == [2, 4]
    assert all({"loss", "wer", "cer", "runaway", "cut_short"} <= entry.keys() for entry in dev)


def test_the_checkpoint_kept_is_the_one_best_understood(head_world, tmp_path, monkeypatch):
    rates = iter([0.5, 0.2, 0.9])
    monkeypatch.setattr(train, "measure_speech", lambda *a, **b: DevSpeech(0, next(rates), 0, 0))
    judge = ("--recognizer", head_world / "recognizer", *models(head_world)[2:])
    make_head(head_world, tmp_path / "judged", "--steps", 6, *judge)
    kept = load_file(tmp_path / "judged" / "model" / "model.safetensors")
    checkpoint = list_checkpoints(tmp_path / "judged")[-2]
    assert checkpoint.name == "step_000004"
    saved = load_file(checkpoint / "model.safetensors")
    assert kept.keys() == saved.keys() and all(torch.equal(kept[n], saved[n]) for n in kept)


def test_a_judge_that_does_not_fit_is_refused(head_world, tmp_path):
    judge = ("--recognizer", head_world / "recognizer", *models(head_world)[2:])
    with pytest.raises(InputError, match="--recognizer needs --dev-states"):
        run(train.main, "--states", head_world / "states", "--out", tmp_path / "a", *SMALL, *judge)
    coarse = tmp_path / "coarse"
    model = tiny_mimi()
    model.config.codebook_size //= 2
    type(model)(model.config).save_pretrained(coarse)
    with pytest.raises(InputError, match=r"--mimi has codebook_size = \d+, --states was"):
        make_head(head_world, tmp_path / "a", *judge, "--mimi", coarse)
    with pytest.raises(InputError, match="--history-dropout must be less than 1, got 1"):
        make_head(head_world, tmp_path / "a", "--history-dropout", 1)
    assert not (tmp_path / "a").exists()


def dev_entries(run_folder):
    entries = [json.loads(line) for line in (run_folder / "metrics.jsonl").open("rb")]
    return [entry for entry in entries if entry["split"] == "dev"]


def test_gemma_and_mimi_stay_as_they_were(head_world, talker, tiny_models):
    list(Speech(talker, Sampling()).say(talker.answer(Turn("user", QUESTION))))
    talker.conversation.turns.clear()
    saved_gemma = load_file(head_world / "gemma" / "model.safetensors")
    saved_mimi = load_mimi(tiny_models / "mimi").model.state_dict()
    for model, saved in (
        (talker.conversation.model, saved_gemma), (talker.mimi.model, saved_mimi),
    ):  # fmt: skip
        kept = model.state_dict()
        assert len(saved) > 100 and all(torch.equal(kept[name], saved[name]) for name in saved)
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_states_and_settings_that_do_not_fit_are_refused(head_world, tmp_path):
    with pytest.raises(InputError, match="--codebook-weights has 2 numbers, the states have 8"):
        make_head(head_world, tmp_path / "a", "--codebook-weights", 2, 1)
    make_states(head_world, tmp_path / "four", "--num-codebooks", 4)
    with pytest.raises(InputError, match="--dev-states has num_codebooks = 4, --states has 8"):
        make_head(head_world, tmp_path / "b", "--dev-states", tmp_path / "four")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_heads_of_before_read_states_as_before(head_world, tmp_path):
    """Which are at unit RMS, and not standardised; so does a head that starts from one."""
    model = head_world / "head" / "model"
    older = shutil.copytree(model, tmp_path / "older")
    settings = json.loads((model / "config.json").read_text())
    assert settings.pop("standardizes") is True
    (older / "config.json").write_text(json.dumps(settings))
    weights = load_file(model / "model.safetensors")
    statistics = {name: weights.pop(name) for name in ("state_mean_LD", "state_std_LD")}
    measured = measure_states(StatesFolder(head_world / "states"))
    assert torch.equal(statistics["state_mean_LD"], measured.mean_LD)
    assert torch.equal(statistics["state_std_LD"], measured.std_LD)
    save_file(weights, older / "model.safetensors")
    old = load_head(str(older), device=torch.device("cpu"))
    states_ = StatesFolder(head_world / "states")
    example = states_.read(states_.utterances[0])
    tokens = example.states_SLD[None], example.embeddings_SD[None]
    # As it was computed before there was a choice.
    mixed_BSD = torch.einsum(
        "bsld,l->bsd",
        F.rms_norm(tokens[0], (64,)) * old.layer_scales_LD,
        old.layer_logits_L.softmax(dim=0),
    )
    read = [old.read_states(mixed_BSD), old.read_embeddings(F.rms_norm(tokens[1], (64,)))]
    gate_BSW = old.gate(torch.cat(read, dim=-1)).sigmoid()
    expected_BSW = gate_BSW * read[0] + (1 - gate_BSW) * read[1]
    assert torch.equal(old.read_tokens(*tokens), expected_BSW)
    for source, name in ((older, "from_older"), (model, "from_newer")):
        words = ("--init-from", source, "--steps", 1, "--learning-rate", 0)
        make_head(head_world, tmp_path / name, *words)
        head = load_head(str(tmp_path / name), device=torch.device("cpu"))
        expected = load_head(str(source), device=torch.device("cpu")).read_tokens(*tokens)
        torch.testing.assert_close(head.read_tokens(*tokens), expected)


def test_a_head_learns_to_pronounce_first_and_to_read_states_later(head_world, tmp_path):
    make_states(head_world, tmp_path / "texts", "--no-states")
    texts, states_ = StatesFolder(tmp_path / "texts"), StatesFolder(head_world / "states")
    cached = texts.read(texts.utterances[0])
    whole = states_.read(states_.utterances[0])
    assert cached.states_SLD.shape == (len(whole.states_SLD), 0, 64)
    assert torch.equal(cached.embeddings_SD, whole.embeddings_SD)
    assert torch.equal(cached.codes_FK, whole.codes_FK)
    only_text = ("--states", tmp_path / "texts", "--dev-states", tmp_path / "texts")
    with pytest.raises(InputError, match="train with --reads embedding"):
        make_head(head_world, tmp_path / "x", *only_text)
    make_head(head_world, tmp_path / "first", *only_text, "--reads", "embedding", "--steps", 4)
    first = ("--init-from", tmp_path / "first", "--steps", 1, "--learning-rate", 0)
    make_head(head_world, tmp_path / "second", *first)
    before, after = (
        load_head(str(tmp_path / name), device=torch.device("cpu")).state_dict()
        for name in ("first", "second")
    )
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {
        "gate", "layer_logits_L", "layer_scales_LD", "read_states", "state_mean_LD",
        "state_std_LD",
    }  # fmt: skip
    with pytest.raises(InputError, match="--init-from has width = 32, this head has 48"):
        make_head(head_world, tmp_path / "x", *first, "--width", 48)
    with pytest.raises(InputError, match="for --architecture cursor"):
        make_head(head_world, tmp_path / "x", *first, "--architecture", "parallel")
    assert not (tmp_path / "x").exists()
