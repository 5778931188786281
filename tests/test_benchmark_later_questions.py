"""The benchmark of later questions: which are asked together, and what counts as right."""

from types import SimpleNamespace

import pytest

from benchmarks import later_questions
from benchmarks.asked_questions import AskedQuestion
from benchmarks.later_questions import BenchmarkConfig, ask_all, draw_conversations
from commands.errors import InputError


def settings(corpus, **others):
    files = {"questions": corpus / "test.jsonl", "dialogues": corpus / "dialogues_test.jsonl"}
    return BenchmarkConfig(**files, **others)


def test_every_question_is_asked_once_in_whole_conversations(corpus):
    conversations = draw_conversations(settings(corpus, num_questions=5, num_turns=2))
    asked = [question.text for one in conversations for question in one]
    assert [len(one) for one in conversations] == [2, 2] and len(set(asked)) == 4
    with pytest.raises(InputError, match="2 questions are too few for a conversation"):
        draw_conversations(settings(corpus, num_questions=2, num_turns=3))


def test_an_answer_is_right_if_it_is_the_expected_one(monkeypatch):
    replies = iter(["me din de AMA", "Aane."])
    monkeypatch.setattr(later_questions, "read_utterance_audio", lambda *_: None)
    monkeypatch.setattr(
        later_questions, "ask_sound", lambda *_: SimpleNamespace(answer=next(replies))
    )
    talk = SimpleNamespace(turns=["of the conversation before"])
    asked = [AskedQuestion("Wo din?", answer, None) for answer in ("Me din de Ama.", "Daabi.")]
    assert ask_all(talk, asked) == [True, False] and talk.turns == []
