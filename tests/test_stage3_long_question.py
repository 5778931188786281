"""What a recording of any length is asked in a chat."""

import json

import numpy as np
import pytest
import soundfile
import torch
from conftest import run

from commands.errors import InputError
from data_manifests.long_audio import open_long_audio
from stage3_finetune import chat, long_question
from stage3_finetune.conversation import load_conversation
from stage3_finetune.long_question import question_about, written_lines
from stage3_finetune.long_transcript import write_down

RATE_HZ = 8000
WHAT = "Dɛn ho asɛm na ɔreka?"


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Ten minutes, of which seven seconds are not silence."""
    noise_N = 0.1 * np.random.default_rng(0).standard_normal(RATE_HZ * 7)
    silence_N = np.zeros(RATE_HZ * 300)
    first_N, second_N = noise_N[: RATE_HZ * 3], noise_N[RATE_HZ * 3 :]
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.concatenate([first_N, silence_N, second_N, silence_N]), RATE_HZ)
    return path


@pytest.fixture
def conversation(tiny_models):
    settings = {"device": torch.device("cpu"), "dtype": torch.float32, "max_new_tokens": 6}
    return load_conversation(str(tiny_models / "gemma"), None, **settings)


def test_a_long_recording_is_asked_about_as_its_text_with_times(conversation, talk):
    cues = []
    question = question_about(conversation, talk, WHAT, cues.append)
    with open_long_audio(talk) as recording:
        expected = [piece.cue for piece in write_down(conversation, recording)]
    assert cues == expected and [round(cue.start_s) for cue in cues] == [0, 303]
    assert not question.spoken and question.content == (
        f"[0:00:00] {cues[0].text}\n[0:05:02] {cues[1].text}\n\n{WHAT}"
    )
    shown = []
    reply = conversation.ask(question, shown.append)
    assert reply.transcript == "" and reply.answer == "".join(shown).strip()
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"]


def test_a_short_recording_is_heard(conversation, corpus):
    recording = corpus / "audio" / "train_question_0001.wav"
    question = question_about(conversation, recording, "", pytest.fail)
    assert question.spoken and question.frames_TD is not None
    assert list(written_lines(conversation, recording)) == [conversation.write_down(recording)]


def test_the_text_of_a_long_recording_ends_where_the_prompt_is_full(
    conversation, talk, monkeypatch
):
    cues = []
    monkeypatch.setattr(long_question, "PIECES_AT_A_TIME", 1)
    monkeypatch.setattr(long_question, "most_prompt_tokens", lambda *_: 3)
    with pytest.raises(InputError, match=r"up to 0:00:03 takes .* tokens, Gemma takes at most 3"):
        question_about(conversation, talk, WHAT, cues.append)
    assert len(cues) == 1


def test_without_a_question_or_without_speech_there_is_none(conversation, talk, tmp_path):
    with pytest.raises(InputError, match="lasts 607 s, at most 300 s are heard as a question"):
        question_about(conversation, talk, "", pytest.fail)
    soundfile.write(tmp_path / "still.wav", np.zeros(RATE_HZ * 301), RATE_HZ)
    with pytest.raises(InputError, match="no speech was found"):
        question_about(conversation, tmp_path / "still.wav", WHAT, pytest.fail)


def test_the_command_asks_and_writes_down(tiny_models, talk, monkeypatch, capsys):
    words = ("--gemma", tiny_models / "gemma", "--device", "cpu", "--max-new-tokens", 6)
    said = run(chat.main, *words, "--audio", talk, "--prompt", WHAT, "--json")
    assert set(json.loads(said)) == {"transcript", "answer"}
    assert capsys.readouterr().err.count("[00:05:02.900 -->") == 1
    typed = iter([f"/write {talk}", f"/audio {talk}", f"/audio {talk} {WHAT}", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    chat.main([str(word) for word in words])
    said = capsys.readouterr()
    assert [line[:14] for line in said.out.splitlines()[:2]] == ["[00:00:00.000 ", "[00:05:02.900 "]
    assert said.err.count("error: ") == 1 and "type after it what you want to know" in said.err
    assert said.err.count("[00:05:02.900 -->") == 1
