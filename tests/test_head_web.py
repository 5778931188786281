"""Stage 4 in the browser: what the page's events do, with tiny models."""

import base64
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from head_world import ANSWER, QUESTION, let_gemma_write

from commands.errors import InputError, WriteError
from speech_head import generate
from speech_head.generate import Speech
from voice_chat import visits as voice_chat
from voice_chat import web
from voice_chat.visits import MAX_VISITS, MAX_WAITING, VoiceChat


@pytest.fixture
def config(tmp_path):
    return web.WebConfig(head="head", out=tmp_path / "answers")


@pytest.fixture
def chat(talker, config, tmp_path, monkeypatch):
    let_gemma_write(monkeypatch, ANSWER)
    return VoiceChat(talker, config, config.out, tmp_path / "files")


class FakeSpeech:
    """Says two pieces of sound in no time."""

    text = "Yoo."

    def __init__(self, talker, sampling):
        pass

    def say(self, answer):
        yield from np.full((2, 1920), 0.5, np.float32)


@pytest.fixture
def quick_chat(chat, monkeypatch):
    """A voice chat that does not compute."""
    monkeypatch.setattr(voice_chat, "Speech", FakeSpeech)
    return chat


def fetch_samples(fetch, name):
    """All that the browser is given, int16."""
    pieces = iter(lambda: fetch(name), None)
    return np.concatenate([np.frombuffer(base64.b64decode(piece), "<i2") for piece in pieces])


def expected_samples(talker, config):
    alone = replace(talker, conversation=talker.conversation.continuing([]))
    speech = Speech(alone, config.sampling_of_turn([]))
    question = alone.conversation.typed_turn(QUESTION)
    return np.concatenate(list(speech.say(alone.answer(question))))


def upload(chat, visitor, tmp_path, recording):
    shutil.copyfile(recording, tmp_path / "upload.wav")
    return chat.receive(visitor, tmp_path / "upload.wav")


def files_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_typed_question_is_answered_in_text_and_sound(chat, talker, config):
    shown = list(chat.ask("ama", QUESTION))
    assert [turn.content for turn in chat.visit("ama").turns] == [QUESTION, ANSWER]
    assert talker.conversation.turns == []  # which other visitors share
    assert shown[0].answer == "" and shown[-1].answer == ANSWER
    assert all(ANSWER.startswith(piece.answer) for piece in shown)
    samples_N = expected_samples(talker, config)
    heard_N = fetch_samples(chat.next_sound, shown[0].sound)
    assert np.array_equal(heard_N, (samples_N.clip(-1, 1) * 32767).astype(np.int16))
    assert len(soundfile.read(shown[-1].wav)[0]) == len(samples_N)
    assert chat.next_sound(shown[0].sound) is None
    assert chat.visit("ama").exchanges == shown[-1:]


def test_of_a_recording_the_page_shows_what_was_heard(chat, talker, corpus, tmp_path, monkeypatch):
    let_gemma_write(monkeypatch, f"{QUESTION}\n{ANSWER}")
    monkeypatch.setattr(talker.conversation, "writes_transcripts", True)
    recording = upload(chat, "ama", tmp_path, corpus / "audio" / "train_question_0000.wav")
    *_, last = chat.ask("ama", recording)
    assert (last.question, last.answer) == (QUESTION, ANSWER)
    assert chat.visit("ama").turns[-1].content == f"{QUESTION}\n{ANSWER}"
    assert last.recording == recording and recording.exists()


def test_an_interrupted_answer_is_remembered_as_far_as_it_was_written(chat):
    answer = chat.ask("ama", QUESTION)
    name = next(answer).sound
    written = next(answer).answer
    chat.interrupt("ama")
    *_, last = answer
    assert chat.next_sound(name) is None
    turns = chat.visit("ama").turns
    assert turns[0].content == QUESTION and turns[1].content.startswith(written)
    assert ANSWER.startswith(turns[1].content) and turns[1].content != ANSWER
    assert last.wav and soundfile.info(last.wav).frames < 24_000 * len(ANSWER)
    *_, last = chat.ask("ama", QUESTION)
    assert last.answer and len(turns) == 4


def test_visitors_have_conversations_of_their_own(quick_chat):
    """Kofi hears nothing of Ama's, and interrupts nobody but himself."""
    *_, ama = quick_chat.ask("ama", QUESTION)
    *_, kofi = quick_chat.ask("kofi", "Wo ho te sɛn?")
    quick_chat.interrupt("kofi")
    assert quick_chat.next_sound(kofi.sound) is None
    assert len(fetch_samples(quick_chat.next_sound, ama.sound)) == 2 * 1920
    assert [shown.question for shown in quick_chat.visit("ama").exchanges] == [QUESTION]
    assert {path.parent for path in (ama.wav, kofi.wav)} == {
        quick_chat.files / quick_chat.visit(visitor).name for visitor in ("ama", "kofi")
    }


