"""Questions through a browser's microphone, without the browser: what it hears, what the page is
told, what the server is given, the tables; and one question asked as a file."""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks import browser_microphone as benchmark
from benchmarks import demo_server, fake_microphone
from benchmarks.asked_questions import AskedQuestion, choose_questions, is_same
from benchmarks.quiet_room import ROOM_NOISE
from commands.command_line import parse_config
from commands.setting_groups import values_of
from data_manifests.manifest import Utterance
from stage3_finetune.reply import Reply
from voice_chat.serve import ServeConfig
from voice_chat.turn_taking import TurnSettings

ASKED = {"questions", "dialogues", "num_questions"}  # settings of the benchmark alone
RECORDING = Utterance(
    id="q", audio="q.wav", text="q", duration_s=1.0, speaker="a", dialect="asante", corpus="demo",
    split="test", license="Apache-2.0",
)  # fmt: skip
QUESTIONS = [
    AskedQuestion("Wo din de sɛn?", "Me din de Gemma.", RECORDING),
    AskedQuestion("Ɛnnɛ yɛ da bɛn?", "Benada.", RECORDING),
]
FILE = [Reply("wo din de sɛn", "me din de Gemma"), Reply("Ɛnnɛ yɛ da bɛn?", "Benada.")]


def test_the_microphone_hears_a_quiet_room_around_the_question():
    question_N = np.full(800, 0.5, np.float32)
    sound_N = fake_microphone.surround_with_silence(question_N, 1000, 2.0)
    begin = round(1000 * fake_microphone.LEAD_S)
    assert sound_N.dtype == np.float32 and len(sound_N) == begin + 800 + 2000
    np.testing.assert_allclose(sound_N[begin : begin + 800], 0.5, atol=6 * ROOM_NOISE)
    for silence_N in (sound_N[:begin], sound_N[begin + 800 :]):
        assert 0.9 < np.std(silence_N) / ROOM_NOISE < 1.1


def test_answers_are_found_by_the_text_of_the_recording(corpus):
    questions = choose_questions(corpus / "dialogues_test.jsonl", corpus / "test.jsonl", 3)
    assert len(questions) == 3
    assert all(q.recording.text == q.text and q.answer for q in questions)


def test_the_server_gets_the_same_talker():
    config = benchmark.BenchmarkConfig(
        questions=Path("q"), dialogues=Path("d"), pace=-0.5, cut_long_answers=False, finetune=None,
        turns=TurnSettings(pause_s=0.4),
    )  # fmt: skip
    served = parse_config(ServeConfig, demo_server.serve_words(config))
    ours = values_of(config)
    assert {name: value for name, value in values_of(served).items() if name in ours} == {
        name: value for name, value in ours.items() if name not in ASKED
    }


def events(*parts, status="completed"):
    """What the server tells of one question: that it is spoken, heard, answered."""
    began, stopped = ({"type": f"input_audio_buffer.speech_{p}"} for p in ("started", "stopped"))
    heard = "conversation.item.input_audio_transcription.completed"
    told = {
        "speech": [began],
        "silence": [stopped, {"type": "response.created"}],
        "answer": [
            {"type": heard, "transcript": "Wo din?"},
            {"type": "response.output_audio_transcript.done", "transcript": "Gemma."},
            {"type": "response.done", "response": {"status": status}},
        ],
    }
    return [event for part in parts for event in told[part]]


@pytest.mark.parametrize(
    ("parts", "status", "answer", "is_busy"),
    [
        (["speech"], "completed", "", True),
        (["speech", "silence"], "completed", "", True),
        (["speech", "silence", "answer"], "completed", "Gemma.", False),
        (["speech", "silence", "answer"], "failed", "", False),
        (["speech", "silence", "answer", "speech"], "completed", "Gemma.", True),
    ],
)
def test_what_the_page_is_told(parts, status, answer, is_busy):
    told = fake_microphone.ToldPage()
    for event in events(*parts, status=status):
        told.take(event)
    assert (told.answer, told.is_busy) == (answer, is_busy)
    assert told.transcript == ("Wo din?" if "answer" in parts else "")


def test_the_tables():
    replies = {"file": FILE, "browser": [FILE[0], Reply("Ɛnnɛ yɛ", "")]}
    table = benchmark.format_scores(QUESTIONS, replies)
    assert re.search(r"^file +2 +100\.0 % +0\.000 +2 +2$", table, re.M)
    assert re.search(r"^browser +1 +50\.0 % +0\.250 +1 +1$", table, re.M)
    assert benchmark.format_differences(QUESTIONS, replies).splitlines() == [
        "",
        "Ɛnnɛ yɛ da bɛn? -> Benada.",
        "  file              Ɛnnɛ yɛ da bɛn? -> Benada.",
        "  browser           Ɛnnɛ yɛ -> ",
    ]


@pytest.mark.skipif(
    None in map(find_spec, ("silero_vad", "livekit")), reason="needs silero-vad and livekit"
)
def test_a_file_is_answered_read_and_played(corpus):
    config = benchmark.BenchmarkConfig(
        questions=corpus / "test.jsonl", dialogues=corpus / "dialogues_test.jsonl", num_questions=1
    )
    [question] = choose_questions(config.dialogues, config.questions, 1)
    talker = config.load()
    read = benchmark.ask_file(talker, question)
    played = benchmark.ask_hands_free(talker, config, question)
    for reply in (read, played):
        assert is_same(reply.transcript, question.text)
        assert is_same(reply.answer, question.answer)
