"""The demo from nothing to a spoken answer, a few steps a stage; and its report."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import run

from data_manifests.manifest import read_manifest
from data_manifests.normalization import normalize_for_scoring
from demo import run as demo
from demo import ship
from demo.shipped import WEIGHTS
from demo.voice.synthesizer import Synthesizer
from demo.voice.voices import draw_style, record
from demo.world.grammar import interruptions
from demo.world.make_corpus import ANSWERING_VOICES
from stage3_finetune.conversation import load_conversation
from stage3_finetune.dialogue import Turn
from voice_chat import chat

KEYS = {
    "stage1": {
        "used_fraction", "perplexity", "normalized_entropy", "relative_error", "cosine",
        "wer_continuous", "wer_quantized",
    },
    "stage2": {"wer_real_codes", "wer_generated", "cer_generated", "length_ratio", "never_ended"},
    "stage3": {"exact_match", "typed_after", "num_held_out"},
    "speech_head": {
        "wer_teacher", "wer_mimi", "wer_spoken", "cer_spoken", "wer_parallel", "runaway",
        "cut_short", "num_held_out", "voices",
    },
    "chat": {"time_to_first_audio_ms", "real_time_factor"},
    "meta": {"commit", "seconds_total", "seconds", "peak_rss_mb"},
    "intervals": {"stage1", "stage2", "stage3", "speech_head"},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(espeak, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    run(demo.main, "--out", out, "--effort", "check")
    return out


def test_the_report_has_every_key(folder):
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert {stage: set(part) for stage, part in report.items()} == KEYS
    assert len(report["stage1"]["used_fraction"]) == 8
    assert set(report["stage1"]["wer_quantized"]) == {"1", "2", "4", "8"}
    systems = {
        "typed", "spoken_before", "spoken_after", "spoken_second", "spoken_fifth", "spoken_direct",
        "cascade",
    }  # fmt: skip
    assert set(report["stage3"]["exact_match"]) == systems
    stages = {"corpus", "stage1", "stage2", "stage3", "speech_head", "chat"}
    assert set(report["meta"]["seconds"]) == stages
    for used, perplexity in zip(
        report["stage1"]["used_fraction"], report["stage1"]["perplexity"], strict=True
    ):
        assert perplexity <= used * 16 + 1e-6


def test_what_is_only_compared_with_may_be_left_out():
    """Its commands, and the flags of other commands that name it; the rest is the same."""

    def commands(effort, **settings):
        steps = demo.plan(Path("runs/x"), effort, 0, **settings)
        return [[step.command, *map(str, step.words)] for step in steps]

    full, fewer = commands("full"), commands("full", compare=False)
    made = [words[words.index("--out") + 1] for words in full if words not in fewer]
    names = ("finetune-direct", "finetune-test", "head-parallel", "head-test")
    assert made == [f"runs/x/{name}" for name in names]
    assert len(full) == len(fewer) + 2 and len(fewer) == len(commands("demo"))
    assert not [word for words in fewer for word in words if "direct" in word or "parallel" in word]


def test_it_ends_with_speech_and_pages(folder):
    samples, rate = soundfile.read(folder / "answer.wav")
    assert rate == 24_000 and len(samples) > 0 and np.isfinite(samples).all()
    page = (folder / "report.html").read_text(encoding="utf-8")
    for name in ("rvq-test/codebook_usage.png", "training.png", "answer.wav"):
        assert name in page and (folder / name).is_file()
    data = "data: demo (Apache-2.0)"
    assert f"<p>{data}</p>" in page
    assert data in (folder / "report.txt").read_text(encoding="utf-8").splitlines()


def test_run_again_it_does_nothing_twice(folder):
    before = (folder / "rvq" / "model" / "model.safetensors").stat().st_mtime_ns
    run(demo.main, "--out", folder, "--effort", "check")
    assert (folder / "rvq" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_killed_before_what_it_said_was_noted_it_says_it_again(folder):
    sound = (folder / "answer.wav").read_bytes()
    for name in ("answer.json", "report.json", "report.html"):
        (folder / name).unlink()
    run(demo.main, "--out", folder, "--effort", "check")
    assert "answer" in json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    assert (folder / "answer.wav").read_bytes() == sound
    assert (folder / "report.html").is_file()


def test_no_recording_of_a_question_trained_stage_3(folder):
    provenance = json.loads((folder / "finetune" / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["spoken_turns"]["recordings"] == 0
    assert provenance["spoken_turns"]["generated_codes"] > 0
    assert set(provenance["inputs"]) == {"dialogues", "rvq", "gemma"}


def test_held_out_sentences_are_in_no_training_recording(folder):
    def texts(name):
        return {normalize_for_scoring(u.text) for u in read_manifest(folder / "corpus" / name)}

    assert not texts("train.jsonl") & (texts("dev.jsonl") | texts("test.jsonl"))
    assert not texts("train.jsonl") & (texts("answers_dev.jsonl") | texts("answers_test.jsonl"))
    assert texts("answers_train.jsonl") <= texts("train.jsonl")


def test_held_out_voices_speak_in_no_training_recording(folder):
    def voices(name):
        return {u.speaker for u in read_manifest(folder / "corpus" / name)}

    assert not voices("train.jsonl") & voices("test.jsonl")
    for split in ("train", "dev", "test"):
        assert voices(f"answers_{split}.jsonl") == set(ANSWERING_VOICES)


def test_what_is_shipped_of_a_run_talks(folder, tmp_path):
    run(ship.main, "--demo", folder, "--out", tmp_path / "weights")
    assert not (tmp_path / "weights" / "head" / "checkpoints").exists()
    words = ("--gemma", WEIGHTS / "gemma", "--mimi", WEIGHTS / "mimi", "--device", "cpu")
    words += ("--finetune", tmp_path / "weights" / "finetune")
    words += ("--head", tmp_path / "weights" / "head", "--max-new-tokens", 8, "--cut-long-answers")
    run(chat.main, *words, "--prompt", "Benada akyi yɛ da bɛn?", "--out", tmp_path / "said")
    assert (tmp_path / "said" / "answer_001.wav").is_file()


def test_the_shipped_adapter_understands_the_words_that_interrupt(espeak):
    """Each said twice by held-out voices; one may be misheard."""
    conversation = load_conversation(
        str(WEIGHTS / "gemma"), WEIGHTS / "finetune", device=torch.device("cpu"),
        dtype=torch.float32, max_new_tokens=24,
    )  # fmt: skip
    synthesizer = Synthesizer()
    right = []
    for number, word in enumerate(interruptions(10)):
        generator = np.random.default_rng(number)
        style = draw_style(generator, held_out=True)
        waveform_N = record(
            synthesizer, word.text, style, sample_rate_hz=16_000, generator=generator
        )
        [frames_TD] = conversation.encoder.encode([waveform_N.astype(np.float32)])
        conversation.turns.clear()
        question = Turn("user", "", spoken=True, frames_TD=frames_TD)
        reply = conversation.ask(question, on_text=str)
        right.append((reply.transcript, reply.answer) == (word.text, word.answer))
    assert sum(right) >= 9


def test_shipped_weights_are_small_and_name_no_machine():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6
    for path in files:
        if path.suffix in (".json", ".jsonl", ".md"):
            words = path.read_text(encoding="utf-8")
            assert not re.search(r"[\"\s](/[a-z]+){2,}", words), path
