"""What is said before the texts a head is trained on."""

from dataclasses import replace

import pytest
import torch
from head_world import ANSWER, QUESTION, make_states

from commands.errors import InputError
from data_manifests.manifest import read_manifest, write_manifest
from speech_head.answer import ask_to_speak
from speech_head.data import StatesFolder
from speech_head.questions import Questions, load_questions
from stage3_finetune.dialogue import Dialogue, Turn

CODES = torch.zeros(3, 8, dtype=torch.long)
FRAMES = torch.ones(3, 64)


def dialogue(question, answer, codes_TK=None):
    return Dialogue(
        question,
        (
            Turn("user", question, spoken=codes_TK is not None, codes_TK=codes_TK),
            Turn("assistant", answer),
        ),
    )


def test_an_answer_comes_after_a_question_it_answers():
    asked = [dialogue("Ɛyɛ a?", "Ɛyɛ."), dialogue("Ɛyɛ anaa?", "ɛyɛ"), dialogue("Ɛhe?", "Ɛhɔ.")]
    questions = Questions(asked, None, 0, {})
    drawn = {questions.before("Ɛyɛ.", str(i)).content for i in range(30)}
    assert drawn == {"Ɛyɛ a?", "Ɛyɛ anaa?"}
    assert not questions.before("Ɛhɔ!", "x").spoken


def test_any_other_text_comes_after_some_question_or_after_the_request_to_speak():
    questions = Questions([dialogue("Ɛyɛ a?", "Ɛyɛ."), dialogue("Ɛhe?", "Ɛhɔ.")], None, 0, {})
    drawn = [questions.before("Me din de Ama.", str(i)) for i in range(200)]
    assert drawn == [questions.before("Me din de Ama.", str(i)) for i in range(200)]
    assert 60 < drawn.count(ask_to_speak()) < 140
    assert {turn.content for turn in drawn} == {"Ɛyɛ a?", "Ɛhe?", ask_to_speak().content}


def test_questions_with_codes_are_heard_half_of_the_time():
    questions = Questions([dialogue("Ɛyɛ a?", "Ɛyɛ.", CODES)], lambda codes_TK: FRAMES, 0, {})
    drawn = [questions.before("Ɛyɛ.", str(i)) for i in range(100)]
    heard = [turn for turn in drawn if turn.spoken]
    assert 30 < len(heard) < 70
    assert all(turn.frames_TD is FRAMES for turn in heard)


def test_what_holds_no_question_is_refused(tmp_path):
    with pytest.raises(InputError, match="no question in any of them"):
        Questions([Dialogue("a", (Turn("system", "Ka Twi."),))], None, 0, {})
    with pytest.raises(InputError, match="give --rvq to decode them"):
        load_questions(tmp_path, None, seed=0)


def test_states_are_those_after_the_question(head_world, tmp_path):
    """The same as after "Kasa." where that was drawn, others where a question was."""
    recorded = list(read_manifest(head_world / "train.jsonl"))[:2]
    write_manifest(
        tmp_path / "answers.jsonl",
        [replace(recorded[0], text=ANSWER), replace(recorded[1], id="b", text=ANSWER)],
    )
    typed = f'{{"messages": [{{"role": "user", "content": "{QUESTION}"}}, '
    typed += f'{{"role": "assistant", "content": "{ANSWER}"}}]}}\n'
    (tmp_path / "dialogues.jsonl").write_text(typed, encoding="utf-8")
    folders = {}
    for name, words in (("kasa", ()), ("asked", ("--dialogues", tmp_path / "dialogues.jsonl"))):
        manifest = ("--manifest", tmp_path / "answers.jsonl")
        make_states(head_world, tmp_path / name, *words, *manifest)
        folders[name] = states_of(tmp_path / name)
    assert not torch.equal(folders["kasa"].states_SLD, folders["asked"].states_SLD)
    for part in ("embeddings_SD", "codes_FK", "cursor_F"):
        assert torch.equal(getattr(folders["kasa"], part), getattr(folders["asked"], part))


def states_of(folder):
    cached = StatesFolder(folder)
    return cached.read(cached.utterances[0])
