"""Stage 4 on tiny models: evaluation, beside its ceilings and the published head."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from conftest import run
from head_world import ANSWER, QUESTION, make_head, models
from tiny_recognizers import save_wav2vec2
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

from commands.errors import InputError
from data_manifests.manifest import read_manifest, write_manifest
from speech_head import evaluate
from speech_head import held_out as held_out_module
from speech_head.answer import answer_states
from speech_head.held_out import gemma_answers
from speech_head.naturalness import SpeakerSimilarity, Versions
from stage3_finetune.dialogue import Turn


def test_evaluation_reports_every_number_with_its_ceilings(head_world, tmp_path):
    words = (*models(head_world), "--recognizer", head_world / "recognizer", "--batch-size", 4)
    out = tmp_path / "a"
    manifest = ("--manifest", head_world / "train.jsonl", "--num-utterances", 3)
    run(evaluate.main, *words, *manifest, "--out", out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {
        "wer_teacher", "wer_mimi", "wer_spoken", "wer_spoken_low", "wer_spoken_high", "cer_spoken",
        "wer_parallel", "runaway", "cut_short", "pushed_on",
        "num_held_out", "num_recorded", "left_out", "judge", "error_rates",
    }  # fmt: skip
    assert metrics["num_held_out"] == 3 and metrics["wer_parallel"] is None
    assert 0 <= metrics["wer_teacher"] <= 1 and metrics["wer_mimi"] is not None
    spoken = metrics["error_rates"]["spoken"]
    assert spoken["cer_low"] <= spoken["cer"] == metrics["cer_spoken"] <= spoken["cer_high"]
    rows = [json.loads(line) for line in (out / "utterances.jsonl").open("rb")]
    assert all(soundfile.info(out / row["audio"]).samplerate == 24_000 for row in rows)
    (tmp_path / "texts.txt").write_text(f"{ANSWER}\n\n{QUESTION}\n", encoding="utf-8")
    run(evaluate.main, *words, "--texts", tmp_path / "texts.txt", "--out", tmp_path / "b")
    metrics = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert metrics["num_held_out"] == 2 and metrics["wer_teacher"] is None


def test_what_gemma_answers_is_spoken(head_world, talker, tmp_path, monkeypatch):
    """With the states it had while writing; recordings of the same words go with it."""
    recorded = next(iter(read_manifest(head_world / "train.jsonl")))
    write_manifest(tmp_path / "answers.jsonl", [replace(recorded, text=ANSWER)])
    rows = [
        {"id": "sum/1", "messages": [{"role": "user", "content": QUESTION, "spoken": True}]},
        {"id": "hi", "messages": [{"role": "user", "content": "Maakye"}]},
    ]
    dialogues = tmp_path / "dialogues.jsonl"
    dialogues.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    held_out = gemma_answers(
        dialogues, None, tmp_path / "answers.jsonl", talker, limit=None, batch_size=2
    )
    assert len(held_out.rows) + len(held_out.left_out) == 2
    first = held_out.rows[0]
    assert (first.id, first.answer.text) == ("sum/1", ANSWER) and first.recording is not None
    [known] = answer_states(talker.conversation.model, [first.answer])
    written = list(talker.answer(Turn("user", QUESTION)))
    talker.conversation.turns.clear()
    assert known.ids_S.tolist() == [int(tokens.ids_S) for tokens in written]
    streamed_SLD = torch.cat([tokens.states_SLD for tokens in written])
    torch.testing.assert_close(known.states_SLD, streamed_SLD, atol=1e-4, rtol=0)
    words = (
        *models(head_world),
        "--recognizer",
        head_world / "recognizer",
        "--dialogues",
        dialogues,
    )
    run(evaluate.main, *words, "--manifest", tmp_path / "answers.jsonl", "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["num_held_out"] + len(metrics["left_out"]) == 2
    # What it answers to the other one, which it was not taught, hangs on rounding.
    assert metrics["num_recorded"] == sum(row.recording is not None for row in held_out.rows)
    assert (tmp_path / "out" / "wav" / "sum_1.wav").exists()
    monkeypatch.setattr(held_out_module, "MAX_ANSWER_TOKENS", 3)
    with pytest.raises(InputError, match=r"no answer that can be spoken"):
        gemma_answers(dialogues, None, None, talker, limit=None, batch_size=2)


def test_what_gemma_answers_to_heard_questions_is_spoken(
    head_world, talker, corpus, tmp_path, monkeypatch
):
    """Without the transcript it writes first, but with the states it had after that."""
    question = next(u for u in read_manifest(corpus / "train.jsonl") if "question_0000" in u.audio)
    audio = corpus / question.audio
    write_manifest(tmp_path / "asked.jsonl", [replace(question, text=QUESTION, audio=str(audio))])
    messages = [{"role": "user", "content": QUESTION}]
    rows = [{"id": "a", "messages": messages}, {"id": "never recorded", "messages": [
        {"role": "user", "content": "Maakye"}
    ]}]  # fmt: skip
    dialogues = tmp_path / "dialogues.jsonl"
    dialogues.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(talker.conversation, "writes_transcripts", True)
    asked = {"limit": None, "batch_size": 2}
    held_out = gemma_answers(dialogues, tmp_path / "asked.jsonl", None, talker, **asked)
    [row] = held_out.rows
    assert (row.id, row.answer.text) == ("a", ANSWER)
    assert talker.tokenizer.decode(row.answer.prompt.input_ids).endswith(f"model\n{QUESTION}\n")
    written = list(talker.answer(talker.conversation.spoken_turn(audio)))
    talker.conversation.turns.clear()
    [known] = answer_states(talker.conversation.model, [row.answer])
    streamed_SLD = torch.cat([tokens.states_SLD for tokens in written])
    torch.testing.assert_close(known.states_SLD, streamed_SLD, atol=1e-4, rtol=0)
    words = (
        *models(head_world),
        "--recognizer",
        head_world / "recognizer",
        "--dialogues",
        dialogues,
    )
    questions = ("--questions", tmp_path / "asked.jsonl")
    run(evaluate.main, *words, *questions, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["num_held_out"] == 1 and metrics["num_recorded"] == 0
    with pytest.raises(InputError, match=r"none is a question of"):
        gemma_answers(dialogues, head_world / "train.jsonl", None, talker, **asked)
    with pytest.raises(InputError, match=r"--questions needs --dialogues"):
        manifest = ("--manifest", head_world / "train.jsonl")
        run(evaluate.main, *words[:-2], *manifest, *questions, "--out", tmp_path / "x")


def test_the_published_head_is_measured_beside_ours(head_world, tmp_path):
    parallel = ("--architecture", "parallel", "--steps", 30, "--learning-rate", 0.01)
    judge = ("--recognizer", head_world / "recognizer", *models(head_world)[2:])
    make_head(head_world, tmp_path / "parallel", *parallel, "--save-every", 15, *judge)
    entries = [json.loads(line) for line in (tmp_path / "parallel" / "metrics.jsonl").open("rb")]
    dev = [entry for entry in entries if entry["split"] == "dev"]
    assert dev[-1]["loss"] < 0.9 * entries[0]["loss"] and {"wer", "cer"} <= dev[-1].keys()
    words = (*models(head_world), "--recognizer", head_world / "recognizer", "--num-utterances", 3)
    manifest = ("--manifest", head_world / "train.jsonl")
    flag = ("--parallel-head", tmp_path / "parallel")
    run(evaluate.main, *words, *manifest, *flag, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["num_held_out"] == 3 and metrics["wer_parallel"] >= 0
    [row, *_] = [json.loads(line) for line in (tmp_path / "out" / "utterances.jsonl").open("rb")]
    assert isinstance(row["heard_parallel"], str)
    with pytest.raises(InputError, match=r"--parallel-head needs --manifest"):
        text = tmp_path / "texts.txt"
        run(evaluate.main, *words, "--texts", text, *flag, "--out", tmp_path / "x")
    with pytest.raises(InputError, match=r"unknown key 'depth_heads'"):
        other = ("--parallel-head", head_world / "head")
        run(evaluate.main, *words, *manifest, *other, "--out", tmp_path / "x")
    with pytest.raises(InputError, match=r"unknown key 'max_frames'"):
        other = ("--head", tmp_path / "parallel", *models(head_world)[2:])
        run(evaluate.main, *other, *words[-4:], *manifest, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_how_speech_sounds_is_measured_beside_recordings(head_world, tmp_path):
    pytest.importorskip("speechmos")
    config = WavLMConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(10, 8), conv_kernel=(10, 8), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, tdnn_dim=(8, 8), tdnn_kernel=(3, 1), tdnn_dilation=(1, 1),
        xvector_output_dim=8,
    )  # fmt: skip
    torch.manual_seed(0)
    WavLMForXVector(config).save_pretrained(tmp_path / "voices")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "voices")
    words = (*models(head_world), "--recognizer", head_world / "recognizer", "--num-utterances", 2)
    raters = ("--dnsmos", "--speaker-model", tmp_path / "voices")
    # DNSMOS repeats what is shorter than its nine seconds, and then hears up to nine windows of it:
    # one, of so short a beginning.
    recordings = read_manifest(head_world / "train.jsonl")
    beginnings = [replace(u, start_s=0.0, duration_s=1.2, text="Yoo.") for u in recordings]
    write_manifest(tmp_path / "beginnings.jsonl", beginnings)
    manifest = ("--manifest", tmp_path / "beginnings.jsonl")
    table = run(evaluate.main, *words, *manifest, *raters, "--out", tmp_path / "out")
    sound = json.loads((tmp_path / "out" / "metrics.json").read_text())["sound"]
    assert sound.keys() == {"dnsmos", "speaker_similarity"}
    assert all(1 <= value <= 5 for value in sound["dnsmos"].values())
    assert all(-1 <= value <= 1 for value in sound["speaker_similarity"].values())
    assert table.count("recordings 0.") + table.count("recordings 1.") == 2
    with pytest.raises(InputError, match=r"need the recordings of --manifest"):
        text = tmp_path / "texts.txt"
        run(evaluate.main, *words, "--texts", text, *raters, "--out", tmp_path / "x")
    with pytest.raises(InputError, match=r"nothing: cannot be loaded"):
        other = ("--speaker-model", tmp_path / "nothing")
        run(evaluate.main, *words, *manifest, *other, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_voice_is_most_like_itself():
    """Of recordings that are all alike, and speech that is not."""
    rater = object.__new__(SpeakerSimilarity)
    rater._embed = lambda waveform, rate_hz: torch.tensor([waveform[0], waveform[1]])
    same, other = np.float32([1, 0]), np.float32([0.6, 0.8])
    rated = rater.rate(
        Versions([same, same], [same] * 2, [other] * 2, 16_000, ["a"] * 2, ["a"] * 2)
    )
    assert rated == pytest.approx({"teacher": 1, "mimi": 1, "spoken": 0.6})
    with pytest.raises(InputError, match=r"two recordings"):
        rater.rate(Versions([same], [same], [same], 16_000, ["a"], ["a"]))


def test_another_recogniser_can_be_the_judge(head_world, tmp_path):
    recogniser = save_wav2vec2(tmp_path / "asr")
    words = (*models(head_world), "--manifest", head_world / "train.jsonl", "--num-utterances", 2)
    table = run(evaluate.main, *words, "--asr", recogniser, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["num_held_out"] == 2 and metrics["wer_teacher"] > 0.5
    assert metrics["judge"] == str(recogniser) and f"heard by {recogniser}" in table
    two = ("--asr", recogniser, "--recognizer", head_world / "recognizer")
    with pytest.raises(InputError, match=r"give one of --recognizer, --asr"):
        run(evaluate.main, *words, *two, "--out", tmp_path / "x")
    with pytest.raises(InputError, match=r"--asr nothing: cannot be loaded"):
        run(evaluate.main, *words, "--asr", "nothing", "--out", tmp_path / "x")
    with pytest.raises(InputError, match=r"--asr-language needs --asr"):
        run(evaluate.main, *words, "--asr-language", "jw", "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
