"""Stage 4 in the browser: what the page's events do, with tiny models; the page over HTTP."""

import base64
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import gradio
import gradio_client
import httpx
import numpy as np
import pytest
import soundfile
from conftest import run
from head_world import ANSWER, QUESTION, models

from data_manifests.errors import InputError
from speech_head import generate, web
from speech_head.generate import Speech
from speech_head.live_sound import LiveSound
from speech_head.speak import next_answer_path
from stage1_rvq.device import derive_seed


@pytest.fixture
def config(head_world, tmp_path):
    return web.WebConfig(head=str(head_world / "head"), out=tmp_path / "answers")


@pytest.fixture
def voice_chat(talker, config):
    return web.VoiceChat(talker, config)


def fetch_samples(fetch, name):
    """All that the browser is given, int16."""
    pieces = iter(lambda: fetch(name), None)
    return np.concatenate([np.frombuffer(base64.b64decode(piece), "<i2") for piece in pieces])


def expected_samples(talker, config, turns=()):
    alone = replace(talker, conversation=talker.conversation.continuing(list(turns)))
    speech = Speech(alone, config.sampling(derive_seed(config.seed, len(turns) // 2 + 1)))
    question = alone.conversation.typed_turn(QUESTION)
    return np.concatenate(list(speech.say(alone.answer(question))))


def test_sound_arrives_whole_and_once():
    sound, heard = LiveSound(), []

    def listen():
        while (samples_N := sound.take()) is not None:
            heard.append(samples_N)

    listener = threading.Thread(target=listen)
    listener.start()
    pieces = [np.full(3, i, np.float32) for i in range(100)]
    for samples_N in pieces:
        sound.add(samples_N)
    sound.end()
    listener.join(timeout=10)
    assert np.array_equal(np.concatenate(heard), np.concatenate(pieces))


def test_a_listener_who_interrupts_or_waits_hears_nothing_more():
    sound = LiveSound()
    assert sound.take(timeout_s=0.01).size == 0  # nothing yet, and more may come
    sound.add(np.ones(3, np.float32))
    sound.interrupt()
    assert sound.is_interrupted and sound.take() is None


def test_a_typed_question_is_answered_in_text_and_sound(voice_chat, talker, config):
    turns = []
    shown = list(voice_chat.ask("ama", QUESTION, turns))
    assert [turn.content for turn in turns] == [QUESTION, ANSWER]
    assert talker.conversation.turns == []  # which other visitors share
    assert shown[0].answer == "" and shown[-1].answer == ANSWER
    assert all(ANSWER.startswith(piece.answer) for piece in shown)
    samples_N = expected_samples(talker, config)
    heard_N = fetch_samples(voice_chat.next_sound, shown[0].sound)
    assert np.array_equal(heard_N, (samples_N.clip(-1, 1) * 32767).astype(np.int16))
    assert len(soundfile.read(shown[-1].wav)[0]) == len(samples_N)
    assert voice_chat.next_sound(shown[0].sound) is None


def test_of_a_recording_the_page_shows_what_was_heard(voice_chat, talker, corpus):
    talker.conversation.writes_transcripts = True
    turns = []
    recording = corpus / "audio" / "train_question_0000.wav"
    *_, last = voice_chat.ask("ama", recording, turns)
    talker.conversation.writes_transcripts = False
    assert (last.question, last.answer) == (QUESTION, ANSWER)
    assert turns[-1].content == f"{QUESTION}\n{ANSWER}"


def test_an_interrupted_answer_is_remembered_as_far_as_it_was_written(voice_chat):
    turns = []
    answer = voice_chat.ask("ama", QUESTION, turns)
    name = next(answer).sound
    written = next(answer).answer
    voice_chat.interrupt("ama")
    *_, last = answer
    assert voice_chat.next_sound(name) is None
    assert turns[0].content == QUESTION and turns[1].content.startswith(written)
    assert ANSWER.startswith(turns[1].content) and turns[1].content != ANSWER
    assert last.wav and soundfile.info(last.wav).frames < 24_000 * len(ANSWER)
    *_, last = voice_chat.ask("ama", QUESTION, turns)
    assert last.answer and len(turns) == 4


def test_visitors_have_conversations_of_their_own(voice_chat, talker, config):
    ama, kofi = [], []
    asked_first = voice_chat.ask("ama", QUESTION, ama)
    first = next(asked_first)
    *_, second = voice_chat.ask("kofi", QUESTION, kofi)
    voice_chat.interrupt("kofi")
    list(asked_first)
    samples_N = (expected_samples(talker, config).clip(-1, 1) * 32767).astype(np.int16)
    assert np.array_equal(fetch_samples(voice_chat.next_sound, first.sound), samples_N)
    assert voice_chat.next_sound(second.sound) is None
    assert len(ama) == len(kofi) == 2


def test_a_question_that_cannot_be_asked_changes_nothing(voice_chat, config, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    for question in ("  ", Path(tmp_path / "broken.wav")):
        turns = []
        with pytest.raises(InputError):
            list(voice_chat.ask("ama", question, turns))
        assert turns == [] and not config.out.exists()


def test_an_answer_without_a_word_leaves_nothing(voice_chat, config, monkeypatch):
    stream = generate.stream_answer
    monkeypatch.setattr(generate, "stream_answer", lambda *a, **k: list(stream(*a, **k))[-1:])
    turns = []
    with pytest.raises(InputError, match="no answer"):
        list(voice_chat.ask("ama", QUESTION, turns))
    assert turns == [] and not config.out.exists()


def test_no_answer_is_written_over(tmp_path):
    for name in ("answer_002.wav", "answer_010.wav"):
        (tmp_path / name).touch()
    assert next_answer_path(tmp_path).name == "answer_011.wav"
    assert next_answer_path(tmp_path / "new").name == "answer_001.wav"


def test_the_page_answers_over_http(voice_chat):
    page = web.build_page(voice_chat)
    _, address, _ = page.launch(quiet=True, prevent_thread_lock=True)
    try:
        client = gradio_client.Client(address, verbose=False)
        messages, name, *_ = client.predict(QUESTION, api_name="/answer")
        [player] = [block for block in page.blocks.values() if isinstance(block, gradio.HTML)]

        def fetch(name):
            body = {
                "data": name, "fn_name": "next_sound", "component_id": player._id,
                "session_hash": client.session_hash,
            }  # fmt: skip
            return httpx.post(f"{address}gradio_api/component_server", json=body).json()

        heard_N = fetch_samples(fetch, name)
        *_, refused = client.predict("", api_name="/answer")[0]
    finally:
        page.close()
    question, answer = messages
    assert question["content"][0]["text"] == QUESTION
    assert answer["content"][0]["text"] == ANSWER
    assert len(heard_N) % 1920 == 0 and len(heard_N) > 0
    assert refused == answer


def test_what_hinders_the_page_is_named(head_world, tmp_path, monkeypatch):
    words = (*models(head_world), "--out", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}"):
            run(web.main, *words, "--port", port)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match="needs Gradio"):
        run(web.main, *words)