def test_names_of_sounds_and_files_cannot_be_guessed(quick_chat, corpus, tmp_path):
    recording = corpus / "audio" / "train_question_0000.wav"
    names = set()
    for _ in range(3):
        *_, shown = quick_chat.ask("ama", upload(quick_chat, "ama", tmp_path, recording))
        kept = files_in(quick_chat.out)[-1]
        names |= {shown.sound, shown.wav.stem, shown.recording.stem, shown.wav.parent.name}
        assert "ama" not in f"{shown.sound}{shown.wav}" and kept.parent.name in names
    assert len(names) == 3 * 3 + 1  # of the visit there is one
    assert all(len(name) >= 32 for name in names)  # of 64 letters: 192 bits
    assert quick_chat.next_sound("ama/1") is None


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("  ", "nothing was asked"),
        ("a" * 100_000, "at most 4,000"),
        ("Wo <|audio|> ho?", "a mark of Gemma"),
        (b"no sound", "the recording: not readable as audio"),
        (np.full(8000 * 301, 0.1), "the recording: lasts 301 s, at most 300 s"),
        (np.zeros(8000), "the recording: silent"),
    ],
)
def test_a_question_that_cannot_be_asked_changes_nothing(chat, tmp_path, question, reason):
    if not isinstance(question, str):
        path = tmp_path / "question.flac"
        if isinstance(question, bytes):
            path.write_bytes(question)
        else:
            soundfile.write(path, question, 8000)
        question = chat.receive("ama", path)
    with pytest.raises(InputError, match=reason) as refused:
        list(chat.ask("ama", question))
    assert str(tmp_path) not in str(refused.value)
    visit = chat.visit("ama")
    assert visit.turns == visit.exchanges == files_in(chat.files) == []
    assert not chat.out.exists() and len(chat._line) == 0


def test_an_upload_that_is_gone_is_told(chat, tmp_path):
    with pytest.raises(InputError, match="the recording is no longer there: record it again"):
        chat.receive("ama", tmp_path / "upload.wav")


def test_an_answer_without_a_word_leaves_nothing(chat, monkeypatch):
    stream = generate.stream_answer
    monkeypatch.setattr(generate, "stream_answer", lambda *a, **k: list(stream(*a, **k))[-1:])
    with pytest.raises(InputError, match="no answer"):
        list(chat.ask("ama", QUESTION))
    assert chat.visit("ama").turns == [] and not chat.out.exists()


def test_an_answer_that_cannot_be_kept_stays_on_the_page(quick_chat, monkeypatch):
    def full(*words):
        raise WriteError("cannot write: No space left on device")

    monkeypatch.setattr(voice_chat, "keep_answer", full)
    shown = []
    with pytest.raises(WriteError):
        shown.extend(quick_chat.ask("ama", QUESTION))
    [exchange] = quick_chat.visit("ama").exchanges
    assert exchange.answer == "Yoo." and exchange.wav is None


def test_a_visitor_who_waits_sees_how_many_come_before(quick_chat):
    first = quick_chat.ask("ama", QUESTION)
    next(first)
    waiting = quick_chat.ask("kofi", QUESTION)
    assert next(waiting).num_before == 1
    others = [quick_chat.ask(f"visitor {i}", QUESTION) for i in range(MAX_WAITING - 1)]
    for other in others:
        next(other)
    with pytest.raises(InputError, match="questions are waiting already"):
        next(quick_chat.ask("esi", QUESTION))
    list(first)
    assert [shown.num_before for shown in waiting] == [0, 0, 0]


@pytest.mark.parametrize("is_waiting", [True, False])
def test_of_a_visitor_who_left_nothing_is_made(quick_chat, is_waiting):
    other = quick_chat.ask("kofi", QUESTION)
    if is_waiting:
        next(other)
    answer = quick_chat.ask("ama", QUESTION)
    next(answer)
    quick_chat.leave("ama")
    assert list(answer) == []
    other.close()
    quick_chat.leave("kofi")
    assert not quick_chat.out.exists() and not quick_chat._sounds
    assert len(quick_chat._line) == 0


def test_nothing_grows_with_the_visitors(quick_chat, corpus, tmp_path):
    """Some leave, some vanish without a word, and none fetches the sound."""
    recording = corpus / "audio" / "train_question_0000.wav"
    for i in range(2 * MAX_VISITS):
        question = QUESTION
        if i % 8 == 0:
            question = upload(quick_chat, f"visitor {i}", tmp_path, recording)
        list(quick_chat.ask(f"visitor {i}", question))
        if i % 2 == 0:
            quick_chat.leave(f"visitor {i}")
    assert len(quick_chat._visits) == len(quick_chat._sounds) == MAX_VISITS
    assert len(files_in(quick_chat.files)) == MAX_VISITS
    for visitor in list(quick_chat._visits):
        quick_chat.leave(visitor)
    assert not quick_chat._visits and not quick_chat._sounds
    assert list(quick_chat.files.iterdir()) == []
    assert len(files_in(quick_chat.out)) == 2 * MAX_VISITS  # each in a folder of its own


def test_of_a_long_conversation_the_page_shows_the_end(quick_chat, monkeypatch):
    monkeypatch.setattr(voice_chat, "MAX_EXCHANGES", 3)
    for i in range(5):
        list(quick_chat.ask("ama", f"Asɛm {i}"))
    visit = quick_chat.visit("ama")
    assert [shown.question for shown in visit.exchanges] == ["Asɛm 2", "Asɛm 3", "Asɛm 4"]
    assert files_in(quick_chat.files) == sorted(shown.wav for shown in visit.exchanges)
