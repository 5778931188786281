"""The commands of stage 4 on tiny models: states, train, speak, evaluate, chat, preflight."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import run
from safetensors.torch import load_file

from data_manifests.config import InputError
from data_manifests.manifest import read_manifest, write_manifest
from speech_head import chat, evaluate, generate, preflight, speak, states, train
from speech_head.answer import answer_states
from speech_head.data import StatesFolder
from speech_head.generate import Speech, load_talker, speak_texts, tokenize_within_limit
from speech_head.mimi import load_mimi, tiny_mimi
from speech_head.stream import Sampling
from stage1_rvq import embed, train_reader
from stage1_rvq.checkpoint import list_checkpoints
from stage3_finetune.dialogue import Dialogue, Turn, encode_dialogue
from stage3_finetune.generate import prompt_inputs

QUESTION = "Baako ne baako yɛ sɛn?"
ANSWER = "Baako ne baako yɛ mmienu."
CPU = ("--device", "cpu")
SMALL = (
    "--width", 32, "--num-layers", 2, "--num-heads", 2, "--depth-width", 32, "--depth-layers", 1,
    "--depth-heads", 2, "--batch-size", 4, "--save-every", 2, "--steps", 2, *CPU,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_models, corpus):
    """A Gemma that answers one question, a manifest of six utterances, and a reader of them."""
    folder = tmp_path_factory.mktemp("world")
    write_manifest(folder / "train.jsonl", list(read_manifest(corpus / "train.jsonl"))[:6])
    teach_gemma(
        tiny_models / "gemma", folder / "gemma", corpus / "audio" / "train_question_0000.wav"
    )
    manifest, gemma = folder / "train.jsonl", folder / "gemma"
    run(embed.main, "--manifest", manifest, "--gemma", gemma, "--out", folder / "embedded", *CPU)
    run(
        train_reader.main, "--embeddings", folder / "embedded", "--out", folder / "reader",
        "--num-units", 64, "--width", 32, "--steps", 30, "--learning-rate", 0.01, "--warmup-steps",
        5, *CPU,
    )  # fmt: skip
    shutil.copytree(tiny_models / "mimi", folder / "mimi")
    make_states(folder, folder / "states")
    make_head(folder, folder / "head", "--steps", 20, "--warmup-steps", 2, "--learning-rate", 0.01)
    return folder


def teach_gemma(source, out, recording):
    """Teach the tiny Gemma one answer: to the question typed, and heard (with its transcript)."""
    conversation = generate.load_conversation(
        str(source), None, device=torch.device("cpu"), dtype=torch.float32
    )
    model, tokenizer = conversation.model, conversation.tokenizer
    heard = conversation.spoken_turn(recording)
    dialogues = [
        Dialogue("typed", (Turn("user", QUESTION), Turn("assistant", ANSWER))),
        Dialogue("heard", (heard, Turn("assistant", f"{QUESTION}\n{ANSWER}"))),
    ]
    decoder = model.model.language_model.requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3)
    for _ in range(40):
        for row in (encode_dialogue(dialogue, tokenizer) for dialogue in dialogues):
            inputs = prompt_inputs([row], tokenizer, model)
            model(**inputs, labels=torch.tensor([row.labels])).loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    shutil.copytree(source, out)
    model.save_pretrained(out)


def make_states(world, out, *words):
    return run(
        states.main, "--manifest", world / "train.jsonl", "--gemma", world / "gemma", "--mimi",
        world / "mimi", "--reader", world / "reader", "--out", out, *CPU, *words,
    )  # fmt: skip


def make_head(world, out, *words):
    folder = world / "states"
    return run(train.main, "--states", folder, "--dev-states", folder, "--out", out, *SMALL, *words)


def models(world):
    return (
        "--head", world / "head", "--gemma", world / "gemma", "--mimi", world / "mimi", *CPU,
    )  # fmt: skip


@pytest.fixture(scope="module")
def talker(world):
    return load_talker(
        str(world / "gemma"), None, str(world / "mimi"), str(world / "head"),
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip


# States


def test_states_hold_text_speech_and_their_alignment(world):
    folder = StatesFolder(world / "states")
    utterances = list(read_manifest(world / "train.jsonl"))
    assert [u.id for u in folder.utterances] == [u.id for u in utterances]
    for cached, utterance in zip(folder.utterances, utterances, strict=True):
        example = folder.read(cached)
        assert len(example.codes_FK) == -(-soundfile.info(utterance.audio).frames // 1920)
        assert len(example.cursor_F) == len(example.codes_FK) + 1
        assert example.cursor_F[-1] == len(example.states_SLD) - 1
        assert example.states_SLD.shape[1:] == (6, 64) and example.embeddings_SD.shape[1] == 64


def test_cached_states_are_those_of_the_same_text(world, talker):
    folder = StatesFolder(world / "states")
    cached = folder.utterances[-1]
    text = tokenize_within_limit(cached.text, talker.tokenizer)
    [tokens] = answer_states(talker.conversation.model, [text])
    example = folder.read(cached)
    for found, expected in (
        (example.states_SLD, tokens.states_SLD), (example.embeddings_SD, tokens.embeddings_SD),
    ):  # fmt: skip
        torch.testing.assert_close(found, expected.bfloat16().float(), atol=1e-2, rtol=1e-2)


def test_interrupted_states_are_completed_and_bad_rows_listed(world, tmp_path, monkeypatch):
    monkeypatch.setattr(states, "UTTERANCES_PER_SHARD", 4)
    rows = list(read_manifest(world / "train.jsonl"))
    soundfile.write(tmp_path / "short.wav", np.full(2400, 0.1, np.float32), 24_000)
    values = {name: getattr(rows[1], name) for name in vars(rows[1])}
    bad = type(rows[1])(**{**values, "audio": str(tmp_path / "short.wav"), "duration_s": 0.1})
    write_manifest(tmp_path / "train.jsonl", [rows[0], bad, *rows[2:]])
    words = ("--manifest", tmp_path / "train.jsonl")
    make_states(world, tmp_path / "whole", *words)
    [skipped] = (tmp_path / "whole" / "skipped.jsonl").read_text("utf-8").splitlines()
    assert "units need" in json.loads(skipped)["reason"]
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for name in ("done", "embeddings.safetensors", "shard_00001.jsonl"):
        (tmp_path / "resumed" / name).unlink()
    make_states(world, tmp_path / "resumed", *words, "--resume")
    for path in sorted((tmp_path / "whole").glob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes()
    assert len(StatesFolder(tmp_path / "resumed").utterances) == 5


# Training


def test_a_resumed_run_equals_a_straight_one(world, tmp_path):
    make_head(world, tmp_path / "straight", "--steps", 4)
    make_head(world, tmp_path / "resumed", "--steps", 4)
    for path in ("done", "model"):
        target = tmp_path / "resumed" / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    shutil.rmtree(list_checkpoints(tmp_path / "resumed")[-1])
    make_head(world, tmp_path / "resumed", "--steps", 4, "--resume")
    for path in sorted((tmp_path / "straight" / "checkpoints").glob("*/model.safetensors")):
        resumed = tmp_path / "resumed" / path.relative_to(tmp_path / "straight")
        assert path.read_bytes() == resumed.read_bytes()
    logs = [(tmp_path / n / "metrics.jsonl").read_text("utf-8") for n in ("straight", "resumed")]
    assert logs[0] == logs[1]


def test_training_lowers_the_loss(world):
    dev = [entry["loss"] for entry in dev_entries(world / "head")]
    assert dev[-1] < 0.8 * dev[0]


def test_dev_texts_are_spoken_and_read_back_while_training(world, tmp_path):
    judge = ("--reader", world / "reader", *models(world)[2:], "--num-dev-sentences", 3)
    make_head(world, tmp_path / "judged", "--steps", 4, *judge)
    dev = dev_entries(tmp_path / "judged")
    assert [entry["step"] for entry in dev] == [2, 4]
    assert all({"loss", "wer", "cer", "runaway", "cut_short"} <= entry.keys() for entry in dev)


def test_the_checkpoint_kept_is_the_one_best_understood(world, tmp_path, monkeypatch):
    rates = iter([0.5, 0.2, 0.9])
    monkeypatch.setattr(train, "measure_speech", lambda *a, **b: {"cer": next(rates)})
    judge = ("--reader", world / "reader", *models(world)[2:])
    make_head(world, tmp_path / "judged", "--steps", 6, *judge)
    kept = load_file(tmp_path / "judged" / "model" / "model.safetensors")
    checkpoint = list_checkpoints(tmp_path / "judged")[-2]
    assert checkpoint.name == "step_000004"
    saved = load_file(checkpoint / "model.safetensors")
    assert kept.keys() == saved.keys() and all(torch.equal(kept[n], saved[n]) for n in kept)


def test_a_judge_that_does_not_fit_is_refused(world, tmp_path):
    judge = ("--reader", world / "reader", *models(world)[2:])
    with pytest.raises(InputError, match="--reader needs --dev-states"):
        run(train.main, "--states", world / "states", "--out", tmp_path / "a", *SMALL, *judge)
    coarse = tmp_path / "coarse"
    model = tiny_mimi()
    model.config.codebook_size //= 2
    type(model)(model.config).save_pretrained(coarse)
    with pytest.raises(InputError, match=r"--mimi has codebook_size = \d+, --states was"):
        make_head(world, tmp_path / "a", *judge, "--mimi", coarse)
    with pytest.raises(InputError, match="--history-dropout is a probability below 1, got 1"):
        make_head(world, tmp_path / "a", "--history-dropout", 1)
    assert not (tmp_path / "a").exists()


def dev_entries(run_folder):
    entries = [json.loads(line) for line in (run_folder / "metrics.jsonl").open("rb")]
    return [entry for entry in entries if entry["split"] == "dev"]


def test_gemma_and_mimi_stay_as_they_were(world, talker, tiny_models):
    list(Speech(talker, Sampling()).say(talker.answer(Turn("user", QUESTION))))
    talker.conversation.turns.clear()
    saved_gemma = load_file(world / "gemma" / "model.safetensors")
    saved_mimi = load_mimi(tiny_models / "mimi").model.state_dict()
    for model, saved in (
        (talker.conversation.model, saved_gemma), (talker.mimi.model, saved_mimi),
    ):  # fmt: skip
        kept = model.state_dict()
        assert len(saved) > 100 and all(torch.equal(kept[name], saved[name]) for name in saved)
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_states_and_settings_that_do_not_fit_are_refused(world, tmp_path):
    with pytest.raises(InputError, match="--codebook-weights has 2 numbers, the states have 8"):
        make_head(world, tmp_path / "a", "--codebook-weights", 2, 1)
    make_states(world, tmp_path / "four", "--num-codebooks", 4)
    with pytest.raises(InputError, match="--dev-states has num_codebooks = 4, --states has 8"):
        make_head(world, tmp_path / "b", "--dev-states", tmp_path / "four")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


# Speaking


def test_a_typed_question_is_answered_aloud(world, tmp_path):
    out = tmp_path / "new" / "answer.wav"
    printed = run(speak.main, *models(world), "--prompt", QUESTION, "--out", out)
    assert printed.splitlines() == [ANSWER, str(out)]
    assert soundfile.info(out).samplerate == 24_000 and soundfile.info(out).frames % 1920 == 0


def test_a_spoken_question_is_answered_aloud_without_its_transcript(world, talker, corpus):
    conversation = talker.conversation
    question = conversation.spoken_turn(corpus / "audio" / "train_question_0000.wav")
    for writes_transcripts, expected in ((True, ANSWER), (False, f"{QUESTION}\n{ANSWER}")):
        conversation.writes_transcripts = writes_transcripts
        speech = Speech(talker, Sampling())
        assert sum(len(samples_N) for samples_N in speech.say(talker.answer(question))) > 0
        assert speech.text == expected
        assert [word.word for word in speech.words] == expected.split()[: len(speech.words)]
        assert conversation.turns[-1].content == f"{QUESTION}\n{ANSWER}"
        conversation.turns.clear()
    conversation.writes_transcripts = False


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_streamed_speech_is_the_speech_of_the_whole_text(talker, chunk):
    text = tokenize_within_limit(ANSWER, talker.tokenizer)
    [(codes_FK, end)] = speak_texts(talker, [text], ["answer"], Sampling())
    [tokens] = answer_states(talker.conversation.model, [text])
    pieces = [
        type(tokens)(*(value[start : start + chunk] for value in vars(tokens).values()))
        for start in range(0, len(text.ids_S), chunk)
    ]
    speech = Speech(talker, Sampling())
    streamed_N = np.concatenate(list(speech.say(pieces)))
    assert torch.equal(torch.stack(speech.frames), codes_FK) and speech.end == end
    offline_N = talker.mimi.decode(codes_FK).numpy()
    np.testing.assert_allclose(streamed_N, offline_N, rtol=0, atol=1e-4)


def test_seed_decides_what_is_heard(world, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / f"{name}.wav"
        run(speak.main, *models(world), "--text", ANSWER, "--seed", seed, "--out", out)
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--text", " "), "empty"),
        (("--text", "..."), "no letter"),
        (("--text", "a " * 600), "at most 512 can be spoken"),
        (("--prompt", ""), "nothing was asked"),
        (("--audio", "nowhere.wav"), "no such audio file"),
        (("--text", "Me.", "--prompt", "Wo?"), "give one of"),
        (("--text", "Me.", "--temperature", -1), "--temperature"),
    ],
)
def test_mistakes_are_named_and_leave_no_wav(world, tmp_path, words, reason):
    with pytest.raises(InputError, match=reason):
        flags = (*models(world), *words, "--out", tmp_path / "answer.wav")
        speak.main([str(word) for word in flags])
    assert not list(tmp_path.iterdir())


def test_an_endless_or_silent_answer_leaves_no_wav(world, tmp_path, monkeypatch):
    words = (*models(world), "--prompt", QUESTION, "--out", tmp_path / "answer.wav")
    with pytest.raises(InputError, match="did not end within 9 tokens"):
        run(speak.main, *words, "--max-new-tokens", 9)
    with pytest.raises(InputError, match="--max-new-tokens must be between 1 and 512, got 2000"):
        run(speak.main, *words, "--max-new-tokens", 2000)
    stream = generate.stream_answer
    monkeypatch.setattr(generate, "stream_answer", lambda *a, **k: list(stream(*a, **k))[-1:])
    with pytest.raises(InputError, match="no answer"):
        run(speak.main, *words)
    assert not list(tmp_path.iterdir())


def test_a_long_answer_is_cut_where_asked(world, tmp_path):
    words = (*models(world), "--prompt", QUESTION, "--max-new-tokens", 9, "--cut-long-answers")
    row = json.loads(run(speak.main, *words, "--json", "--out", tmp_path / "answer.wav"))
    assert row["answer"] and (tmp_path / "answer.wav").stat().st_size > 1000
    assert [word["word"] for word in row["words"]] and row["time_to_first_audio_ms"] > 0
    with pytest.raises(InputError, match="exists already"):
        run(speak.main, *words, "--out", tmp_path / "answer.wav")


def test_models_that_do_not_belong_together_are_refused(world, tmp_path):
    words = dict(zip(*[iter(models(world))] * 2, strict=True))
    flags = ("--text", "Me.", "--out", tmp_path / "answer.wav")

    def speak_with(**changed):
        given = words | {f"--{name}": value for name, value in changed.items()}
        run(speak.main, *(word for pair in given.items() for word in pair), *flags)

    config = json.loads((world / "mimi" / "config.json").read_text())
    shutil.copytree(world / "mimi", tmp_path / "mimi")
    tiny = tiny_mimi()
    tiny.config.num_quantizers = config["num_quantizers"] // 2
    type(tiny)(tiny.config).save_pretrained(tmp_path / "mimi")
    with pytest.raises(InputError, match="num_codebooks is 8, Mimi has 4"):
        speak_with(mimi=tmp_path / "mimi")
    shutil.copytree(world / "head" / "model", tmp_path / "model")
    head = generate.load_head(str(tmp_path / "model"), device=torch.device("cpu"))
    wider = type(head.config)(**{**vars(head.config), "state_width": 48})
    type(head)(wider).save_pretrained(tmp_path / "wider")
    with pytest.raises(InputError, match="64 wide, --head was trained on a Gemma 48 wide"):
        speak_with(head=tmp_path / "wider")
    with pytest.raises(InputError, match=r"written by speech_head\.states"):
        speak_with(head=world / "states")
    assert not (tmp_path / "answer.wav").exists()


# Evaluation, chat, preflight


def test_evaluation_reports_every_number_with_its_ceilings(world, tmp_path):
    words = (*models(world), "--reader", world / "reader", "--batch-size", 4)
    out = tmp_path / "a"
    run(evaluate.main, *words, "--manifest", world / "train.jsonl", "--out", out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {
        "wer_teacher", "wer_mimi", "wer_spoken", "cer_spoken", "wer_parallel", "runaway",
        "cut_short", "num_held_out",
    }  # fmt: skip
    assert metrics["num_held_out"] == 6 and metrics["wer_parallel"] is None
    assert 0 <= metrics["wer_teacher"] <= 1 and metrics["wer_mimi"] is not None
    rows = [json.loads(line) for line in (out / "utterances.jsonl").open("rb")]
    assert all(soundfile.info(out / row["audio"]).samplerate == 24_000 for row in rows)
    (tmp_path / "texts.txt").write_text(f"{ANSWER}\n\n{QUESTION}\n", encoding="utf-8")
    run(evaluate.main, *words, "--texts", tmp_path / "texts.txt", "--out", tmp_path / "b")
    metrics = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert metrics["num_held_out"] == 2 and metrics["wer_teacher"] is None


def test_chat_answers_turn_after_turn(world, corpus, tmp_path, monkeypatch, capsys):
    lines = [
        QUESTION,
        "/what",
        "/reset",
        str(corpus / "audio" / "train_question_0000.wav"),
        "/quit",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    chat.main([str(word) for word in (*models(world), "--out", tmp_path)])
    captured = capsys.readouterr()
    assert captured.out.startswith(ANSWER) and captured.out.count("answer_00") == 2
    assert captured.err.count("first sound after") == 2 and "unknown command /what" in captured.err
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "answer_001.wav",
        "answer_002.wav",
    ]


def test_chat_plays_while_it_speaks(world, tmp_path, monkeypatch):
    player = tmp_path / "bin" / "aplay"
    player.parent.mkdir()
    player.write_text(f"#!/bin/sh\ncat > {tmp_path}/played\n")
    player.chmod(0o755)
    monkeypatch.setenv("PATH", f"{player.parent}:/usr/bin:/bin")
    run(chat.main, *models(world), "--out", tmp_path / "out", "--prompt", QUESTION, "--play")
    samples = soundfile.info(tmp_path / "out" / "answer_001.wav").frames
    assert (tmp_path / "played").stat().st_size == 2 * samples
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="aplay, paplay, play, ffplay"):
        chat.find_player()


def test_preflight_passes_on_models_that_fit_and_fails_on_others(world, tmp_path):
    def check(*words):
        with pytest.raises(SystemExit) as stopped:
            run_and_keep(preflight.main, tmp_path / "table", *words)
        return stopped.value.code, (tmp_path / "table").read_text()

    code, table = check(*models(world))
    assert code == 0 and "9 of 9 checks passed" in table and "FAIL" not in table
    head = generate.load_head(str(world / "head"), device=torch.device("cpu"))
    wider = type(head.config)(**{**vars(head.config), "state_width": 48})
    type(head)(wider).save_pretrained(tmp_path / "wider")
    code, table = check(*models(world), "--head", tmp_path / "wider")
    assert code == 1 and "FAIL  speech head fits" in table and "8 of 9" in table
    code, table = check("--gemma", tmp_path / "nothing", *CPU)
    assert code == 1 and "cannot be loaded" in table


def run_and_keep(main, path: Path, *words):
    """`run`, for a command that exits: its stdout goes to a file."""
    with path.open("w") as file, contextlib.redirect_stdout(file):
        main([str(word) for word in words])
