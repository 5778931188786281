"""Precisions of Gemma side by side; and stage 4 with a quantised Gemma."""

import importlib.util
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import run
from head_world import ANSWER, CPU, QUESTION, make_states, models

from commands.errors import InputError
from commands.json_files import read_json
from data_manifests.manifest import read_manifest, write_manifest
from data_manifests.text_lines import read_lines
from pipeline import compare_precision, precision_scores
from pipeline.own_process import ProcessEnded, in_own_process
from pipeline.precision_scores import Cost, Measured, Scores
from speech_head import evaluate, speak
from speech_head.data import StatesFolder
from speech_head.live_states import load_live_states
from stage3_finetune.model import TARGET_KEY


@pytest.fixture(scope="module")
def words(head_world, corpus, tmp_path_factory):
    """Flags of a comparison: the question that Gemma was taught, typed and recorded."""
    folder = tmp_path_factory.mktemp("questions")
    recording = next(iter(read_manifest(corpus / "train.jsonl")))
    audio = corpus / "audio" / "train_question_0000.wav"
    write_manifest(
        folder / "recordings.jsonl",
        [replace(recording, id="sum", text=QUESTION, audio=str(audio))],
    )
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    row = json.dumps({"id": "sum", "messages": turns})
    (folder / "dialogues.jsonl").write_text(row + "\n", encoding="utf-8")
    gemma = shutil.copytree(head_world / "gemma", folder / "gemma")
    config = {**read_json(gemma / "config.json"), TARGET_KEY: "chain"}
    (gemma / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return (
        "--gemma", gemma, "--dialogues", folder / "dialogues.jsonl",
        "--recordings", folder / "recordings.jsonl", "--max-new-tokens", 40, *CPU,
    )  # fmt: skip


@pytest.fixture
def in_this_process(monkeypatch):
    """A process of its own loads every library again."""
    monkeypatch.setattr(compare_precision, "in_own_process", lambda call, *given: call(*given))


@pytest.mark.usefixtures("bitsandbytes", "in_this_process")
def test_every_precision_has_its_row(words, head_world, tmp_path):
    voice = ("--head", head_world / "head", "--mimi", head_world / "mimi")
    voice = (*voice, "--recognizer", head_world / "recognizer", "--seed", 1)
    out = tmp_path / "precision"
    printed = run(
        compare_precision.main, *words, *voice, "--precisions", "float32", "4bit", "--out", out
    )
    result = read_json(out / "precision.json")
    exact, four_bits = result["scores"]["float32"], result["scores"]["4bit"]
    assert result["compared_with"] == "float32" and result["num_questions"] == 1
    assert exact["agreement"] == exact["exact_match_typed"] == exact["exact_match_spoken"] == 1
    assert exact["wer_transcript"] == 0 and exact["speech"]["num_held_out"] == 1
    assert exact["speech"]["wer_spoken"] >= 0
    cost = result["cost"]
    assert cost["4bit"]["weights_bytes"] < cost["float32"]["weights_bytes"]
    assert all(value > 0 for one in cost.values() for value in one.values())
    [answers] = [json.loads(line) for line in (out / "answers.jsonl").open("rb")]
    assert answers["typed"]["float32"] == answers["spoken"]["float32"] == ANSWER
    same = [answers[way]["4bit"] == ANSWER for way in ("typed", "spoken")]
    assert four_bits["agreement"] == sum(same) / 2
    rows = {line.split()[0]: line.split() for line in printed.splitlines()}
    assert rows["float32"][1:6] == ["100.0", "%", "100.0", "%", "100.0"]
    assert len(rows["float32"]) == len(rows["4bit"]) or four_bits["speech"] is None
    with pytest.raises(InputError, match="--overwrite writes it again"):
        run(compare_precision.main, *words, "--precisions", "float32", "--out", out)


@pytest.mark.usefixtures("in_this_process")
def test_what_cannot_run_here_says_why(words, tmp_path, monkeypatch):
    load, out = precision_scores.load_conversation, tmp_path / "precision"

    def refuse(gemma, finetune, *, dtype, quantize, **settings):
        if quantize == "8bit":
            raise RuntimeError("no kernel\nfor it")
        if quantize == "4bit" or dtype == torch.bfloat16:
            raise torch.OutOfMemoryError
        return load(gemma, finetune, dtype=dtype, quantize=quantize, **settings)

    monkeypatch.setattr(precision_scores, "load_conversation", refuse)
    monkeypatch.setattr(compare_precision, "refuse_missing_bitsandbytes", lambda wanted_by: None)
    precisions = ("--num-questions", 1, "--batch-size", 1, "--precisions", "8bit", "bfloat16")
    printed = run(compare_precision.main, *words, *precisions, "float32", "--out", out)
    assert "8bit      not run: on cpu: no kernel for it\n" in printed
    assert "bfloat16  not run: needs more memory than cpu has free\n" in printed
    result = read_json(out / "precision.json")
    assert set(result["not_run"]) == {"8bit", "bfloat16"} and set(result["cost"]) == {"float32"}
    assert result["compared_with"] == "float32" and result["scores"]["float32"]["speech"] is None
    with pytest.raises(InputError, match=r"^--precisions 8bit on cpu: no kernel for it"):
        run(compare_precision.main, *words, *precisions, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_process_killed_for_its_memory_is_a_row(words, tmp_path, monkeypatch):
    scores = Scores(1.0, 0.0, 1.0, 0.5, wer_transcript=None, speech=None)

    def end(exit_code):
        def process(call, job, precision):
            if precision == "bfloat16":
                raise ProcessEnded(exit_code)
            return Measured(scores, Cost(1, 1, 1.0, 1.0, 1.0), ["a"], ["b"], None)

        monkeypatch.setattr(compare_precision, "in_own_process", process)
        line = (*words, "--precisions", "bfloat16", "float32", "--out", tmp_path / str(exit_code))
        return run(compare_precision.main, *line)

    assert "bfloat16  not run: the system killed it" in end(-signal.SIGKILL)
    with pytest.raises(ProcessEnded, match="ended with code 1"):
        end(1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--precisions", "4bit", "4bit"), "--precisions names one twice"),
        (("--head", "head"), "--head and one of --recognizer, --asr go together"),
    ],
)
def test_settings_that_make_no_sense(words, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(compare_precision.main, *words, *flags, "--out", tmp_path / "out")


def test_without_bitsandbytes_the_mistake_is_named(words, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name)
    )
    with pytest.raises(InputError, match=r"^--precisions 8bit needs bitsandbytes: pip install"):
        run(compare_precision.main, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_process_of_its_own():
    assert in_own_process(os.getpid) != os.getpid()
    with pytest.raises(InputError, match="no-such-file"):
        in_own_process(read_lines, Path("no-such-file"))
    with pytest.raises(ProcessEnded) as ended:
        in_own_process(signal.raise_signal, signal.SIGKILL)
    assert ended.value.exit_code == -signal.SIGKILL


@pytest.mark.usefixtures("bitsandbytes")
def test_stage_4_with_a_quantised_gemma(head_world, tmp_path):
    four_bits = ("--quantize", "4bit")
    out, live_out, few = tmp_path / "states", tmp_path / "live", tmp_path / "few.jsonl"
    write_manifest(few, list(read_manifest(head_world / "train.jsonl"))[:1])
    make_states(head_world, out, *four_bits, "--manifest", few)
    exact, states = StatesFolder(head_world / "states"), StatesFolder(out)
    assert states.format == exact.format
    pair = [folder.read_all(folder.utterances[:1])[0].states_SLD for folder in (exact, states)]
    assert not torch.equal(*pair)
    make_states(head_world, live_out, *four_bits, "--manifest", few, "--no-states")
    live, _ = load_live_states(
        live_out, None, device=torch.device("cpu"), dtype=torch.float32, allow_mixture=False
    )
    computed = live.read_all(live.utterances[:1])[0].states_SLD
    torch.testing.assert_close(computed, pair[1], atol=1e-2, rtol=1e-2)
    said = tmp_path / "said.wav"
    run(speak.main, *models(head_world), *four_bits, "--text", ANSWER, "--out", said)
    assert said.is_file()
    (tmp_path / "texts").write_text(ANSWER + "\n", encoding="utf-8")
    judge = ("--recognizer", head_world / "recognizer", "--texts", tmp_path / "texts")
    run(evaluate.main, *models(head_world), *judge, *four_bits, "--out", tmp_path / "test")
    assert read_json(tmp_path / "test" / "provenance.json")["quantize"] == "4bit"
